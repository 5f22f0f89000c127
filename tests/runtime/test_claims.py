"""A job that its worker claims while the end of its last try is on the way to Redis."""

import asyncio
from typing import Any

import pytest
from arq import Retry, func
from arq_runtime.scripts import run_script
from arq_runtime.worker import ends
from kit import QUEUE, App, until

Ctx = dict[str, Any]


async def again(ctx: Ctx) -> int:
    if ctx["job_try"] < 3:
        raise Retry
    return int(ctx["job_try"])


async def test_the_next_try_runs_though_the_last_end_is_answered_late(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(*args: Any) -> Any:
        answer = await run_script(*args)
        await asyncio.sleep(0.2)
        return answer

    monkeypatch.setattr(ends, "run_script", late)
    async with app.worker(again, poll_delay=0.02) as worker:
        job = await app.enqueue(again)
        assert await job.result(25) == 3
        await until(lambda: not worker.leases.held)
    assert worker.jobs_complete == 1 and worker.jobs_retried == 2


async def test_a_job_whose_lease_is_forgotten_as_it_ends_runs_once(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def task(ctx: Ctx) -> int:
        return int(ctx["job_try"])

    async def forgotten(*args: Any) -> Any:
        """As after a failover, before the end arrives."""
        monkeypatch.undo()
        await app.redis.delete("arq:in-progress:one")
        await app.redis.zadd(QUEUE, {"one": 1})
        await until(lambda: worker.leases.held["one"].again)
        return await run_script(*args)

    monkeypatch.setattr(ends, "run_script", forgotten)
    async with app.worker(func(task, name="task"), poll_delay=0.02) as worker:
        job = await app.enqueue("task", _job_id="one")
        assert await job.result(25) == 1
        await until(lambda: not worker.leases.held)
    assert worker.jobs_complete == 1
    assert await app.queued() == 0
