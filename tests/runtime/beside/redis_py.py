"""Another major version of redis-py."""

import asyncio
import os
from datetime import date
from typing import Any

import redis
from kit import App

Ctx = dict[str, Any]


async def add(ctx: Ctx, a: int, b: int) -> date:
    return date(2026, 1, a + b)


async def main() -> None:
    app = App(os.environ["ARQ_REDIS_URL"])
    async with app.worker(add):
        calls = [{"a": 1, "b": 2}] * 201
        jobs = await app.client.enqueue_many("add", calls)
        for job in jobs:
            assert job is not None
            assert await job.result(20) == date(2026, 1, 3)
        later = await app.enqueue("add", 1, 1, _defer_by=60)
        assert await app.lookup.abort_job(later.job_id)
        assert (await app.operations.queue_stats()).queued == 0
        assert len(await app.operations.list_jobs("complete", limit=300)) == 202
    await app.queues.close()


print("redis-py", redis.__version__)
asyncio.run(main())
