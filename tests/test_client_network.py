"""Calls go on all the time while the network or the server fails, and all of them end.

Each ends within its 5 seconds: done, or with an error that says where to look. What
was done is in Redis.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis
from proxy import Proxy
from support import QUEUE, OwnRedis, Shop, is_master, sentinel, wait_for

pytestmark = pytest.mark.slow

# Each kind of call, 10 times a second, until the test says so.
STREAM = """
    import logging
    import time
    from pathlib import Path

    from redis.exceptions import ConnectionError

    logging.disable()
    ended = []
    accepted = []

    async def outcome(name, call):
        start = time.monotonic()
        try:
            await call
            text = "done"
            if name:
                accepted.append(name)
        except ConnectionError as exc:
            text = str(exc)
        ended.append((time.monotonic() - start, text))

    def calls(n):
        many = [{"payload": {}, "_job_id": f"many-{n}"}]
        return {
            f"one-{n}": enqueue("process_webhook", payload={}, _job_id=f"one-{n}"),
            f"many-{n}": enqueue_many("process_webhook", many),
            "": get_job_status("x"),
            None: abort_job("x"),
            False: forget_job("x"),
        }

    tasks = []
    n = 0
    while not Path(STOP).exists():
        tasks += [
            asyncio.create_task(outcome(name, call)) for name, call in calls(n).items()
        ]
        n += 1
        await asyncio.sleep(0.1)
    await asyncio.gather(*tasks)
    queued = await (await get_pool()).zrange("arq:queue:shop", 0, -1)
    missing = set(accepted) - {job_id.decode() for job_id in queued}
    result = {
        "longest": max(took for took, _ in ended),
        "texts": sorted({text for _, text in ended}),
        "done": sum(text == "done" for _, text in ended),
        "calls": len(ended),
        "missing": sorted(missing),
        "last": ended[-1][1],
    }
"""
NAMED = "Redis fails, see ARQ_REDIS_URL: "


@pytest.fixture
def during(
    shop_with_queue: Shop, tmp_path: Path
) -> Iterator[Callable[[str, Callable[[], object]], dict[str, Any]]]:
    """Makes calls while the fault happens; what came of them."""
    stop = tmp_path / "stop"
    code = STREAM.replace("STOP", repr(str(stop)))
    with ThreadPoolExecutor(1) as threads:

        def calls(url: str, fault: Callable[[], object]) -> dict[str, Any]:
            running = threads.submit(shop_with_queue.python, code, url)
            try:
                fault()
            finally:
                stop.touch()
            found: dict[str, Any] = running.result(60)
            return found

        yield calls
        stop.touch()


def more(client: Any, number: int = 5, timeout: float = 20) -> None:
    """Wait until so many more jobs have been accepted."""

    def size() -> int:
        try:
            return int(client.zcard(QUEUE))
        except redis.RedisError:
            return -1

    wait_for(lambda: size() >= 0, timeout)
    before = size()
    wait_for(lambda: size() >= before + number, timeout)


def check(found: dict[str, Any], *, all_done: bool) -> None:
    assert found["longest"] < 5.5, found  # 4.8 and what a busy machine adds
    errors = [text for text in found["texts"] if text != "done"]
    assert bool(errors) is not all_done, found
    assert all(text.startswith(NAMED) for text in errors), found
    assert not any("sekret" in text for text in errors), found
    assert found["last"] == "done" and found["missing"] == [], found


@pytest.fixture
def locked_redis(own_redis: OwnRedis) -> Iterator["redis.Redis[bytes]"]:
    """A client of a server that has a password."""
    with redis.Redis(port=own_redis.port, db=1) as client:
        client.config_set("requirepass", "sekret")
        client.execute_command("AUTH", "sekret")
        yield client


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [("half_open", 1.5), ("hold", 1.5), ("hold", 7), ("cut", 1.5), ("cut", 7)],
)
def test_calls_while_the_network_fails(
    during: Callable[..., dict[str, Any]],
    own_redis: OwnRedis,
    locked_redis: "redis.Redis[bytes]",
    fault: str,
    seconds: float,
) -> None:
    """Shortly, or longer than a call may take. Half-open connections stay so."""
    with Proxy(own_redis.port) as proxy:
        url = f"redis://:sekret@127.0.0.1:{proxy.port}/1"

        def happens() -> None:
            more(locked_redis)
            getattr(proxy, fault)()
            time.sleep(seconds)
            if fault != "half_open":
                proxy.restore()
            more(locked_redis)

        check(during(url, happens), all_done=seconds < 5)


def test_a_connection_that_is_lost_just_before_a_command(
    shop_with_queue: Shop, redis_url: str
) -> None:
    """Python 3.12 and 3.13 have an AttributeError or a TypeError for it."""
    code = """
    async with (await get_pool()).client() as one:
        await one.ping()
        one.connection._writer.transport.abort()
        await asyncio.sleep(0.05)
        result = await one.ping()
    """
    assert shop_with_queue.python(code, redis_url) is True


def test_calls_while_others_have_all_connections(
    shop_with_queue: Shop, own_redis: OwnRedis
) -> None:
    """As with a pool of the user's own whose connections all block."""
    code = """
    import time

    async def ends_after(seconds):
        await asyncio.sleep(seconds)
        return time.monotonic()

    pool = await get_pool()
    holder = asyncio.create_task(pool.blpop("nothing", timeout=0))
    while not pool.connection_pool._in_use_connections:
        await asyncio.sleep(0)
    result = []
    for call in (
        enqueue("process_webhook", payload={}),
        enqueue_many("process_webhook", [{"payload": {}}]),
        get_job_status("x"),
        abort_job("x"),
        forget_job("x"),
    ):
        pause = asyncio.create_task(ends_after(4.8))  # as late as the machine is busy
        try:
            await call
        except QueueUnavailableError as exc:
            ended = time.monotonic()
            result.append([ended - await pause, str(exc)])
    holder.cancel()
    await enqueue("process_webhook", payload={})
    """
    outcomes = shop_with_queue.python(code, f"{own_redis.url}?max_connections=1")
    assert len(outcomes) == 5
    for late, text in outcomes:
        assert late < 0.7
        assert text == f"{NAMED}Too many connections"


@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_calls_during_a_sentinel_failover(
    during: Callable[..., dict[str, Any]], own_redis: OwnRedis, tmp_path: Path, how: str
) -> None:
    """Redis answers its clients and its replicas in one turn: no job is lost here."""
    (tmp_path / "replica").mkdir()
    replica = OwnRedis(tmp_path / "replica")
    replica.start("--replicaof", "127.0.0.1", str(own_redis.port))
    try:
        with (
            sentinel(own_redis, tmp_path, replicas=1) as port,
            redis.Redis(port=replica.port, db=1) as second,
        ):
            wait_for(
                lambda: second.info("replication")["master_link_status"] == "up", 20
            )

            def happens() -> None:
                more(second)
                getattr(own_redis, how)()
                wait_for(lambda: is_master(second), 30)
                more(second)

            found = during(f"sentinel://127.0.0.1:{port}/queue/1", happens)
            failed = found["calls"] - found["done"]
            check(found, all_done=failed == 0)
    finally:
        replica.stop()


def test_the_steps_of_an_abort_have_one_deadline(
    shop_with_queue: Shop, own_redis: OwnRedis
) -> None:
    """Redis reads only after some seconds, and does not write at all."""
    assert own_redis.process is not None
    code = """
    import os
    import signal
    import time

    await enqueue("process_webhook", payload={}, _job_id="x")
    await (await get_pool()).client_pause(60_000, all=False)
    os.kill(REDIS, signal.SIGSTOP)
    asyncio.get_running_loop().call_later(3.5, os.kill, REDIS, signal.SIGCONT)
    start = time.monotonic()
    try:
        await abort_job("x")
    except QueueUnavailableError:
        result = time.monotonic() - start
    """.replace("REDIS", str(own_redis.process.pid))
    assert 4 < shop_with_queue.python(code, own_redis.url) < 5.5
