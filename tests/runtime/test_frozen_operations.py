"""Looking and acting end in time, too, while Redis does not answer."""

import asyncio
from collections.abc import Awaitable

import pytest
from arq_runtime.operate.page import jobs_page
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from kit import QUEUE, App
from outcomes import NAMED, outcome, shorten
from pydantic import SecretStr
from support import OwnRedis


def operations(app: App) -> list[Awaitable[object]]:
    them = app.operations
    return [
        them.list_queues(),
        them.queue_stats(),
        *(
            them.list_jobs(state)
            for state in ("queued", "deferred", "in_progress", "failed", "complete")
        ),
        them.get_job("x"),
        *(them.retry_job("x"), them.retry_failed(), them.run_now("x")),
        *(them.discard_job("x"), them.discard_failed()),
        *(them.pause_queue(), them.resume_queue()),
    ]


async def test_operations_end_in_time(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, deadline=1, attempt=0.4)
    app = App(own_redis.url)
    for operation in operations(app):
        await operation
    own_redis.freeze()
    calls = [call for _ in range(5) for call in operations(app)]
    found, pause = await asyncio.gather(
        asyncio.gather(*map(outcome, calls)), outcome(asyncio.sleep(1))
    )
    assert {one.text.startswith(NAMED) for one in found} == {True}
    assert max(one.seconds for one in found) - pause.seconds < 1.5
    await app.server.close()


async def test_the_page_answers_in_time(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, deadline=1, attempt=0.4)
    app = App(own_redis.url)
    web = FastAPI()
    page = jobs_page(
        app.operations, app.lookup, password=SecretStr("x"), show_arguments=True
    )
    web.include_router(page)
    names = ["queues", f"jobs?queue={QUEUE}&state=complete", f"job?queue={QUEUE}&id=x"]
    paths = 7 * [f"/arq/api/{name}" for name in names]
    transport = ASGITransport(web)
    async with AsyncClient(
        transport=transport,
        base_url="http://x",
        auth=("any", "x"),
        headers={"X-Arq-Page": "1"},
    ) as client:
        assert (await client.get(paths[0])).status_code == 200
        own_redis.freeze()
        loop = asyncio.get_running_loop()
        began = loop.time()
        answers = await asyncio.gather(*(client.get(path) for path in paths))
        assert loop.time() - began < 8  # one after the other, they would take 21 s
    assert {answer.status_code for answer in answers} == {503}
    await app.server.close()
