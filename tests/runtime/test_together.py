"""Calls that wait at the same time travel together, and each is answered for itself."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from arq_runtime.client import sender
from arq_runtime.client.job import Job
from arq_runtime.server import QueueUnavailableError
from kit import App, until
from outcomes import Outcome, outcome, shorten
from proxy import Proxy
from redis.asyncio.connection import Connection
from redis.exceptions import OutOfMemoryError, RedisError
from structlog.contextvars import bound_contextvars, get_contextvars
from support import OwnRedis

Ctx = dict[str, Any]


@asynccontextmanager
async def behind(proxy: Proxy) -> AsyncIterator[App]:
    """An application that reaches its server through a proxy."""
    app = App(f"redis://127.0.0.1:{proxy.port}/1")
    await app.redis.ping()
    await app.enqueue("count", _job_id="first")
    yield app
    await app.close()


@pytest.fixture
async def line(own_redis: OwnRedis) -> AsyncIterator[tuple[App, Proxy]]:
    """An application, and the network between it and its server."""
    with Proxy(own_redis.port) as proxy:
        async with behind(proxy) as app:
            yield app, proxy


async def ids(app: App) -> list[str]:
    """Of the jobs that are queued, in their order."""
    return [one.decode() for one in await app.redis.zrange(app.queue, 0, -1)]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the jobs that were sent, each the first of its round trip."""
    found: list[str] = []
    send = Connection.send_packed_command

    async def spy(self: Connection, command: Any, **kwargs: Any) -> None:
        await send(self, command, **kwargs)
        if b"EVALSHA" in command:
            found.append(command.split(b"\r\n")[16].decode())

    monkeypatch.setattr(Connection, "send_packed_command", spy)
    return found


# --- Any number of callers ------------------------------------------------------------


async def test_calls_of_one_moment_take_few_round_trips(app: App) -> None:
    await app.enqueue("count")

    async def scripts() -> int:
        stats = await app.redis.info("commandstats")
        return int(stats["cmdstat_evalsha"]["calls"])

    before = await scripts()
    await asyncio.gather(*[app.enqueue("count") for _ in range(500)])
    assert await scripts() - before <= 3
    assert await app.queued() == 501


@pytest.mark.slow
async def test_2000_calls_at_once_from_far_away(line: tuple[App, Proxy]) -> None:
    app, proxy = line
    proxy.latency = 0.05
    jobs = await asyncio.gather(*[app.enqueue("count") for _ in range(2000)])
    assert {job.job_id for job in jobs} | {"first"} == {*await ids(app)}


@pytest.mark.slow
async def test_40000_calls_at_once(app: App) -> None:
    jobs = await asyncio.gather(*[app.enqueue("count") for _ in range(40_000)])
    assert len({job.job_id for job in jobs}) == await app.queued() == 40_000


@pytest.mark.slow
async def test_the_loop_itself_takes_longer_than_a_call_may(app: App) -> None:
    """As something blocks it."""
    calls = [asyncio.create_task(app.enqueue("count")) for _ in range(5_000)]
    await asyncio.sleep(0)  # all of them have begun
    time.sleep(sender.DEADLINE_S + 1)
    jobs = await asyncio.gather(*calls)
    assert len({job.job_id for job in jobs}) == await app.queued() == 5_000


async def stream(app: App, rate: float, found: list[tuple[float, Outcome]]) -> None:
    """So many calls a second, until cancelled; when each began, and how it ended."""

    async def call() -> None:
        start = time.monotonic()
        found.append((start, await outcome(app.enqueue("count"))))

    async with asyncio.TaskGroup() as group:
        while True:
            group.create_task(call())
            await asyncio.sleep(1 / rate)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [60, 200])
async def test_a_stall_is_over_when_the_network_is_back(
    line: tuple[App, Proxy], monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    """Calls go on meanwhile. None of them fails, since the stall is shorter."""
    # so that a machine that stands still for some seconds, too, fails none
    shorten(monkeypatch, deadline=30, attempt=sender.ATTEMPT_S)
    app, proxy = line
    proxy.latency = 0.01
    found: list[tuple[float, Outcome]] = []
    load = asyncio.create_task(stream(app, rate, found))
    await asyncio.sleep(0.5)
    proxy.hold()
    await asyncio.sleep(3)
    proxy.restore()
    back = time.monotonic()
    await asyncio.sleep(4)
    load.cancel()
    await asyncio.wait([load])
    assert {one.text for _, one in found} == {"done"}
    later = [one.seconds for start, one in found if start > back + 2]
    assert len(later) > rate / 5
    assert max(later) < 3
    assert max(start + one.seconds for start, one in found if start < back) < back + 3


# --- Each its own answer --------------------------------------------------------------


async def test_each_caller_gets_its_own_answer(app: App) -> None:
    await asyncio.gather(*[app.enqueue("count", _job_id=f"{n}") for n in range(50)])
    calls = [app.client.enqueue("count", _job_id=f"{n}") for n in range(100)]
    calls += [app.client.enqueue("count") for _ in range(50)]
    many = app.client.enqueue_many(
        "count", [{"_job_id": "0"}, {"_job_id": "a"}, {"_job_id": "1"}]
    )
    jobs, several = await asyncio.gather(asyncio.gather(*calls), many)
    assert jobs[:50] == [None] * 50
    assert [job and job.job_id for job in jobs[50:100]] == [
        f"{n}" for n in range(50, 100)
    ]
    assert [job and job.job_id for job in several] == [None, "a", None]
    own = [job.job_id for job in jobs[50:] if job]
    assert len({*own}) == 100
    assert {*own, "a"} < {*await ids(app)}


async def test_a_call_at_fault_fails_alone(app: App) -> None:
    calls = [
        app.client.enqueue("count", _job_id="\udc00"),
        *[app.client.enqueue("count") for _ in range(3)],
        app.client.enqueue("count", object()),
    ]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(one, Job) for one in found] == [False, True, True, True, False]
    assert isinstance(found[0], ValueError)
    assert await app.queued() == 3


async def test_what_others_have_left_in_redis_fails_no_neighbour(app: App) -> None:
    for key in ("arq:abort", f"{app.queue}:failed"):
        await app.redis.set(key, "no sorted set")
    for key in ("arq:job:own", "arq:result:new"):
        await app.redis.lpush(key, "no string")
    names = [None, "own", "other", None]
    calls = [app.client.enqueue("count", _job_id=name) for name in names]
    found = await asyncio.gather(*calls)
    assert [isinstance(one, Job) for one in found] == [True, False, True, True]
    assert await app.queued() == 3


async def test_without_memory_each_caller_is_told_so(own_app: App) -> None:
    app = own_app
    await app.enqueue("count")
    await app.redis.config_set("maxmemory", "1")
    calls = [app.client.enqueue("count") for _ in range(50)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(one, OutOfMemoryError) for one in found)
    assert len({id(one) for one in found}) == 50  # each has its own traceback
    assert await app.queued() == 1
    await app.redis.config_set("maxmemory", "0")
    await app.enqueue("count")


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [2, 16])
async def test_jobs_too_large_for_redis_hold_up_no_others(
    own_app: App, monkeypatch: pytest.MonkeyPatch, megabytes: int
) -> None:
    """Redis says so; or closes the connection over it, again and again."""
    shorten(monkeypatch, deadline=8, attempt=1)
    app = own_app
    await app.enqueue("count")
    await app.redis.config_set("proto-max-bulk-len", "1mb")
    text = "x" * (megabytes << 20)
    large = [asyncio.create_task(app.enqueue("count", text)) for _ in range(2)]
    await asyncio.sleep(0.1)
    start = time.monotonic()
    await asyncio.gather(*[app.enqueue("count") for _ in range(50)])
    assert time.monotonic() - start < 7
    for one in large:
        with pytest.raises(RedisError):
            await one
    assert await app.queued() == 51


# --- Callers that leave ---------------------------------------------------------------


async def test_a_caller_that_is_cancelled_leaves_the_others(
    line: tuple[App, Proxy],
) -> None:
    app, proxy = line
    proxy.hold()
    calls = []
    for name in ("under way", "waits", "cancelled", "waits too"):
        calls.append(asyncio.create_task(app.enqueue("count", _job_id=name)))
        await asyncio.sleep(0.01)
    calls[2].cancel()
    calls[0].cancel()
    await asyncio.wait([calls[0], calls[2]])
    proxy.restore()
    await asyncio.gather(calls[1], calls[3])
    assert calls[0].cancelled()
    assert calls[2].cancelled()
    found = [name for name in await ids(app) if name != "under way"]  # it may be there
    assert found == ["first", "waits", "waits too"]


async def test_the_job_of_an_expired_call_is_not_sent_with_its_neighbours(
    line: tuple[App, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    app, proxy = line
    proxy.cut()
    calls = []
    for name, deadline in (("first to go", 1.0), ("second", 1.0), ("last", 60.0)):
        shorten(monkeypatch, deadline=deadline, attempt=0.4)
        calls.append(asyncio.create_task(app.enqueue("count", _job_id=name)))
        await asyncio.sleep(0.15)
    for call in calls[:2]:
        with pytest.raises(QueueUnavailableError):
            await call
    assert not calls[2].done()
    proxy.restore()
    await calls[2]
    assert await ids(app) == ["first", "last"]


async def test_a_large_call_ends_in_time_beside_small_ones_that_succeed(
    line: tuple[App, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, deadline=5, attempt=3)
    app, proxy = line
    proxy.bandwidth = 1e6  # bytes a second

    async def small_ones() -> None:
        while True:
            await app.enqueue("count")

    beside = asyncio.create_task(small_ones())
    with pytest.raises(QueueUnavailableError):
        await asyncio.wait_for(app.enqueue("count", "x" * (8 << 20)), 25)
    assert not beside.done()
    beside.cancel()


async def test_calls_go_on_after_everything_was_cancelled(
    line: tuple[App, Proxy],
) -> None:
    """As a test runner or a server that shuts down does it."""
    app, proxy = line
    proxy.hold()
    calls = [asyncio.create_task(app.enqueue("count")) for _ in range(5)]
    await asyncio.sleep(0.05)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.wait(others, timeout=25)
    assert all(call.cancelled() for call in calls)
    proxy.restore()
    await app.enqueue("count", _job_id="later")
    assert "later" in await ids(app)


# --- Order ----------------------------------------------------------------------------


@pytest.fixture
def started() -> list[int]:
    """The numbers that jobs were enqueued with, as they started."""
    return []


async def test_jobs_of_a_batch_start_in_its_order(app: App, started: list[int]) -> None:
    async def note(ctx: Ctx, n: int) -> None:
        started.append(n)

    for _ in range(5):
        await app.client.enqueue_many(note, [{"n": n} for n in range(12)])
    await asyncio.gather(*[app.enqueue(note, n) for n in range(12)])
    await app.burst(note)
    assert started == [*range(12)] * 6


async def test_jobs_start_in_the_order_in_which_a_client_awaited_them(
    app: App, started: list[int]
) -> None:
    async def note(ctx: Ctx, n: int) -> None:
        started.append(n)

    for n in range(200):
        await app.enqueue(note, n)
    await app.burst(note, max_jobs=1)
    assert started == [*range(200)]


async def test_order_is_kept_from_one_round_trip_to_the_next(app: App) -> None:
    jobs = await app.client.enqueue_many("count", [{}] * 2500)
    assert await ids(app) == [job.job_id for job in jobs if job]


@pytest.mark.parametrize("is_lost", [False, True], ids=["late", "lost"])
async def test_order_is_kept_by_two_round_trips_at_once(
    line: tuple[App, Proxy], sent: list[str], is_lost: bool
) -> None:
    """The second is sent before the first is answered; or both are lost, and go again."""
    app, proxy = line
    proxy.hold()
    calls = []
    for n in range(5):
        calls.append(asyncio.create_task(app.enqueue("count", _job_id=f"{n}")))
        await until(lambda n=n: len(sent) > min(n, 1))
    assert sent == ["0", "1"]
    if is_lost:
        proxy.cut()
    proxy.restore()
    await asyncio.gather(*calls)
    assert await ids(app) == ["first", *"01234"]


async def test_scripts_that_redis_has_forgotten_are_run_in_their_order(
    own_app: App,
) -> None:
    app = own_app
    for turn in range(3):
        await app.redis.script_flush()
        names = [f"{turn}{n}" for n in range(9)]
        await asyncio.gather(*[app.enqueue("count", _job_id=name) for name in names])
        assert (await ids(app))[-9:] == names


# --- Context --------------------------------------------------------------------------


async def test_the_context_variables_of_the_callers_stay_apart(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job has its caller's; what sends them together has nobody's."""
    bound: list[dict[str, Any]] = []
    send = Connection.send_packed_command

    async def spy(self: Connection, command: Any, **kwargs: Any) -> None:
        if b"EVALSHA" in command:
            bound.append(get_contextvars())
        await send(self, command, **kwargs)

    monkeypatch.setattr(Connection, "send_packed_command", spy)

    async def call(n: int) -> None:
        with bound_contextvars(request_id=n):
            await app.enqueue("count", _job_id=f"{n}")
            assert get_contextvars() == {"request_id": n}

    await asyncio.gather(*map(call, range(50)))
    for n in range(50):
        job = json.loads(await app.redis.get(f"arq:job:{n}"))
        assert job["c"]["log"] == {"request_id": n}
    alone, *together = bound
    assert alone == {"request_id": 0}
    assert together and all(one == {} for one in together)
