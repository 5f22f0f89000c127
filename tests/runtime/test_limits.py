"""Limits: how many jobs of a key run at once, or start in a period."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from arq import Retry, cron
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus
from arq_runtime import limits as module
from arq_runtime.limits import limit
from arq_runtime.operate.command import Project, command
from arq_runtime.operate.info import Which
from arq_runtime.testing import run_queued
from arq_runtime.worker.job import Context
from arq_runtime.worker.loop import Loop
from click.testing import CliRunner
from holding import Holder
from kit import QUEUE, App, until

Task = Callable[..., Awaitable[Any]]


class Gate:
    """Where jobs of the tasks below wait, and who is there, or was."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.here: list[Any] = []
        self.most: Counter[Any] = Counter()
        self.started: list[Any] = []

    async def passes(self, name: Any, key: Any = None) -> None:
        self.started.append(name)
        self.here.append(key)
        self.most[key] = max(self.most[key], self.here.count(key))
        try:
            await self.open.wait()
        finally:
            self.here.remove(key)


GATES: list[Gate] = []


@pytest.fixture
def gate() -> Gate:
    GATES[:] = [Gate()]
    return GATES[0]


@limit(concurrency=1, key="key")
async def one(ctx: Context, key: int, name: str = "") -> int:
    await GATES[0].passes(name or key, key)
    return int(ctx["job_try"])


@limit(concurrency=2)
async def two(ctx: Context, name: int) -> None:
    await GATES[0].passes(name)


@limit(rate=3, per=0.5)
async def three_in_half_a_second(ctx: Context, n: int) -> float:
    return asyncio.get_running_loop().time()


async def free(ctx: Context) -> str:
    return "free"


async def left_over(app: App) -> list[str]:
    """The keys of limits that are there still."""
    keys = [key.decode() for key in await app.redis.keys(f"{QUEUE}:*")]
    kinds = ("line", "places", "looks")
    return sorted(key for key in keys if key.split(":")[3] in kinds)


async def waits(app: App, count: int) -> None:
    """Wait until so many wait for a limit."""

    async def do() -> bool:
        stats = await app.operations.queue_stats()
        return sum(stats.waiting.values()) == count

    await until(do)


# --- What holds -----------------------------------------------------------------------


async def test_jobs_of_a_key_run_one_at_a_time_and_in_order(
    app: App, gate: Gate
) -> None:
    gate.open.set()
    async with app.worker(one), app.worker(one):
        calls = [{"key": n % 4, "name": f"{n % 4} {n:03}"} for n in range(100)]
        jobs = await app.client.enqueue_many(one, calls)
        for job in jobs:
            assert job is not None and await job.result(timeout=25) == 1
    assert gate.most == dict.fromkeys(range(4), 1)
    for key in "0123":
        mine = [name for name in gate.started if name[0] == key]
        assert mine == sorted(mine)
    async with app.worker(one):
        await until(lambda: _is_empty(app))


async def _is_empty(app: App) -> bool:
    return await left_over(app) == []


async def test_so_many_run_at_once_over_all_workers(app: App, gate: Gate) -> None:
    async with app.worker(two) as first, app.worker(two):
        await app.client.enqueue_many(two, [{"name": n} for n in range(6)])
        await until(lambda: len(gate.here) == 2)
        await waits(app, 4)
        gate.open.set()
        await until(lambda: len(gate.started) == 6)
        assert gate.most[None] == 2 and sorted(gate.started) == [*range(6)]
        assert first.jobs_failed == 0


async def test_no_more_start_in_a_period(app: App) -> None:
    async with app.worker(three_in_half_a_second, poll_delay=30):
        began = asyncio.get_running_loop().time()
        calls = [{"n": n} for n in range(11)]
        jobs = await app.client.enqueue_many(three_in_half_a_second, calls)
        starts = [await job.result(timeout=25) for job in jobs if job]
    assert starts == sorted(starts)
    # They are counted by Redis' clock, before the way to the worker.
    for n, start in enumerate(starts):
        assert start - began > n // 3 * 0.5 - 0.1
    assert starts[-1] - began < 25


async def test_who_waits_takes_no_slot_and_no_try(app: App, gate: Gate) -> None:
    async with app.worker(one, free, max_jobs=2):
        first = await app.enqueue(one, 1)
        others = [await app.enqueue(one, 1) for _ in range(5)]
        await gate_has(gate, 1)
        for _ in range(3):
            assert await (await app.enqueue(free)).result(timeout=25) == "free"
        gate.open.set()
        for job in (first, *others):
            assert await job.result(timeout=25) == 1


async def gate_has(gate: Gate, count: int) -> None:
    await until(lambda: len(gate.here) == count)


@pytest.mark.slow
async def test_others_are_not_held_up(app: App, gate: Gate) -> None:
    """By what Redis has to do for them, since the machine may be busy."""

    async def commands_for_another() -> int:
        await app.redis.config_resetstat()
        await (await app.enqueue(one, 2)).result(timeout=25)
        stats = await app.redis.info("commandstats")
        names = ("zadd", "zrangebyscore", "zrange", "zpopmin", "get", "set", "zcard")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names)

    async with app.worker(one, max_jobs=2):
        await app.enqueue(one, 1)
        await gate_has(gate, 1)
        gate.open.set()
        gate.open = asyncio.Event()  # who is there waits for the one that is set
        await app.enqueue(one, 1)
        await gate_has(gate, 1)
        blocking, gate.open = gate.open, asyncio.Event()
        gate.open.set()
        few = await commands_for_another()
        await app.client.enqueue_many(one, [{"key": 1}] * 10_000)
        await waits(app, 10_000)
        assert await commands_for_another() < few * 3
        blocking.set()


async def test_what_it_costs_to_put_a_job_in_line(app: App) -> None:
    holder = Holder(app, "one")
    await app.client.enqueue_many(one, [{"key": 0}] * 401)
    await app.redis.config_resetstat()
    await holder.leases.claim(lambda: 10)
    stats = await app.redis.info("commandstats")
    assert len(holder.claimed) == 1
    assert sum(of["calls"] for of in stats.values()) < 6 * 400


async def test_a_class_limits_all_jobs_of_its_queue(app: App, gate: Gate) -> None:
    limits = [limit(concurrency=1, key="key"), limit(concurrency=2)]

    async def other(ctx: Context, key: int) -> None:
        await gate.passes("other", key)

    async with app.worker(two, other, limits=limits, cron_jobs=[]):
        await app.enqueue(other, 1)
        await gate_has(gate, 1)
        await app.enqueue(other, key=1)
        await app.enqueue(two, 5)
        await gate_has(gate, 2)
        await app.enqueue(other, 2)
        await waits(app, 2)
        stats = await app.operations.queue_stats()
        assert stats.waiting == {QUEUE: 1, f"{QUEUE}(key=1)": 1}
        gate.open.set()
        await until(lambda: len(gate.started) == 4)
        assert gate.most[1] == 1


async def test_cron_jobs_are_limited(app: App, gate: Gate) -> None:
    @limit(concurrency=1)
    async def often(ctx: Context) -> None:
        await gate.passes("often")

    second = {*range(60)}
    cron_jobs = [cron(often, name="often", second=second)]

    async def one_waits() -> bool:
        return sum((await app.operations.queue_stats()).waiting.values()) > 0

    async with app.worker(cron_jobs=cron_jobs):
        await until(one_waits)
        assert len(gate.here) == 1


async def test_a_key_of_none_is_no_limit(app: App, gate: Gate) -> None:
    @limit(concurrency=1, key=lambda arguments: arguments["key"] or None)
    async def some(ctx: Context, key: int = 0) -> None:
        await gate.passes("", key)

    async with app.worker(some):
        for key in (0, 0, 1, 1):
            await app.enqueue(some, key)
        await app.enqueue(some)
        await waits(app, 1)
        await until(lambda: sorted(gate.here) == [0, 0, 0, 1])


async def test_another_limit_holds_for_those_that_come_after(
    app: App, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with app.worker(two):
        jobs = [await app.enqueue(two, n) for n in range(4)]
        await gate_has(gate, 2)
        await waits(app, 2)
        monkeypatch.setitem(vars(two), "limits", (limit(concurrency=3),))
        last = await app.enqueue(two, 4)
        await waits(app, 3)
        gate.open.set()
        for job in (*jobs, last):
            await job.result(timeout=25)
        assert gate.started[-1] == 4


# --- A place is given back ------------------------------------------------------------


@limit(concurrency=1)
async def ends(ctx: Context, how: str) -> None:
    if how == "fails":
        raise ValueError("no")
    if how == "is tried again" and ctx["job_try"] == 1:
        raise Retry(defer=3600)
    if how in ("times out", "is aborted"):
        await asyncio.sleep(600)


@pytest.mark.parametrize(
    "how", ["ends", "fails", "is tried again", "times out", "is aborted"]
)
async def test_a_place_is_given_back_by_one_that(app: App, how: str) -> None:
    options: dict[str, Any] = {
        "max_tries": 1 if how == "fails" else 2,
        "retry_delay": 3600,
    }
    options["job_timeout"] = 0.5 if how == "times out" else 300
    options["poll_delay"] = 0.5 if how == "is aborted" else 30
    async with app.worker(ends, **options):
        first = await app.enqueue(ends, how, _job_id="first")
        await until(lambda: app.redis.exists("arq:retry:first", "arq:result:first"))
        second = await app.enqueue(ends, "ends")
        if how == "is aborted":
            await waits(app, 1)
            assert await app.lookup.abort_job(first.job_id)
        await second.result(timeout=25)


async def test_a_stopped_worker_gives_its_place_to_another(
    app: App, gate: Gate
) -> None:
    async with app.worker(one, poll_delay=30):
        async with app.worker(one, job_completion_wait=0):
            jobs = [await app.enqueue(one, 1, name=name) for name in "abc"]
            await gate_has(gate, 1)
        await gate_has(gate, 1)
        gate.open.set()
        for job in jobs:
            await job.result(timeout=25)
    assert sorted(gate.started) in ([*"aabc"], [*"abc"])
    assert gate.most[1] == 1


async def test_the_place_of_a_killed_worker_is_free_after_its_lease(
    app: App, gate: Gate
) -> None:
    worker = app.new_worker(one, lease=1)
    worker._open()
    worker.leases._claimed = lambda *job: None  # type: ignore[method-assign]
    await app.enqueue(one, 1, name="lost")
    await worker.leases.claim(lambda: 1)  # and is heard of no more
    gate.open.set()
    async with app.worker(one, poll_delay=30, lease=1):
        job = await app.enqueue(one, 1, name="next")
        await job.result(timeout=25)
        await until(lambda: sorted(gate.started) == ["lost", "next"])
    assert gate.most[1] == 1


async def test_a_lease_that_is_renewed_keeps_its_place(app: App, gate: Gate) -> None:
    places = f"{QUEUE}:places:one(key=1)"

    async def are_kept_until() -> list[float]:
        held = await app.redis.zrange(places, 0, -1, withscores=True)
        return [until for _, until in held]

    async with app.worker(one, lease=60) as worker:
        jobs = [await app.enqueue(one, 1) for _ in range(2)]
        await gate_has(gate, 1)
        await waits(app, 1)
        [before] = await are_kept_until()

        async def is_renewed() -> bool:
            worker.leases.renew_at = 0
            await app.wake()
            return (await are_kept_until())[0] > before

        await until(is_renewed)
        assert len(gate.here) == 1
        gate.open.set()
        for job in jobs:
            await job.result(timeout=25)
        assert gate.most[1] == 1


async def test_a_claim_whose_answer_was_lost_gives_its_places_back(
    app: App, gate: Gate
) -> None:
    gate.open.set()
    worker = app.new_worker(one, three_in_half_a_second, max_jobs=10)
    worker._open()
    once = [await app.enqueue(one, 1), await app.enqueue(three_in_half_a_second, 1)]
    leases = worker.leases
    token, claimed = leases._token, leases._claimed
    leases._claimed = lambda *job: None  # type: ignore[method-assign,assignment]
    await leases.claim(lambda: 10)
    leases._token, leases._claimed = token, claimed  # type: ignore[method-assign]
    await leases.claim(lambda: 10)
    for job in once:
        await job.result(timeout=25)
    assert await app.redis.zcard(f"{QUEUE}:starts:three_in_half_a_second in 0.5 s") <= 1
    await worker.close()


async def test_a_worker_that_does_not_know_the_task_gives_its_start_back(
    app: App,
) -> None:
    app.settings(three_in_half_a_second)
    async with app.worker(free):
        job = await app.enqueue(three_in_half_a_second, 1)
        await until(lambda: app.redis.exists(f"arq:unknown:{job.job_id}"))
        assert not await app.redis.keys(f"{QUEUE}:starts:*")


# --- What becomes of one that waits ---------------------------------------------------


async def test_one_that_waits_is_seen_as_queued(app: App, gate: Gate) -> None:
    name = "one(key=7)"
    async with app.worker(one):
        await app.enqueue(one, 7)
        await gate_has(gate, 1)
        before = datetime.now(UTC) - timedelta(seconds=5)
        job = await app.enqueue(one, 7, _job_id="waits")
        await waits(app, 1)
        status = await app.lookup.get_job_status("waits")
        assert status is not None
        assert (status["status"], status["waits_for"]) == ("queued", name)
        assert before.timestamp() * 1000 < status["score"] < await app.now()
        (listed,) = await app.operations.list_jobs("queued")
        assert (listed.state, listed.waits_for) == ("queued", name)
        assert listed.due is not None and before < listed.due
        assert await app.operations.list_jobs("deferred") == []
        stats = await app.operations.queue_stats()
        counts = (stats.queued, stats.deferred, stats.in_progress)
        assert counts == (1, 0, 1) and stats.waiting == {name: 1}
        assert 0 <= stats.oldest < 60
        assert not await app.operations.run_now("waits")
        # arq's own client
        theirs = Job("waits", app.redis, QUEUE, app.serializer.deserialize)
        assert await theirs.status() == JobStatus.deferred
        info = await theirs.info()
        assert info is not None and info.args == (7,)

        async def output(*arguments: str) -> str:
            project = Project(App(app.url).operations, app.lookup.abort_job)
            run = CliRunner().invoke
            return (
                await asyncio.to_thread(run, command, arguments, obj=project)
            ).stdout

        assert f"1 job waits for limit {name}" in await output("stats")
        assert f"waits for limit {name}" in await output("list", "queued")
        assert f"waits for limit {name}" in await output("show", "waits")
        gate.open.set()
        assert await job.result(timeout=25) == 1
        done = await app.operations.get_job("waits")
        assert done is not None and done.waits_for == ""


async def test_one_that_waits_is_aborted_replaced_or_expires(
    app: App, gate: Gate
) -> None:
    async with app.worker(one):
        await app.enqueue(one, 1, name="first")
        await gate_has(gate, 1)
        await app.enqueue(one, 1, name="aborted", _job_id="aborted")
        await app.enqueue(one, 1, name="old", _job_id="replaced")
        late = await app.enqueue(one, 1, name="late", _expires=0.2)
        last = await app.enqueue(one, 1, name="last")
        await waits(app, 4)
        assert await app.lookup.abort_job("aborted")
        await app.enqueue(one, 1, name="purged", _job_id="purged")
        await waits(app, 4)
        assert await app.operations.purge(Which(text="purged")) == 1
        await waits(app, 3)
        await app.enqueue(one, 1, name="new", _job_id="replaced", _replace=True)
        await until(lambda: _is_gone(app, late.job_id))
        gate.open.set()
        await last.result(timeout=25)
        await app.result_of("replaced")
        assert "expired" in str((await app.result_of(late.job_id))["r"])
        assert gate.started == ["first", "last", "new"]


async def _is_gone(app: App, job_id: str) -> bool:
    return not await app.redis.exists(f"arq:job:{job_id}")


async def test_a_failed_job_that_is_retried_is_limited_still(
    app: App, gate: Gate
) -> None:
    @limit(concurrency=1)
    async def fails_first(ctx: Context, name: str) -> None:
        if name not in gate.started:
            gate.started.append(name)
            raise ValueError("no")
        await gate.passes(name)

    async with app.worker(fails_first, max_tries=1):
        for name in "ab":
            await app.enqueue(fails_first, name, _job_id=name)
            await app.result_of(name)
        assert await app.operations.retry_failed() == 2
        await gate_has(gate, 1)
        await waits(app, 1)
        gate.open.set()
        await until(lambda: gate.started == [*"abab"])


async def test_in_a_test_nothing_waits_for_a_limit(app: App) -> None:
    app.settings(three_in_half_a_second, max_tries=1)
    app.queues.has_limits = False
    calls = [{"n": n} for n in range(20)]
    await app.client.enqueue_many(three_in_half_a_second, calls)
    assert await run_queued(app.queues) == 20
    assert not await app.redis.keys(f"{QUEUE}:starts:*")


async def test_a_large_job_is_limited_too(app: App, gate: Gate) -> None:
    async with app.worker(one):
        name = "x" * 3_000_000
        jobs = [await app.enqueue(one, 1, name=name) for _ in range(3)]
        await gate_has(gate, 1)
        await waits(app, 2)
        gate.open.set()
        for job in jobs:
            await job.result(timeout=25)
        assert gate.most[1] == 1


@pytest.mark.parametrize("format", ["json", "pickle"])
async def test_arqs_own_worker_runs_what_is_limited_here(
    redis_url: str, format: str, gate: Gate
) -> None:
    app = App(redis_url, format=format)
    app.settings(one)
    gate.open.set()
    job = await app.enqueue(one, 3)
    theirs = Loop.__base__(
        functions=[one],
        queue_name=QUEUE,
        redis_pool=app.redis,
        burst=True,
        handle_signals=False,
        job_serializer=app.serializer.serialize,
        job_deserializer=app.serializer.deserialize,
    )
    await theirs.main()
    assert await job.result(timeout=25) == 1
    await app.close()


# --- What is refused ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "limit what?"),
        ({"rate": 5}, "rate and per go together"),
        ({"concurrency": 1, "per": 5}, "rate and per go together"),
        ({"concurrency": 0}, "concurrency must be 1 or more, not 0"),
        ({"concurrency": True}, "concurrency must be 1 or more, not True"),
        ({"rate": 1.5, "per": 1}, "rate must be 1 or more, not 1.5"),
        ({"rate": 1, "per": 0}, "per is from 0.001 s to a year, not 0"),
        ({"rate": 1, "per": float("nan")}, "per is from 0.001 s to a year"),
        ({"concurrency": 1, "key": 5}, "a parameter's name or a function, not 5"),
    ],
)
def test_a_limit_that_cannot_be(options: dict[str, Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        limit(**options)


def test_a_key_that_is_no_parameter() -> None:
    with pytest.raises(
        TypeError, match=r"key 'user' is no parameter; there is key, name"
    ):
        limit(concurrency=1, key="user")(one)


def test_the_same_limit_twice() -> None:
    with pytest.raises(TypeError, match="two limits of the same kind and key"):
        limit(concurrency=3, key="key")(one)


def test_settings_with_what_is_no_limit(app: App) -> None:
    with pytest.raises(TypeError, match=r"limits has 5, which must be limit\(...\)"):
        app.settings(free, limits=[5])
    with pytest.raises(TypeError, match=r"limits is a list"):
        app.settings(free, limits=limit(concurrency=1))


class Colour(Enum):
    RED = 1


async def test_what_a_key_may_be(app: App) -> None:
    @limit(concurrency=1, key="key")
    async def task(ctx: Context, key: Any) -> None: ...

    app.settings(task)
    for good in ("é\ud800\x00", "x" * 5000, 7, UUID(int=1), None):
        counts = module.counted(task, "task", QUEUE, [], (good,), {})
        assert len(str(counts)) < 300
    assert module.counted(task, "task", QUEUE, [], (Colour.RED,), {})[0].name == (
        "task(key=Colour.RED)"
    )
    with pytest.raises(TypeError, match="key 'key' must be a text, an integer, a UUID"):
        await app.enqueue(task, [1])


async def test_more_limits_than_a_job_may_have(app: App) -> None:
    limits = [limit(rate=n, per=n) for n in range(1, 11)]
    app.settings(free, limits=limits)
    with pytest.raises(ValueError, match="at most 9 limits, not 10"):
        await app.enqueue(free)


async def test_what_others_leave_there_stops_nothing(app: App, gate: Gate) -> None:
    gate.open.set()
    redis: ArqRedis = app.redis
    for kind in ("line", "places", "starts"):
        await redis.set(f"{QUEUE}:{kind}:one(key=1)", "a text")
    odd = [
        b'{"t":null,"f":"free","a":[],"k":{},"et":1,"l":[[["x",-1,0],["y"],5,null]]}',
        b'{"t":null,"f":"free","a":[],"k":{},"et":1,"l":[5]}',
        b'{"t":null,"f":"free","a":[],"k":{},"et":1,"l":[}]}',
    ]
    async with app.worker(one, free):
        for number, content in enumerate(odd):
            await app.put(f"odd{number}", content)
        assert await (await app.enqueue(one, 1)).result(timeout=25) == 1
        assert await (await app.enqueue(free)).result(timeout=25) == "free"
        await redis.set(f"{QUEUE}:looks", "a text")
        assert await (await app.enqueue(one, 1)).result(timeout=25) == 1
