"""Batches, whatever happens in whatever order: a model beside the scripts of a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from arq_runtime.operate.info import Which
from arq_runtime.worker.job import ClaimedJob, Context, End
from holding import Holder
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from kit import App

T = TypeVar("T")
#: Of those that there are; ids are random, and what is drawn must not depend on them.
WHICH = st.integers(0, 11)


async def member(ctx: Context) -> None: ...


async def then(ctx: Context, job_ids: list[str]) -> None: ...


class Batches(RuleBasedStateMachine):
    """Batches of up to four jobs, and two workers."""

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
        self.app.settings(member, then)
        self.workers = [Holder(self.app, name) for name in ("one", "two")]
        self.held: dict[str, set[str]] = {}  # what a job waits for, by its id
        self.live: set[str] = set()  # those that wait for nothing, or run
        self.running: dict[str, tuple[Holder, ClaimedJob]] = {}
        self.failed: set[str] = set()
        self.expired: set[str] = set()

    def teardown(self) -> None:
        self.run(self.app.close())
        self.runner.close()

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
        holder, waiting = self.workers[worker], self.waiting
        self.run(holder.leases.claim(lambda: free))
        claimed = {job.job_id: (holder, job) for job in holder.claimed}
        assert claimed.keys() <= {*waiting}
        assert len(claimed) == min(free, len(waiting))
        self.running |= claimed
        holder.claimed.clear()

    @rule(
        worker=st.integers(0, 1),
        actions=st.lists(st.sampled_from(["complete", "failed", "retry", "release"])),
        times=st.integers(1, 2),
    )
    def end(self, worker: int, actions: list[str], times: int) -> None:
        """Several in one step; again, where the answer to it was lost."""
        holder, ends = self.workers[worker], []
        mine = [id_ for id_, (one, _) in self.running.items() if one is holder]
        for job_id, action in zip(mine, actions, strict=False):
            job = self.running.pop(job_id)[1]
            end = End(action, action, ms=job.score if action == "release" else 0)
            if action in ("retry", "failed"):
                names = ("task", "error", "traceback", "reason", "st")
                end.details = dict.fromkeys(names, "no")
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
        """As if the leases of a worker had ended."""
        holder = self.workers[worker]
        lost = [id_ for id_, (it, _) in self.running.items() if it is holder]
        self.run(self.free(lost))
        for job_id in lost:
            del self.running[job_id]
        holder.leases.held.clear()

    async def free(self, ids: list[str]) -> None:
        now = await self.app.now() - 1
        for job_id in ids:
            await self.app.redis.delete(f"arq:in-progress:{job_id}")
            await self.app.redis.zadd(self.app.queue, {job_id: now})

    # --- What holds always

    @invariant()
    def each_waits_for_its_batch_alone(self) -> None:
        stats = self.run(self.app.operations.queue_stats())
        assert (stats.queued, stats.deferred) == (len(self.waiting), len(self.held))


@pytest.mark.slow
def test_a_batch_is_followed_once(redis_url: str) -> None:
    Batches.url = redis_url
    run_state_machine_as_test(
        Batches,
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
