"""Limits, whatever happens in whatever order: a model beside a real Redis."""

from __future__ import annotations

from collections import Counter

import pytest
from arq_runtime.limits import limit
from arq_runtime.worker.job import Context
from holding import Model, check, end_of
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

pytestmark = pytest.mark.slow

KEYS = st.integers(0, 2)
WORKERS = st.integers(0, 1)
OF_KEY, OF_ALL = 2, 4


@limit(concurrency=OF_KEY, key="key")
@limit(concurrency=OF_ALL)
async def task(ctx: Context, key: int) -> None: ...


class Limits(Model):
    """Jobs of three keys, two of a key at once and four of all, and two workers."""

    tasks = (task,)

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[str, int] = {}  # of each job that there was
        self.waiting: dict[str, None] = {}  # in their order
        self.is_new: set[str] = set()  # never claimed, nor replaced

    # --- What may happen

    @initialize()
    def begin(self) -> None:
        for key in range(3):
            self.enqueue(key, 3)

    @rule(key=KEYS, count=st.integers(1, 6))
    def enqueue(self, key: int, count: int) -> None:
        ids = [f"{len(self.keys) + number:03}" for number in range(count)]
        calls = [{"key": key, "_job_id": job_id} for job_id in ids]
        assert all(self.run(self.app.client.enqueue_many(task, calls)))
        self.keys |= dict.fromkeys(ids, key)
        self.waiting |= dict.fromkeys(ids)
        self.is_new |= {*ids}

    @rule(worker=WORKERS, free=st.sampled_from([1, 2, 100]))
    def claim(self, worker: int, free: int) -> None:
        claimed = self.claim_by(worker, free)
        for key in range(3):
            new = [id_ for id_ in claimed if id_ in self.is_new]
            mine = [id_ for id_ in new if self.keys[id_] == key]
            in_order = [id_ for id_ in self.waiting if id_ in self.is_new]
            first = [id_ for id_ in in_order if self.keys[id_] == key][: len(mine)]
            assert mine == first
        for job_id in claimed:
            del self.waiting[job_id]
            self.is_new.discard(job_id)
        if len(claimed) < free:
            self.none_could_run()

    def running_of_each(self) -> Counter[int]:
        return Counter(self.keys[job_id] for job_id in self.running)

    def none_could_run(self) -> None:
        counts = self.running_of_each()
        if len(self.running) < OF_ALL:
            for job_id in self.waiting:
                assert counts[self.keys[job_id]] == OF_KEY, (job_id, counts)

    @rule(worker=WORKERS)
    def claim_whose_answer_is_lost(self, worker: int) -> None:
        leases = self.workers[worker].leases
        token, held = leases._token, dict(leases.held)
        self.run(leases.claim(lambda: 3))
        leases._token, leases.held = token, held
        self.workers[worker].claimed.clear()
        self.claim(worker, 100)

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(), what=st.sampled_from(["complete", "failed", "retry", "release"])
    )
    def end(self, data: st.DataObject, what: str) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.running)))
        holder, job = self.running.pop(job_id)
        assert self.run(holder.ends.finish(job, end_of(job, what))) == 1
        if what in ("retry", "release"):
            self.waiting[job_id] = None

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.run(self.app.lookup.abort_job(job_id))
        del self.waiting[job_id]

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), key=KEYS)
    def replace(self, data: st.DataObject, key: int) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.waiting)))
        self.run(self.app.enqueue(task, key, _job_id=job_id, _replace=True))
        self.keys[job_id] = key
        self.is_new.discard(job_id)

    @rule(worker=WORKERS)
    def kill(self, worker: int) -> None:
        self.waiting |= dict.fromkeys(self.lose(worker))

    @rule()
    def renew(self) -> None:
        for holder in self.workers:
            holder.leases.renew_at = 0
            self.run(holder.leases.renew())

    # --- What holds always

    @invariant()
    def no_more_than_the_limits(self) -> None:
        counts = self.running_of_each()
        assert len(self.running) <= OF_ALL and max(counts.values(), default=0) <= OF_KEY

    @invariant()
    def all_are_seen(self) -> None:
        stats = self.run(self.app.operations.queue_stats())
        assert stats.queued == len(self.waiting)


def test_limits_hold_and_nothing_waits_in_vain(redis_url: str) -> None:
    check(Limits, redis_url, examples=60)
