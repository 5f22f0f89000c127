"""The network stands still for a while, and load goes on: all is well soon after.

Calls fail for want of an answer only while it lasts: two seconds later, none does.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from kit import App, until
from outcomes import NAMED, outcome
from processes import PATHS
from proxy import Proxy
from support import OwnRedis, free_port, start

pytestmark = pytest.mark.slow


class Ended(NamedTuple):
    """How a call has ended."""

    began: float
    seconds: float
    text: str

    @property
    def at(self) -> float:
        return self.began + self.seconds


async def load(
    call: Callable[[], Awaitable[str]], rate: float, found: list[Ended]
) -> float:
    """So many calls a second, until cancelled; by how much this machine was late."""
    lag = 0.0

    async def one() -> None:
        began = time.monotonic()
        text = await call()
        found.append(Ended(began, time.monotonic() - began, text))

    calls = set[asyncio.Task[None]]()
    began, count = time.monotonic(), 0
    try:
        while True:
            while count < (time.monotonic() - began) * rate:
                count += 1
                task = asyncio.create_task(one())
                calls.add(task)
                task.add_done_callback(calls.discard)
            before = time.monotonic()
            await asyncio.sleep(0.005)
            lag = max(lag, time.monotonic() - before - 0.005)
    except asyncio.CancelledError:
        await asyncio.gather(*calls)
    return lag


async def stalled(
    call: Callable[[], Awaitable[str]], proxy: Proxy, seconds: float, rate: float
) -> None:
    """Nothing gets through for so long, under this load; checks what that costs."""
    found: list[Ended] = []
    calls = asyncio.create_task(load(call, rate, found))
    await asyncio.sleep(1)
    assert {one.text for one in found} == {"done"}
    connections = proxy.connections
    proxy.hold()
    await asyncio.sleep(seconds)
    proxy.restore()
    back = time.monotonic()
    await asyncio.sleep(4)
    calls.cancel()
    lag = 3 * await calls  # the proxy, and the server, are late as well
    wrong = [one for one in found if one.text != "done"]
    assert all(one.text.startswith(NAMED) for one in wrong), wrong[:3]
    assert max(one.seconds for one in found) < 8 + lag  # not until the stall is over
    late = [one for one in wrong if one.at > back + 2 + lag]
    assert not late, (len(late), late[:3])
    assert bool(wrong) is (seconds > 4.8)
    after = [one for one in found if one.began > back + 2 + lag]
    assert found[-1].text == "done"
    assert max((one.seconds for one in after), default=0) < 3 + lag
    assert proxy.connections < connections + 10


@pytest.mark.parametrize(
    ("seconds", "latency", "rate"),
    [(2, 0.0005, 300), (10, 0.05, 100)],
)
async def test_bare(
    own_redis: OwnRedis, seconds: float, latency: float, rate: float
) -> None:
    with Proxy(own_redis.port) as proxy:
        app = App(f"redis://127.0.0.1:{proxy.port}/1")
        proxy.latency = latency

        async def call() -> str:
            return (await outcome(app.enqueue("count"))).text

        await stalled(call, proxy, seconds, rate)
        await app.close()


async def test_behind_uvicorn(own_redis: OwnRedis, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "uvicorn.log"
    with (
        Proxy(own_redis.port) as proxy,
        log.open("wb") as file,
    ):
        proxy.latency = 0.01
        server = start(
            [sys.executable, "-m", "uvicorn", "served:web", "--port", str(port)],
            cwd=PATHS[1],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
                "ARQ_REDIS_URL": f"redis://127.0.0.1:{proxy.port}/1",
            },
            stdout=file,
            stderr=file,
        )
        try:
            await until(lambda: "running on" in log.read_text(), 120)
            await ask_all_the_time(port, proxy)
        finally:
            server.terminate()
            await asyncio.to_thread(server.wait, 60)
    assert "CancelledError" not in log.read_text()


async def ask_all_the_time(port: int, proxy: Proxy) -> None:
    request = b"POST /count HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    async def call() -> str:
        # not by httpx, whose own pool of connections takes long with so many
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        is_done = head.startswith(b"HTTP/1.1 200 ")
        return "done" if is_done else json.loads(body)["detail"]

    await stalled(call, proxy, 12, 50)
