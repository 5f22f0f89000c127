"""The client's connections, in whatever event loop it is used."""

import asyncio
import gc
import sys
import warnings
from threading import Barrier
from typing import Any

import pytest
from arq import ArqRedis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from kit import App
from leaks import sockets


@pytest.mark.slow
def test_pools_of_closed_loops_are_dropped(redis_url: str) -> None:
    """Also where nobody closes them: a loop that ends closes its pool."""
    app = App(redis_url)
    before = sockets()
    for _ in range(300):
        asyncio.run(app.enqueue("count"))
    web = FastAPI()

    @web.get("/")
    async def route() -> str:
        return (await app.enqueue("count")).job_id

    for _ in range(20):
        assert TestClient(web).get("/").status_code == 200
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        loop = asyncio.new_event_loop()  # closed without a word
        loop.run_until_complete(app.enqueue("count"))
        loop.close()
        asyncio.run(app.enqueue("count"))
        assert len(app.server._pools) == 1
        assert sockets() <= before


def test_no_warning_where_the_loop_is_ended_by_asyncio(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App(redis_url)
    gc.collect()  # what other tests have left
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: unraisable.append(found))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            asyncio.run(app.enqueue("count"), debug=True)
        del app
        gc.collect()
    assert unraisable == []


async def test_a_pool_of_the_users_own(app: App) -> None:
    mine = ArqRedis.from_url("redis://localhost:1")
    await app.server.set_pool(mine)
    assert (await app.server.pool()).redis is mine
    await app.server.close()
    assert (await app.server.pool()).redis is not mine


async def test_calls_of_two_threads_use_the_loop_of_each(app: App) -> None:
    """As with a route in the loop, and a plain function that runs one of its own."""
    together = Barrier(2, timeout=60)

    async def call() -> int:
        await app.enqueue("count")
        together.wait()
        pools = len(app.server._pools)
        together.wait()  # the loop that ends takes its pool along
        return pools

    there = asyncio.to_thread(lambda: asyncio.run(call()))
    assert await asyncio.gather(there, call()) == [2, 2]
    assert await app.queued() == 2
