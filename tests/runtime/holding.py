"""Workers that run nothing, and models beside the scripts of a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, ClassVar, TypeVar

from arq_runtime.worker.ends import Ends
from arq_runtime.worker.job import ClaimedJob, End
from arq_runtime.worker.leases import Leases
from arq_runtime.worker.outages import Outages
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from kit import QUEUE, App

T = TypeVar("T")


class Holder:
    """A worker that claims and ends jobs, and runs none."""

    def __init__(self, app: App, name: str) -> None:
        self.claimed: list[ClaimedJob] = []
        self.leases = Leases(
            name,
            QUEUE,
            lease_s=60,
            keep_ms=600_000,
            apart_from=100,
            on_claimed=self.claimed.append,
            on_lost=lambda job: None,
        )
        self.ends = Ends(
            name,
            QUEUE,
            keep_ms=600_000,
            keep_failed_s=600,
            let_go=self.leases.let_go,
        )
        outages = Outages(None, is_patient=False, on_long=lambda: None, long_s=60)
        self.leases.open(app.redis, outages, is_burst=False)
        self.ends.open(app.redis, outages)


def end_of(job: ClaimedJob, action: str) -> End:
    """As a worker records it, whichever way the job has ended."""
    end = End(action, action, ms=job.score if action == "release" else 0)
    if action in ("retry", "failed"):
        names = ("task", "error", "traceback", "reason", "st")
        end.details = dict.fromkeys(names, "no")
    return end


class Model(RuleBasedStateMachine):
    """A queue with two workers, and what the model knows of it."""

    url: ClassVar[str]
    tasks: ClassVar[tuple[Any, ...]]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.run(self._open())
        self.running: dict[str, tuple[Holder, ClaimedJob]] = {}

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    async def _open(self) -> None:
        self.app = App(self.url)
        await self.app.redis.flushdb()
        self.app.settings(*self.tasks)
        self.workers = [Holder(self.app, name) for name in ("one", "two")]

    def teardown(self) -> None:
        self.run(self.app.close())
        self.runner.close()

    def claim_by(self, worker: int, free: int) -> list[str]:
        """What a worker with so many free slots gets; it runs then."""
        holder = self.workers[worker]
        self.run(holder.leases.claim(lambda: free))
        claimed = [job.job_id for job in holder.claimed]
        self.running |= {job.job_id: (holder, job) for job in holder.claimed}
        holder.claimed.clear()
        return claimed

    def lose(self, worker: int) -> list[str]:
        """As if the leases of a worker had ended, as it was killed; of which jobs."""
        holder = self.workers[worker]
        lost = [id_ for id_, (one, _) in self.running.items() if one is holder]
        self.run(self._free(lost))
        for job_id in lost:
            del self.running[job_id]
        holder.leases.held.clear()
        return lost

    async def _free(self, ids: Iterable[str]) -> None:
        redis, now = self.app.redis, await self.app.now()
        for job_id in ids:
            await redis.delete(f"arq:in-progress:{job_id}")
            for key in (QUEUE, *await redis.keys(f"{QUEUE}:places:*")):
                await redis.zadd(key, {job_id: now - 1}, xx=True)
        for name in await redis.zrange(f"{QUEUE}:looks", 0, -1):
            await redis.zadd(f"{QUEUE}:looks", {name: now})


def check(model: type[Model], url: str, examples: int) -> None:
    """Have whatever happen in whatever order, so many times."""
    model.url = url
    run_state_machine_as_test(
        model,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],  # what fails is not looked for for minutes
            suppress_health_check=[*HealthCheck],
        ),
    )
