"""Calls go on all the time while the network or the server fails, and all of them end.

Each ends in time: done, or with an error that says where to look. What was done is in
Redis.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from arq_runtime import server
from kit import App, until
from outcomes import NAMED, Outcome, OwnTime, outcome, shorten
from proxy import Proxy
from redis.exceptions import ConnectionError, RedisError
from support import OwnRedis, sentinel

pytestmark = pytest.mark.slow

#: Instead of 4.8 s and 2 s.
DEADLINE_S, ATTEMPT_S = 1.5, 0.5

#: redis-py says of some commands that they cannot be awaited.
Client = Any


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, deadline=DEADLINE_S, attempt=ATTEMPT_S)


class Calls:
    """Each kind of call, 25 times a second."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.ended: list[Outcome] = []
        self.accepted: list[str] = []
        self.longest = 0.0  # by the loop's own time
        self._is_over = False

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """They are made for the length of the block; all have ended after it."""
        self._time = OwnTime()
        running = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._is_over = True
            await asyncio.wait_for(running, 60)
            self._time.task.cancel()

    async def _run(self) -> None:
        tasks: list[asyncio.Task[Outcome]] = []
        n = 0
        while not self._is_over:
            tasks += [
                asyncio.create_task(self._call(name, call))
                for name, call in self._calls(n)
            ]
            n += 1
            await asyncio.sleep(0.04)
        *_, self.last = await asyncio.gather(*tasks)

    def _calls(self, n: int) -> Iterator[tuple[str, Awaitable[Any]]]:
        client, lookup = self.app.client, self.app.lookup
        yield f"one-{n}", client.enqueue("count", _job_id=f"one-{n}")
        yield f"many-{n}", client.enqueue_many("count", [{"_job_id": f"many-{n}"}])
        yield "", lookup.get_job_status("x")
        yield "", lookup.abort_job("x")
        yield "", lookup.forget_job("x")

    async def _call(self, name: str, call: Awaitable[Any]) -> Outcome:
        began = self._time.now
        ended = await outcome(call)
        self.longest = max(self.longest, self._time.now - began)
        self.ended.append(ended)
        if name and ended.is_done:
            self.accepted.append(name)
        return ended

    async def more(self, client: Client, number: int = 5) -> None:
        """Wait until so many more jobs have been accepted, as this client sees it."""
        before: int | None = None

        async def is_more() -> bool:
            nonlocal before
            try:
                now = int(await client.zcard(self.app.queue))
            except RedisError:
                return False
            before = now if before is None else before
            return now >= before + number

        await until(is_more, 20)

    async def check(self, deadline: float, *, all_done: bool | None = None) -> None:
        """All have ended in time; the last is done; what was accepted is there."""
        assert self.longest < deadline + 0.7
        errors = {one.text for one in self.ended if not one.is_done}
        assert all_done is None or bool(errors) is not all_done, errors
        assert all(text.startswith(NAMED) for text in errors), errors
        assert not any("sekret" in text for text in errors), errors
        assert self.last.is_done
        pool = (await self.app.server.pool()).redis
        queued = await pool.zrange(self.app.queue, 0, -1)
        assert {*self.accepted} <= {job_id.decode() for job_id in queued}


@pytest.mark.parametrize(
    ("fault", "is_short"),
    [
        *(("half_open", True), ("hold", True), ("cut", True)),
        *(("hold", False), ("cut", False)),
    ],
)
async def test_calls_while_the_network_fails(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch, fault: str, is_short: bool
) -> None:
    """Shortly, or longer than a call may take. Half-open connections stay so."""
    # a short one is that on a busy machine, too
    deadline = 20.0 if is_short else DEADLINE_S
    shorten(monkeypatch, deadline=deadline, attempt=ATTEMPT_S)
    locked: Client = redis.asyncio.Redis(port=own_redis.port, db=1)
    await locked.config_set("requirepass", "sekret")
    await locked.execute_command("AUTH", "sekret")
    with Proxy(own_redis.port) as proxy:
        app = App(f"redis://:sekret@127.0.0.1:{proxy.port}/1")
        calls = Calls(app)
        async with calls.going_on():
            await calls.more(locked)
            getattr(proxy, fault)()
            await asyncio.sleep(0.7 if is_short else DEADLINE_S + 0.7)
            if fault != "half_open":
                proxy.restore()
            await calls.more(locked)
        await calls.check(deadline, all_done=is_short)
        await app.close()
    await locked.aclose()


async def test_a_connection_that_is_lost_just_before_a_command(app: App) -> None:
    """Python 3.12 and 3.13 have an AttributeError or a TypeError for it."""
    pool: Client = (await app.server.pool()).redis
    async with pool.client() as one:
        await one.ping()
        one.connection._writer.transport.abort()
        await asyncio.sleep(0.05)
        with suppress(ConnectionError):  # else it has connected anew
            await one.ping()
    for call in (partial(app.enqueue, "count"), partial(app.lookup.forget_job, "x")):
        await call()
        for connection in pool.connection_pool._available_connections:
            connection._writer.transport.abort()
        await asyncio.sleep(0.05)
        await call()


async def test_calls_while_others_have_all_connections(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a pool of the user's own whose connections all block."""
    shorten(monkeypatch, deadline=0.5, attempt=0.2)
    app = App(f"{redis_url}?max_connections=1")
    pool: Client = (await app.server.pool()).redis
    holder = asyncio.create_task(pool.blpop("nothing", timeout=0))
    await until(lambda: pool.connection_pool._in_use_connections)
    calls = (
        app.client.enqueue("count"),
        app.client.enqueue_many("count", [{}]),
        app.lookup.get_job_status("x"),
        app.lookup.abort_job("x"),
        app.lookup.forget_job("x"),
    )
    pause, *found = await asyncio.gather(
        outcome(asyncio.sleep(0.5)), *map(outcome, calls)
    )
    for one in found:
        assert one.seconds - pause.seconds < 2
        assert one.text == f"{NAMED}Too many connections"
    holder.cancel()
    await asyncio.wait([holder])
    await app.enqueue("count")
    await app.close()


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_calls_during_a_sentinel_failover(
    own_redis: OwnRedis, tmp_path: Path, how: str
) -> None:
    """Redis answers its clients and its replicas in one turn: no job is lost here."""
    (tmp_path / "replica").mkdir()
    replica = OwnRedis(tmp_path / "replica")
    replica.start("--replicaof", "127.0.0.1", str(own_redis.port))
    second: Client = redis.asyncio.Redis(port=replica.port, db=1)

    async def says(role: str, status: str = "") -> bool:
        try:
            about = await second.info("replication")
        except RedisError:  # Sentinel cuts the connections of the one that it promotes
            return False
        found = about["role"], about.get("master_link_status", "")
        return found == (role, status)

    try:
        with sentinel(own_redis, tmp_path, replicas=1) as port:
            await until(lambda: says("slave", "up"), 20)
            app = App(f"sentinel://127.0.0.1:{port}/queue/1")
            app.redis = second
            calls = Calls(app)
            async with calls.going_on():
                await calls.more(second)
                getattr(own_redis, how)()
                await until(lambda: says("master"), 30)
                await calls.more(second)
            await calls.check(server.DEADLINE_S)
            await app.close()
    finally:
        replica.stop()


async def test_the_steps_of_an_abort_have_one_deadline(
    own_redis: OwnRedis, quick: None
) -> None:
    """Redis reads only after some time, and does not write at all."""
    app = App(own_redis.url)
    await app.enqueue("count", _job_id="x")
    pool = (await app.server.pool()).redis
    await pool.client_pause(60_000, all=False)
    own_redis.freeze()
    asyncio.get_running_loop().call_later(DEADLINE_S * 0.7, own_redis.thaw)
    own_time = OwnTime()
    ended = await outcome(app.lookup.abort_job("x"))
    assert ended.text.startswith(NAMED)
    assert ended.seconds > DEADLINE_S - 0.3 and own_time.now < DEADLINE_S + 0.7
    own_time.task.cancel()
    await app.close()
