"""A worker without a settings class, and fastapi-arq's own."""

import asyncio
import os
from typing import Any

from arq.connections import RedisSettings, create_pool
from arq_runtime.worker.install import install
from arq_runtime.worker.worker import Worker
from fastapi import FastAPI
from fastapi.testclient import TestClient

install()  # as core.arq_worker does, before fastapi-arq takes arq's worker

from fastapi_arq import FastArq  # noqa: E402

Ctx = dict[str, Any]
settings = RedisSettings.from_dsn(os.environ["ARQ_REDIS_URL"])
web = FastAPI()
queue = FastArq(web, settings)


async def double(ctx: Ctx, n: int) -> int:
    return 2 * n


@queue.task()
async def triple(ctx: Ctx, n: int) -> int:
    return 3 * n


@web.get("/triple")
async def route(n: int) -> int:
    job = await queue._arq_redis.enqueue(triple, n)
    result: int = await job.result(timeout=10, poll_delay=0.02)
    return result


async def plain() -> None:
    pool = await create_pool(settings, default_queue_name="plain")
    job = await pool.enqueue_job("double", 21)
    assert job is not None
    worker = Worker(
        functions=[double],
        redis_settings=settings,
        queue_name="plain",
        burst=True,
        handle_signals=False,
    )
    await worker.main()
    await worker.close()
    assert await job.result(timeout=5) == 42
    await pool.aclose()


asyncio.run(plain())
with TestClient(web) as client:
    assert client.get("/triple?n=5").json() == 15
