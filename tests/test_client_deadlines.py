"""Calls end in time whatever Redis does, and queue a job once."""

import os
import signal

import pytest
from support import OwnRedis, Shop

pytestmark = pytest.mark.slow

# What a hundred calls at once come to, and how many seconds the longest took.
AT_ONCE = """
    import logging
    import time

    from redis.exceptions import ConnectionError, RedisError

    logging.disable()

    async def outcome(call):
        start = time.monotonic()
        try:
            await call
            return time.monotonic() - start, "done"
        except RedisError as exc:
            assert isinstance(exc, ConnectionError), exc
            return time.monotonic() - start, str(exc)

    async def at_once(number):
        calls = [enqueue("process_webhook", payload={}) for _ in range(number)]
        calls += [get_job_status("x"), abort_job("x"), forget_job("x")]
        outcomes = await asyncio.gather(*map(outcome, calls))
        return [max(took for took, _ in outcomes), sorted({text for _, text in outcomes})]
"""


@pytest.mark.parametrize("fault", ["refused", "frozen", "wrong password"])
def test_every_call_ends_within_5_seconds_and_says_where_to_look(
    shop_with_queue: Shop, own_redis: OwnRedis, fault: str
) -> None:
    # against a pause of 4.8 s beside them: a busy machine delays both
    code = (
        AT_ONCE
        + """
    pause = asyncio.create_task(outcome(asyncio.sleep(4.8)))
    took, texts = await at_once(100)
    result = [took - (await pause)[0], texts]
    """
    )
    url = own_redis.url
    assert own_redis.process is not None
    if fault == "refused":
        own_redis.stop()
    elif fault == "frozen":
        os.kill(own_redis.process.pid, signal.SIGSTOP)
    else:
        url = url.replace("://", "://:secret@")
    try:
        late, texts = shop_with_queue.python(code, url)
    finally:
        if fault == "frozen":
            os.kill(own_redis.process.pid, signal.SIGCONT)
    assert late < 0.7
    assert all(text.startswith("Redis fails, see ARQ_REDIS_URL: ") for text in texts)
    assert not any("secret" in text for text in texts)


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_a_short_outage_is_ridden_out(
    shop_with_queue: Shop, own_redis: OwnRedis, fault: str
) -> None:
    """Redis is away while the calls are made, and back after two and a half seconds."""
    assert own_redis.process is not None
    frozen = own_redis.process
    if fault == "frozen":
        os.kill(frozen.pid, signal.SIGSTOP)
    else:
        own_redis.stop()
    code = (
        AT_ONCE
        + f"""
    import os, signal, subprocess
    calls = asyncio.create_task(at_once(100))
    await asyncio.sleep(2.5)
    if {fault!r} == "frozen":
        os.kill({frozen.pid}, signal.SIGCONT)
    else:
        server = subprocess.Popen(
            [{own_redis.binary!r}, "--port", "{own_redis.port}", "--save", ""],
            stdout=subprocess.DEVNULL,
        )
    try:
        result = await calls
    finally:
        if {fault!r} != "frozen":
            server.terminate()
            server.wait()
    """
    )
    _, texts = shop_with_queue.python(code, own_redis.url)
    assert texts == ["done"]


def test_a_call_that_is_sent_again_queues_once_and_says_so(
    shop_with_queue: Shop, own_redis: OwnRedis
) -> None:
    """Answers are lost: connections are killed all the time, and jobs run meanwhile.

    A job that has run, and whose result is not kept, has left nothing behind.
    """
    code = """
    import random

    pool = await get_pool()
    # one connection, which is not killed
    killer = type(pool).from_url(settings_url, single_connection_client=True)
    ran = {}

    async def kill():
        while True:
            await asyncio.sleep(random.uniform(0, 0.1))
            await killer.client_kill_filter(_type="normal", skipme=True)

    async def run():
        while True:
            for job_id in await killer.zrange("arq:queue:shop", 0, -1):
                ran[job_id] = ran.get(job_id, 0) + 1
                await killer.delete(b"arq:job:" + job_id)
                await killer.zrem("arq:queue:shop", job_id)
            await asyncio.sleep(0.001)

    numbers = iter(range(2000))
    refused = 0

    async def ask():
        nonlocal refused
        for n in numbers:
            own = f"own-{n}" if n % 2 else None
            refused += await enqueue("process_webhook", payload={}, _job_id=own) is None

    tasks = [asyncio.create_task(kill()), asyncio.create_task(run())]
    await asyncio.gather(*[ask() for _ in range(10)])
    while await killer.zcard("arq:queue:shop"):
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await killer.aclose()
    result = [refused, len(ran), max(ran.values())]
    """.replace("settings_url", repr(own_redis.url))
    assert shop_with_queue.python(code, own_redis.url) == [0, 2000, 1]


def test_calls_wait_for_a_connection_where_there_are_few(
    shop_with_queue: Shop, redis_url: str
) -> None:
    code = AT_ONCE + "\n    result = await at_once(2000)"
    for url in (redis_url, f"{redis_url}?max_connections=3"):
        _, texts = shop_with_queue.python(code, url)
        assert texts == ["done"]
