"""Calls end in time whatever Redis does, and queue a job once."""

import asyncio
import random
import time
from collections import Counter
from typing import Any

import pytest
import redis.asyncio
from arq_runtime import line, server
from arq_runtime.client import sender
from kit import App
from outcomes import NAMED, Outcome, at_once, outcome, shorten
from support import OwnRedis

pytestmark = pytest.mark.slow

DEADLINE_S = server.DEADLINE_S


def check(late: float, found: list[Outcome]) -> None:
    assert late < 1.5
    assert all(one.text.startswith(NAMED) for one in found), found
    assert not any("secret" in one.text for one in found)


@pytest.mark.parametrize("fault", ["refused", "frozen", "wrong password"])
async def test_every_call_ends_in_time_and_says_where_to_look(
    own_redis: OwnRedis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    """In its error, and in the log, in a line each."""
    shorten(monkeypatch, deadline=1, attempt=0.4)
    app = App(own_redis.url)
    if fault == "refused":
        own_redis.stop()
    elif fault == "frozen":
        own_redis.freeze()
    else:
        app = App(own_redis.url.replace("://", "://:secret@"))
    # against a pause beside them: a busy machine delays both
    found, pause = await asyncio.gather(at_once(app, 100), outcome(asyncio.sleep(1)))
    check(max(one.seconds for one in found) - pause.seconds, found)
    lines = [record for record in caplog.records if record.name.startswith("arq_run")]
    assert len(lines) == len(found)
    assert all(line.getMessage().startswith(NAMED) for line in lines)
    assert not any(line.exc_info for line in lines)
    await app.server.close()


async def test_calls_that_have_all_been_given_up_end_no_task_of_ours(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose exception nobody would retrieve: Python logs a traceback then."""
    shorten(monkeypatch, deadline=1, attempt=0.4)
    app, tasks = App(own_redis.url), list[asyncio.Task[Any]]()

    def task(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        tasks.append(asyncio.Task(coroutine, loop=loop, **options))
        return tasks[-1]

    own_redis.freeze()
    asyncio.get_running_loop().set_task_factory(task)
    first = asyncio.create_task(outcome(app.client.enqueue("job")))
    await asyncio.sleep(0.1)  # so that the second is not sent with it
    found = [await outcome(app.client.enqueue("job")), await first]
    assert all(one.text.startswith(NAMED) for one in found), found
    await asyncio.wait(tasks)
    assert not [one for one in tasks if one.exception()]
    await app.close()


async def test_every_call_ends_within_5_seconds(own_redis: OwnRedis) -> None:
    app = App(own_redis.url)
    own_redis.freeze()
    pause = outcome(asyncio.sleep(DEADLINE_S))
    found, paused = await asyncio.gather(at_once(app, 100), pause)
    check(max(one.seconds for one in found) - paused.seconds, found)
    assert DEADLINE_S < 5
    await app.server.close()


@pytest.mark.parametrize("fault", ["stopped", "frozen"])
async def test_a_short_outage_is_ridden_out(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Redis is away as the calls are made, and back after more than one attempt."""
    shorten(monkeypatch, deadline=60, attempt=0.5)
    app = App(own_redis.url)
    if fault == "frozen":
        own_redis.freeze()
    else:
        own_redis.stop()
    calls = asyncio.create_task(at_once(app, 100))
    await asyncio.sleep(1)
    if fault == "frozen":
        own_redis.thaw()
    else:
        await asyncio.to_thread(own_redis.start)
    assert {one.text for one in await calls} == {"done"}
    assert await app.queued() == 100
    await app.close()


async def test_a_call_that_is_sent_again_queues_once_and_says_so(
    own_app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers are lost: connections are killed all the time, and jobs run meanwhile.

    A job that has run, and whose result is not kept, has left nothing behind.
    """
    monkeypatch.setattr(sender, "PAUSE_S", 0.02)
    app = own_app
    # one connection, which is not killed
    killer = redis.asyncio.Redis.from_url(app.url, single_connection_client=True)
    ran: Counter[bytes] = Counter()
    kills = refused = 0

    async def kill() -> None:
        nonlocal kills
        while True:
            await asyncio.sleep(random.uniform(0, 0.05))
            kills += await killer.client_kill_filter(_type="normal", skipme=True)

    async def run() -> None:
        while True:
            for job_id in await killer.zrange(app.queue, 0, -1):
                ran[job_id] += 1
                await killer.delete(b"arq:job:" + job_id)
                await killer.zrem(app.queue, job_id)
            await asyncio.sleep(0.001)

    numbers = iter(range(1000))

    async def ask() -> None:
        nonlocal refused
        for n in numbers:
            own = f"own-{n}" if n % 2 else None
            refused += await app.client.enqueue("count", _job_id=own) is None

    tasks = [asyncio.create_task(kill()), asyncio.create_task(run())]
    await asyncio.gather(*[ask() for _ in range(10)])
    while await killer.zcard(app.queue):
        await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await killer.aclose()
    assert kills > 5
    assert (refused, len(ran), max(ran.values())) == (0, 1000, 1)


@pytest.mark.parametrize("options", ["", "?max_connections=3", "?max_connections=1"])
async def test_calls_wait_for_a_connection_where_there_are_few(
    redis_url: str, options: str
) -> None:
    app = App(redis_url + options)
    assert {one.text for one in await at_once(app, 2000)} == {"done"}
    assert await app.queued() == 2000
    await app.close()


async def test_a_connection_that_was_closed_while_idle_costs_nothing(
    own_app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Redis' `timeout`, or a load balancer."""
    monkeypatch.setattr(sender, "PAUSE_S", 600)
    monkeypatch.setattr(line, "IDLE_S", 0.2)
    app = own_app
    await app.enqueue("count")
    await app.redis.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.3)
    assert (await outcome(app.enqueue("count"))).is_done


async def test_a_call_is_as_slow_as_redis_and_no_slower(app: App) -> None:
    """A single caller waits for nobody."""
    await app.enqueue("count")
    spent = []
    for _ in range(100):
        start = time.monotonic()
        await app.enqueue("count")
        spent.append(time.monotonic() - start)
    assert min(spent) < 0.01  # the others may be those of a busy machine
