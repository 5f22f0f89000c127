"""Limits, whatever happens in whatever order: a model beside the scripts of a real Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from arq_runtime.limits import limit
from arq_runtime.worker.job import ClaimedJob, Context, End
from holding import Holder
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from kit import QUEUE, App

T = TypeVar("T")
KEYS = st.integers(0, 2)
WORKERS = st.integers(0, 1)
OF_KEY, OF_ALL = 2, 4


@limit(concurrency=OF_KEY, key="key")
@limit(concurrency=OF_ALL)
async def task(ctx: Context, key: int) -> None: ...


class Limits(RuleBasedStateMachine):
    """Jobs of three keys, two of a key at once and four of all, and two workers."""

    url: str

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.run(self.open())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    async def open(self) -> None:
        self.app = App(self.url)
        await self.app.redis.flushdb()
        self.app.settings(task)
        self.workers = [Holder(self.app, name) for name in ("one", "two")]
        self.enqueued = 0
        self.waiting: dict[str, int] = {}  # the key of each, in their order
        self.running: dict[str, tuple[int, Holder, ClaimedJob]] = {}
        self.is_new: set[str] = set()  # never claimed, nor replaced

    def teardown(self) -> None:
        self.run(self.app.close())
        self.runner.close()

    # --- What may happen

    @rule(key=KEYS, count=st.integers(1, 6))
    def enqueue(self, key: int, count: int) -> None:
        ids = [f"{self.enqueued + number:03}" for number in range(count)]
        self.enqueued += count
        calls = [{"key": key, "_job_id": job_id} for job_id in ids]
        assert all(self.run(self.app.client.enqueue_many(task, calls)))
        self.waiting |= dict.fromkeys(ids, key)
        self.is_new |= {*ids}

    @rule(worker=WORKERS, free=st.sampled_from([1, 2, 100]))
    def claim(self, worker: int, free: int) -> None:
        holder = self.workers[worker]
        self.run(holder.leases.claim(lambda: free))
        claimed = [job.job_id for job in holder.claimed]
        for key in range(3):
            new = [id_ for id_ in claimed if id_ in self.is_new]
            mine = [id_ for id_ in new if self.waiting.get(id_) == key]
            in_order = [it for it in self.waiting if it in self.is_new]
            first = [it for it in in_order if self.waiting[it] == key][: len(mine)]
            assert mine == first
        for job in holder.claimed:
            key = self.waiting.pop(job.job_id)
            self.running[job.job_id] = key, holder, job
            self.is_new.discard(job.job_id)
        holder.claimed.clear()
        if len(claimed) < free:
            self.none_could_run()

    def none_could_run(self) -> None:
        counts = Counter(key for key, _, _ in self.running.values())
        if len(self.running) < OF_ALL:
            for job_id, key in self.waiting.items():
                assert counts[key] == OF_KEY, (job_id, counts)

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
        key, holder, job = self.running.pop(job_id)
        end = End(what, what, ms=job.score if what == "release" else 0)
        if what in ("retry", "failed"):
            names = ("task", "error", "traceback", "reason", "st")
            end.details = dict.fromkeys(names, "no")
        assert self.run(holder.ends.finish(job, end)) == 1
        if what in ("retry", "release"):
            self.waiting[job_id] = key

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
        self.waiting[job_id] = key
        self.is_new.discard(job_id)

    @rule(worker=WORKERS)
    def kill(self, worker: int) -> None:
        """As if the leases of a worker had ended."""
        holder = self.workers[worker]
        lost = [id_ for id_, (_, it, _) in self.running.items() if it is holder]
        self.run(self.expire(lost))
        for job_id in lost:
            self.waiting[job_id] = self.running.pop(job_id)[0]
        holder.leases.held.clear()

    async def expire(self, ids: list[str]) -> None:
        redis, now = self.app.redis, await self.app.now()
        for job_id in ids:
            await redis.delete(f"arq:in-progress:{job_id}")
            for key in (QUEUE, *await redis.keys(f"{QUEUE}:places:*")):
                await redis.zadd(key, {job_id: now - 1}, xx=True)
        for name in await redis.zrange(f"{QUEUE}:looks", 0, -1):
            await redis.zadd(f"{QUEUE}:looks", {name: now})

    @rule()
    def renew(self) -> None:
        for holder in self.workers:
            holder.leases.renew_at = 0
            self.run(holder.leases.renew())

    # --- What holds always

    @invariant()
    def no_more_than_the_limits(self) -> None:
        counts = Counter(key for key, _, _ in self.running.values())
        assert len(self.running) <= OF_ALL and max(counts.values(), default=0) <= OF_KEY

    @invariant()
    def all_are_seen(self) -> None:
        stats = self.run(self.app.operations.queue_stats())
        assert stats.queued == len(self.waiting)


@pytest.mark.slow
def test_limits_hold_and_nothing_waits_in_vain(redis_url: str) -> None:
    Limits.url = redis_url
    run_state_machine_as_test(
        Limits,
        settings=settings(
            max_examples=60,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # what fails is not looked for for minutes
            suppress_health_check=[*HealthCheck],
        ),
    )
