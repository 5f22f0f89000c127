"""Batches, whatever happens in whatever order: a model beside a real Redis."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from arq_runtime.operate.info import Which
from arq_runtime.worker.job import Context
from holding import Model, check, end_of
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

pytestmark = pytest.mark.slow

#: Of those that there are; ids are random, and what is drawn must not depend on them:
#: so no rule has a precondition.
WHICH = st.integers(0, 11)


async def member(ctx: Context) -> None: ...


async def then(ctx: Context, job_ids: list[str]) -> None: ...


class Batches(Model):
    """Batches of up to four jobs, and two workers."""

    tasks = member, then

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, set[str]] = {}  # what a job waits for, by its id
        self.live: set[str] = set()  # those that wait for nothing, or run
        self.failed: set[str] = set()
        self.expired: set[str] = set()

    @property
    def waiting(self) -> list[str]:
        return sorted(self.live - self.running.keys())

    def pick(self, among: Iterable[str], which: int) -> Iterator[str]:
        """One of them, if there is any."""
        found = sorted(among)
        if found:
            yield found[which % len(found)]

    def has_ended(self, job_id: str) -> None:
        self.live.discard(job_id)
        for last, ids in [*self.held.items()]:
            ids.discard(job_id)
            if not ids:
                del self.held[last]
                self.live.add(last)

    # --- What may happen

    @initialize(counts=st.lists(st.integers(1, 4), min_size=1, max_size=3))
    def begin(self, counts: list[int]) -> None:
        for count in counts:
            self.gather(count, 0)

    @rule(count=st.integers(0, 4), priority=st.sampled_from([0, 3]))
    def gather(self, count: int, priority: int) -> None:
        enqueue, ids = self.app.client.enqueue, set()
        calls = [enqueue(member, _priority=priority) for _ in range(count)]

        def call(job_ids: list[str]) -> Any:
            ids.update(job_ids)
            return enqueue(then, job_ids, _priority=priority)

        last = self.run(self.app.gather_then(calls, call)).job_id
        self.live |= ids or {last}
        if ids:
            self.held[last] = ids

    @rule(worker=st.integers(0, 1), free=st.sampled_from([1, 3, 100]))
    def claim(self, worker: int, free: int) -> None:
        waiting = self.waiting
        claimed = self.claim_by(worker, free)
        assert {*claimed} <= {*waiting}
        assert len({*claimed}) == min(free, len(waiting))

    @rule(
        worker=st.integers(0, 1),
        actions=st.lists(
            st.sampled_from(["complete", "failed", "retry", "release"]), min_size=1
        ),
        times=st.integers(1, 2),
    )
    def end(self, worker: int, actions: list[str], times: int) -> None:
        """Several in one step; again, where the answer to it was lost."""
        holder, ends = self.workers[worker], []
        self.claim(worker, 3)
        mine = [id_ for id_, (one, _) in self.running.items() if one is holder]
        for job_id, action in zip(mine, actions, strict=False):
            job = self.running.pop(job_id)[1]
            end = end_of(job, action)
            ends.append((self.runner.get_loop().create_future(), job, end))
            if action in ("complete", "failed"):
                self.has_ended(job_id)
            if action == "failed" and job_id not in self.expired:
                self.failed.add(job_id)
        token = uuid4().hex
        for _ in range(times):
            assert self.run(holder.ends._send(ends, token)) == [1] * len(ends)
        for _, job, _ in ends:
            holder.leases.let_go(job)

    @rule(which=WHICH)
    def abort(self, which: int) -> None:
        for job_id in self.pick({*self.waiting} - self.expired, which):
            assert self.run(self.app.lookup.abort_job(job_id))
            self.has_ended(job_id)

    @rule(which=WHICH, is_aborted=st.booleans())
    def end_the_wait(self, which: int, is_aborted: bool) -> None:
        for last in self.pick(self.held, which):
            del self.held[last]
            if is_aborted:
                assert self.run(self.app.lookup.abort_job(last))
            else:
                assert self.run(self.app.operations.run_now(last))
                self.live.add(last)

    @rule()
    def purge(self) -> None:
        if len(self.waiting) < 6:
            return
        count = len(self.waiting) + len(self.held)
        assert self.run(self.app.operations.purge(Which())) == count
        self.held.clear()
        self.live &= self.running.keys()

    @rule(which=WHICH, is_discarded=st.booleans())
    def retry(self, which: int, is_discarded: bool) -> None:
        for job_id in self.pick(self.failed, which):
            self.failed.discard(job_id)
            if is_discarded:
                assert self.run(self.app.operations.discard_job(job_id))
            else:
                assert self.run(self.app.operations.retry_job(job_id))
                self.live.add(job_id)

    @rule(which=WHICH)
    def expire(self, which: int) -> None:
        for job_id in self.pick(self.waiting, which):
            self.run(self.app.redis.delete(f"arq:job:{job_id}"))
            self.expired.add(job_id)

    @rule(worker=st.integers(0, 1))
    def kill(self, worker: int) -> None:
        self.lose(worker)

    # --- What holds always

    @invariant()
    def each_waits_for_its_batch_alone(self) -> None:
        stats = self.run(self.app.operations.queue_stats())
        assert (stats.queued, stats.deferred) == (len(self.waiting), len(self.held))


def test_a_batch_is_followed_once(redis_url: str) -> None:
    check(Batches, redis_url, examples=60)
