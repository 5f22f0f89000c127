import asyncio
from typing import Any

import pytest
from kit import App, until

Ctx = dict[str, Any]


async def double(ctx: Ctx, n: int) -> int:
    return 2 * n


async def fail(ctx: Ctx, times: int = 99) -> int:
    if ctx["job_try"] <= times:
        raise ValueError("no")
    return int(ctx["job_try"])


def blocking(ctx: Ctx, n: int) -> int:
    return 3 * n


async def test_a_job_runs(app: App) -> None:
    async with app.worker(double, fail, blocking):
        job = await app.enqueue(double, 21)
        assert await job.result(5) == 42
        assert await (await app.enqueue("blocking", n=3)).result(5) == 9
        assert await (await app.enqueue(fail, times=1)).result(5) == 2
        failing = await app.enqueue(fail)
        with pytest.raises(Exception, match="ValueError: no"):
            await failing.result(5)
        assert (await app.failed(failing.job_id))["tries"] == "3"
