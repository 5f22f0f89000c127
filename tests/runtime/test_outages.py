"""Redis is away, frozen, full, read-only, or another one: workers wait, and go on."""

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from arq_runtime.connection import parse_redis_url
from arq_runtime.line import Line
from arq_runtime.scripts import Script, script
from arq_runtime.worker import loop, outages
from kit import App, until
from noting import Notes, fail, job, once_slow
from processes import Processes
from proxy import Proxy
from redis.asyncio.connection import Connection
from support import OwnRedis, free_port, is_master, sentinel

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def no_tracebacks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An outage takes a line of the log."""
    caplog.set_level(logging.INFO, "arq.worker")
    yield
    found = [one for one in caplog.get_records("call") if one.name == "arq.worker"]
    errors = [one.getMessage() for one in found if one.exc_info]
    assert all("ValueError" in error for error in errors), errors


def at(port: int, server: OwnRedis) -> str:
    """The server's URL by way of another port."""
    return server.url.replace(str(server.port), str(port))


def lines(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    """Those of the worker's log with this text."""
    return [message for message in caplog.messages if text in message]


async def test_redis_is_killed_and_comes_back(
    own_app: App, own_redis: OwnRedis, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    async with own_app.worker(job, fail):
        # While the end of the first is tried to be recorded, the others end.
        waits = {"ends 1": 0.5, "ends 2": 0.7, "ends 3": 1.2, "runs on": 3.0}
        for name, wait in waits.items():
            await own_app.enqueue(job, name, wait, _job_id=name)
        await own_app.enqueue(fail, "fails meanwhile", 1, _job_id="fails")
        await notes.started("runs on")
        own_redis.kill()
        await until(lambda: lines(caplog, "Waiting for Redis"))
        await notes.ended("ends 3")
        await asyncio.sleep(0.6)  # it keeps failing
        [line] = lines(caplog, "Waiting for Redis")
        assert f"127.0.0.1:{own_redis.port}" in line
        await asyncio.to_thread(own_redis.start)
        for name in waits:
            assert (await own_app.result_of(name))["s"]
        assert await (await own_app.enqueue(job, "after")).result(25) == "after"
        assert (await own_app.result_of("fails"))["r"] == 2
    for name in waits:
        assert len(notes.starts(name)) == 1
    assert "dropped" not in caplog.text


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_an_outage_is_longer_than_the_leases(
    own_app: App,
    own_redis: OwnRedis,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """What ended meanwhile, or runs still, is not run again by those who wait."""
    monkeypatch.setattr(loop, "ANSWER_S", 0.5)
    tasks = job, once_slow
    async with AsyncExitStack() as workers:
        await workers.enter_async_context(own_app.worker(*tasks, lease=1))
        ends = [await own_app.enqueue(job, n, n / 2) for n in range(1, 5)]
        runs = await own_app.enqueue(job, "runs on", 7.0)
        fails = await own_app.enqueue(once_slow, "fails", 1.0, fails=True)
        for name in ("4", "runs on", "fails"):
            await notes.started(name)
        await workers.enter_async_context(own_app.worker(*tasks, lease=1))
        own_redis.kill() if how == "killed" else own_redis.freeze()
        # it cannot know how long it has been
        late = own_app.worker(*tasks, is_ready=False, lease=1)
        await workers.enter_async_context(late)
        await notes.ended("4")
        await asyncio.sleep(1)  # all leases have run out
        if how == "killed":
            await asyncio.to_thread(own_redis.start)
        else:
            own_redis.thaw()
        for ended in (*ends, runs):
            assert (await own_app.result_of(ended.job_id))["t"] == 1
        assert (await own_app.result_of(fails.job_id))["t"] == 2
    starts = Counter(event.name for event in notes.starts())
    assert starts == {"runs on": 1, **dict.fromkeys("1234", 1), "fails": 2}


async def test_an_outage_is_named_again_while_it_lasts(
    own_redis: OwnRedis,
    notes: Notes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At start-up: the worker waits, and takes jobs once it can."""
    monkeypatch.setattr(outages, "LOG_EVERY", 0.7)
    own_redis.stop()
    app = App(own_redis.url.replace("//", "//:sekret@"))
    async with app.worker(job, is_ready=False):
        await until(lambda: len(lines(caplog, "Connect call failed")) > 1)
        assert f"127.0.0.1:{own_redis.port}" in caplog.text
        assert "sekret" not in caplog.text
        await asyncio.to_thread(own_redis.start, "--requirepass", "sekret")
        assert await (await app.enqueue(job, "a")).result(25) == "a"
    await app.close()


async def test_silence_of_the_server_and_of_the_network(
    own_app: App,
    own_redis: OwnRedis,
    notes: Notes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "ANSWER_S", 1)
    with Proxy(own_redis.port) as proxy:
        behind = App(at(proxy.port, own_redis))
        async with (
            own_app.worker(job, max_jobs=1, ctx={"who": "near"}),
            behind.worker(job, max_jobs=1, ctx={"who": "far"}),
        ):
            jobs = [await own_app.enqueue(job, n, 0.5) for n in range(2)]
            await until(lambda: len(notes.starts()) == 2)
            proxy.hold()
            own_redis.freeze()
            for port in (own_redis.port, proxy.port):
                await until(partial(lines, caplog, f"127.0.0.1:{port}: "))
            own_redis.thaw()
            proxy.restore()
            for n, waiting in enumerate(jobs):
                assert await waiting.result(25) == n
                assert len(notes.starts(n)) == 1
            for n in range(2):  # each takes one
                await own_app.enqueue(job, f"later {n}", 600)
            await notes.started("later 0")
            await notes.started("later 1")
            for n in range(2):
                notes.let_go(f"later {n}")
                await notes.ended(f"later {n}")
            who = {event.who for n in range(2) for event in notes.ends(f"later {n}")}
            assert who == {"near", "far"}
        await behind.close()


async def test_connections_that_are_half_open(
    own_app: App,
    own_redis: OwnRedis,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "WAIT_S", 1)
    monkeypatch.setattr(loop, "ANSWER_S", 2)

    async def waits_anew() -> bool:
        return bool(await own_app.waiting() - before)

    with Proxy(own_redis.port) as proxy:
        behind = App(at(proxy.port, own_redis))
        async with behind.worker(job, poll_delay=600):
            await until(own_app.waiting)
            before = await own_app.waiting()
            proxy.half_open()
            await own_app.enqueue("job", "meanwhile")
            await notes.started("meanwhile", timeout=30)
            await until(waits_anew, 30)
            await own_app.enqueue("job", "after")
            await notes.started("after", timeout=30)  # long before poll_delay is over
        await behind.close()


async def test_dropped_connections(
    app: App, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    async with app.worker(job):
        calls = [{"name": n, "wait": 0.05, "_job_id": f"j{n}"} for n in range(200)]
        await app.client.enqueue_many(job, calls)
        for _ in range(10):
            for kind in ("normal", "pubsub"):
                await app.redis.execute_command(
                    "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"
                )
            await asyncio.sleep(0.1)
        for n in range(200):
            assert (await app.result_of(f"j{n}"))["s"]
    starts = Counter(event.name for event in notes.starts())
    assert set(starts.values()) == {1}


async def test_a_kept_connection_that_was_closed_is_no_outage(app: App) -> None:
    """By a proxy, say, or by a restart that nobody was there to see."""
    other = App(app.url)
    line = Line(other.redis)
    for _ in range(5):
        assert await line.run(script("aborts"), [], []) == []
        await app.redis.execute_command("CLIENT", "KILL", "SKIPME", "yes")
    await other.close()


async def test_no_call_gets_the_answer_of_one_that_was_cancelled(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the very moment in which it was its turn, and another is sent."""
    text = "return ARGV[1]"
    echo = Script(text, sha1(text.encode()).hexdigest())
    line = Line(app.redis)
    await line.run(echo, [], ["before"])
    read = Connection.read_response

    async def leave(self: Connection, *args: Any, **kwargs: Any) -> Any:
        answer = await read(self, *args, **kwargs)
        second.cancel()
        return answer

    async def first_and_third() -> list[bytes]:
        return [await line.run(echo, [], [name]) for name in ("first", "third")]

    monkeypatch.setattr(Connection, "read_response", leave)
    others = asyncio.create_task(first_and_third())
    second = asyncio.create_task(line.run(echo, [], ["second"]))
    assert await others == [b"first", b"third"]
    assert second.cancelled()


async def test_a_reconnected_worker_hears_of_new_jobs(
    own_app: App, own_redis: OwnRedis, notes: Notes
) -> None:
    async with own_app.worker(job, poll_delay=60):
        await until(own_app.waiting)
        own_redis.kill()
        await asyncio.to_thread(own_redis.start)
        await until(own_app.waiting)
        await own_app.enqueue(job, "a")
        await notes.started("a")


async def test_a_read_only_replica(
    own_app: App, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    """At start-up and while jobs run: what a failover makes of the old master."""
    client = own_app.redis
    await client.replicaof("127.0.0.1", str(free_port()))
    async with own_app.worker(job):
        await until(lambda: lines(caplog, "read only replica"))
        await client.replicaof("no", "one")
        running = await own_app.enqueue(job, "a", 1.0)
        await notes.started("a")
        await until(lambda: lines(caplog, "Redis is back"))
        await client.replicaof("127.0.0.1", str(free_port()))
        await until(lambda: len(lines(caplog, "read only replica")) == 2)
        await notes.ended("a")
        await client.replicaof("no", "one")
        assert await running.result(25) == "a"
    assert len(notes.starts("a")) == 1


async def test_another_server_gets_the_address_of_the_master(
    own_app: App, own_redis: OwnRedis, notes: Notes, tmp_path: Path
) -> None:
    """And the connections lead to the old one still, which is a replica by now."""
    (tmp_path / "other").mkdir()
    other = OwnRedis(tmp_path / "other")
    other.start()
    new_app = App(other.url)
    try:
        with Proxy(own_redis.port) as proxy:
            behind = App(at(proxy.port, own_redis))
            async with behind.worker(job):
                await (await own_app.enqueue("job", "before")).result(25)
                proxy.target = other.port
                await own_app.redis.replicaof("127.0.0.1", str(other.port))
                after = await new_app.enqueue("job", "after")
                assert await after.result(25) == "after"
            await behind.close()
    finally:
        await new_app.close()
        other.stop()


async def test_a_full_redis_is_drained(own_app: App, notes: Notes) -> None:
    client = own_app.redis
    calls = [{"name": n, "_job_id": f"j{n}"} for n in range(30)]
    await own_app.client.enqueue_many("job", calls)
    await own_app.enqueue("job", "large", pad="x" * 1000)
    await client.config_set("maxmemory-policy", "noeviction")
    await client.config_set("maxmemory", "1mb")  # less than an empty server takes
    with pytest.raises(redis.RedisError, match="maxmemory"):
        await client.set("any", "x")
    async with own_app.worker(job):
        await until(lambda: is_drained(own_app))
        assert not await client.exists(*(f"arq:job:j{n}" for n in range(30)))
        for n in range(30):
            assert len(notes.starts(n)) == 1
        assert notes.ends("large")
        await client.config_set("maxmemory", "0")
        assert await (await own_app.enqueue(job, "after")).result(25) == "after"


async def is_drained(app: App) -> bool:
    return await app.queued() == 0


async def test_a_sentinel_failover(
    own_app: App, own_redis: OwnRedis, notes: Notes, tmp_path: Path
) -> None:
    (tmp_path / "replica").mkdir()
    replica = OwnRedis(tmp_path / "replica")
    replica.start("--replicaof", "127.0.0.1", str(own_redis.port))
    second: Any = redis.Redis(port=replica.port, db=1)
    try:
        await until(lambda: second.info("replication")["master_link_status"] == "up")
        with sentinel(own_redis, tmp_path, replicas=1) as port:
            app = App(replica.url)
            url = f"sentinel://127.0.0.1:{port}/queue/1"
            app.redis_settings = parse_redis_url(url)  # of the worker
            async with app.worker(job):
                running = await own_app.enqueue("job", "running", 4.0)
                await notes.started("running")
                await until(lambda: own_app.redis.wait(1, 1000))
                own_redis.kill()
                await until(lambda: is_master(second), 30)
                after = await app.enqueue(job, "after")
                assert await after.result(25) == "after"
                assert (await app.result_of(running.job_id))["s"]
            await app.close()
    finally:
        second.close()
        replica.stop()
    assert len(notes.starts("running")) == 1


async def test_burst_and_check_do_not_wait(
    own_processes: Processes, own_redis: OwnRedis, full_port: int
) -> None:
    """Within 3 seconds, and what Python needs to start and end."""
    own_redis.freeze()
    started = time.monotonic()
    workers = [
        (
            port,
            await own_processes.start(
                option, ready=False, url=f"redis://127.0.0.1:{port}"
            ),
        )
        for port in (free_port(), own_redis.port, full_port)
        for option in ("--burst", "--check")
    ]
    for _, worker in workers[:2]:
        await worker.exit_code(120)  # refused: so long takes the start on this machine
    began = time.monotonic()
    until_s = began + 4 + (began - started)  # what delayed these delays the others
    for port, worker in workers:
        left = max(until_s - time.monotonic(), 0)
        assert await worker.exit_code(left) == 1
        found = [line for line in worker.text.splitlines() if "127.0.0.1" in line]
        assert len(found) == 1 and f"127.0.0.1:{port}: " in found[0], worker.text
        assert "Traceback" not in worker.text


@pytest.fixture
def full_port() -> Iterator[int]:
    """A black hole: its queue is full, so that connections are not even refused."""
    with socket.socket() as server, ExitStack() as clients:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


async def test_redis_restarts_under_load(
    own_app: App, own_redis: OwnRedis, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    async with own_app.worker(job), own_app.worker(job):
        calls = [{"name": n, "wait": 0.05, "_job_id": f"j{n}"} for n in range(400)]
        await own_app.client.enqueue_many(job, calls)
        await until(lambda: len(notes.ends()) > 100)
        own_redis.kill()
        await until(lambda: len(lines(caplog, "Waiting for Redis")) == 2)
        await asyncio.to_thread(own_redis.start)
        for n in range(400):
            assert (await own_app.result_of(f"j{n}"))["s"]
    starts = Counter(event.name for event in notes.starts())
    assert len(starts) == 400 and set(starts.values()) == {1}


async def test_an_end_whose_answer_is_lost_is_recorded_once(
    own_app: App, own_redis: OwnRedis, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    client = own_app.redis
    with Proxy(own_redis.port) as proxy:
        behind = App(at(proxy.port, own_redis))
        async with behind.worker(job, once_slow):
            await own_app.enqueue("job", "ends", 0.5, _job_id="ends")
            await own_app.enqueue(
                "once_slow", "fails", 0.5, fails=True, _job_id="fails"
            )
            await notes.started("ends")
            await notes.started("fails")
            proxy.latency = 0.3
            await own_app.result_of("ends")
            await until(lambda: client.exists("arq:errors:fails"))
            proxy.cut()  # the answers are on their way
            proxy.latency = 0
            proxy.restore()
            await own_app.result_of("fails")
            assert await client.llen("arq:errors:fails") == 1
        await behind.close()
    assert "by another worker" not in caplog.text
    assert not await client.keys("*:ends:*")
