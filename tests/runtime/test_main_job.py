"""The main job: from a route to a worker and back; and the worker's own commands."""

import re
from typing import Annotated, Any

import pytest
from arq import ArqRedis
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from kit import App, until
from processes import Processes

Ctx = dict[str, Any]


async def welcome(ctx: Ctx, user_id: int) -> dict[str, Any]:
    return {"status": "sent", "user_id": user_id}


def application(app: App) -> FastAPI:
    web = FastAPI()

    async def get_pool() -> ArqRedis:
        return (await app.server.pool()).redis

    @web.post("/welcome/{user_id}")
    async def enqueue(user_id: int) -> dict[str, str]:
        job = await app.enqueue("welcome", user_id=user_id)
        return {"job_id": job.job_id}

    @web.get("/jobs/{job_id}")
    async def job(job_id: str) -> dict[str, Any] | None:
        return await app.lookup.get_job_status(job_id)

    @web.get("/length")
    async def length(pool: Annotated[ArqRedis, Depends(get_pool)]) -> int:
        return int(await pool.zcard(app.queue))

    return web


async def test_a_job_goes_from_a_route_to_the_worker_and_back(app: App) -> None:
    transport = ASGITransport(application(app))
    async with (
        app.worker(welcome),
        AsyncClient(transport=transport, base_url="http://shop") as client,
    ):
        job_id = (await client.post("/welcome/123")).json()["job_id"]
        status: dict[str, Any] = {}

        async def is_complete() -> bool:
            status.update((await client.get(f"/jobs/{job_id}")).json())
            return bool(status["status"] == "complete")

        await until(is_complete)
        assert status["success"] is True
        assert status["result"] == {"status": "sent", "user_id": 123}
        assert (await client.get("/length")).json() == 0
        assert (await client.get("/jobs/unknown")).json() is None


@pytest.mark.slow
async def test_check_tells_a_live_worker_from_none(
    app: App, processes: Processes
) -> None:
    async def check() -> int:
        return await (await processes.start("--check", ready=False)).exit_code()

    assert await check() == 1
    async with app.worker(welcome):
        key = f"{app.queue}:health-check"
        await until(lambda: app.redis.exists(key))
        assert await check() == 0
    assert await check() == 1


@pytest.mark.slow
async def test_burst_ends_when_the_queue_is_empty(
    app: App, processes: Processes
) -> None:
    job = await app.enqueue("plain", 1)
    worker = await processes.start("--burst", ready=False)
    assert await worker.exit_code() == 0
    assert re.search(rf"{job.job_id}:plain ● 1\n", worker.text)
    assert worker.text.count("Starting worker for") == 1
