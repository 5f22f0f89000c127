"""Idle workers wait for jobs: an enqueue wakes as many as it has jobs for, not all."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest
from arq import Retry
from arq_runtime.limits import limit
from arq_runtime.worker import leases, loop, worker
from arq_runtime.worker.job import Context
from kit import QUEUE, App, until
from noting import Notes, job, plain
from processes import Processes
from test_lease import calls

WAKE = f"{QUEUE}:wake"
#: No worker looks by itself, but for once when it starts.
NEVER = {"poll_delay": 600, "health_check_interval": 600, "lease": 2400}
WAITS = {"arq_runtime.worker.loop.WAIT_S": 600, "arq_runtime.worker.loop.ANSWER_S": 900}


@pytest.fixture(autouse=True)
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in WAITS.items():
        monkeypatch.setattr(name, seconds)


async def again(ctx: Context) -> int:
    if ctx["job_try"] == 1:
        raise Retry(defer=0.3)
    return int(ctx["job_try"])


@limit(concurrency=1)
async def alone(ctx: Context) -> None:
    await asyncio.sleep(0.05)


async def wait(app: App, workers: int) -> None:
    """Until so many workers wait for jobs."""

    async def all_wait() -> bool:
        return len(await app.waiting()) == workers

    await until(all_wait, 30)


@pytest.mark.slow
async def test_one_job_wakes_few_of_many_workers(own_app: App) -> None:
    app = own_app
    async with AsyncExitStack() as workers:
        for _ in range(20):
            await workers.enter_async_context(app.worker(plain, **NEVER))
        await wait(app, 20)
        before = await calls(app, "evalsha")
        for n in range(10):
            await (await app.enqueue(plain, n)).result(30)
            await wait(app, 20)
        assert await calls(app, "evalsha") - before <= 6 * 10
        assert not await app.redis.exists(WAKE)


async def test_a_batch_wakes_a_worker_for_each_job(app: App, notes: Notes) -> None:
    async with AsyncExitStack() as workers:
        for n in range(5):
            ctx = {"who": str(n)}
            started = app.worker(job, max_jobs=1, ctx=ctx, **NEVER)
            await workers.enter_async_context(started)
        await wait(app, 5)
        calls = [{"name": n, "wait": 600} for n in range(5)]
        await app.client.enqueue_many(job, calls)
        await until(lambda: len(notes.starts()) == 5, 30)
    assert {start.who for start in notes.starts()} == set("01234")


async def test_a_worker_that_is_full_wakes_the_next(app: App, notes: Notes) -> None:
    """Jobs that nobody announces, but for one entry: as after a restart of Redis."""
    async with AsyncExitStack() as workers:
        for _ in range(4):
            started = app.worker(job, max_jobs=2, **NEVER)
            await workers.enter_async_context(started)
        await wait(app, 4)
        for n in range(8):
            content = app.serializer.dump(
                {"t": None, "f": "job", "a": [n, 600], "k": {}, "et": 1}
            )
            await app.redis.set(f"arq:job:{n}", content)
        await app.redis.zadd(QUEUE, {str(n): await app.now() for n in range(8)})
        await app.wake()
        await until(lambda: len(notes.starts()) == 8, 30)


async def test_a_busy_worker_wakes_an_idle_one(app: App, notes: Notes) -> None:
    """When it sees, as it looks, that a job waits for which it has no slot."""
    busy = app.worker(job, max_jobs=1, poll_delay=0.1, ctx={"who": "busy"})
    async with busy:
        await app.enqueue(job, "long", 600)
        await notes.started("long")
        async with app.worker(job, ctx={"who": "idle"}, **NEVER):
            await wait(app, 1)
            content = {"t": None, "f": "job", "a": ["late"], "k": {}, "et": 1}
            await app.redis.set("arq:job:late", app.serializer.dump(content))
            await app.redis.zadd(QUEUE, {"late": await app.now()})  # as arq does
            await notes.ended("late", timeout=30)


@pytest.mark.slow
async def test_the_woken_worker_is_killed(
    app: App, processes: Processes, notes: Notes
) -> None:
    first = await processes.start(constants=WAITS, **NEVER)
    await wait(app, 1)
    first.freeze()  # it is the first to be woken, and cannot do anything about it
    async with app.worker(job, **NEVER):
        await wait(app, 2)
        await app.enqueue(job, "a")
        first.kill()
        await notes.ended("a", timeout=30)
        await app.enqueue(job, "b")
        await notes.ended("b", timeout=30)


@pytest.mark.slow
async def test_the_woken_worker_is_blocked_by_its_job(
    app: App, processes: Processes, notes: Notes
) -> None:
    """Its lease was renewed before."""
    short = {"arq_runtime.worker.leases.HANDED_S": 1}
    for _ in range(2):
        await processes.start(constants=short)
    await wait(app, 2)
    await app.enqueue("block", "a", 4)
    await notes.ended("a", timeout=60)
    await app.enqueue(job, "b")
    await notes.ended("b", timeout=60)
    assert len(notes.starts("a")) == 1


@pytest.mark.slow
async def test_the_woken_worker_is_frozen_for_a_while(
    app: App, processes: Processes, notes: Notes
) -> None:
    """It has the job meanwhile, and reads of it long after it was run elsewhere."""
    first = await processes.start(constants=WAITS, **NEVER)
    await wait(app, 1)
    first.freeze()
    async with app.worker(job, **NEVER):
        await wait(app, 2)
        await app.enqueue(job, "a")
        await notes.ended("a", timeout=60)
        first.thaw()
        await wait(app, 2)
        for name in "bc":
            await app.enqueue(job, name)
            await notes.ended(name, timeout=30)
    assert len(notes.starts()) == 3


async def test_a_job_that_waits_starts_when_it_may(app: App) -> None:
    """Not when its worker looks again: put off, deferred, or in a limit's line."""
    async with app.worker(again, plain, alone, **NEVER):
        await wait(app, 1)
        assert await (await app.enqueue(again)).result(30) == 2
        await wait(app, 1)
        assert await (await app.enqueue(plain, 1, _defer_by=0.3)).result(30) == 1
        await wait(app, 1)
        for one in [await app.enqueue(alone) for _ in range(3)]:
            await one.result(30)


async def test_jobs_that_are_enqueued_as_a_worker_stops(
    app: App, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "HANDED_S", 600)
    monkeypatch.setattr(worker, "STOP_S", 600)
    async with asyncio.timeout(120), app.worker(job, max_jobs=100, **NEVER):
        for n in range(20):
            async with app.worker(job, **NEVER):
                await wait(app, 2)
                enqueuing = asyncio.create_task(app.enqueue(job, n))
                await asyncio.sleep(random.uniform(0, 0.003))
            await enqueuing
        await until(lambda: len(notes.ends()) == 20, 60)
    assert len(notes.starts()) == 20
    assert not await app.redis.keys(f"{WAKE}:*")


async def test_jobs_that_nobody_announces(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle worker that has met one looks for others as often as poll_delay says."""
    monkeypatch.setattr(loop, "WAIT_S", 1)
    async with app.worker(plain, poll_delay=0.1) as one:
        for n in range(5):
            await (await app.enqueue(plain, n)).result(30)
        assert not one.leases.must_look
        await wait(app, 1)
        content = {"t": None, "f": "plain", "a": [1], "k": {}, "et": 1}
        await app.redis.set("arq:job:theirs", app.serializer.dump(content))
        await app.redis.zadd(QUEUE, {"theirs": await app.now()})  # as arq does
        await app.result_of("theirs", 30)
        await until(lambda: one.leases.must_look, 30)


async def test_a_user_who_may_not_wait(own_app: App) -> None:
    """Then the worker looks at each poll_delay, and not all the time."""
    app = own_app
    rules = {"enabled": True, "nopass": True, "keys": "*", "channels": "*"}
    await app.redis.acl_setuser("hasty", commands=["+@all", "-blpop"], **rules)
    try:
        async with App(app.url.replace("//", "//hasty:x@")).worker(
            plain, **NEVER | {"poll_delay": 0.5}
        ) as one:
            await (await app.enqueue(plain, 1)).result(30)
            before = await calls(app, "evalsha")
            await asyncio.sleep(3)
            assert await calls(app, "evalsha") - before <= 20
            assert not one.leases.held
    finally:
        await app.redis.acl_deluser("hasty")


async def test_without_workers_few_entries_are_kept(app: App, notes: Notes) -> None:
    for n in range(100):
        await app.enqueue(job, n)
    await app.client.enqueue_many(job, [{"name": n} for n in range(100, 200)])
    assert 0 < await app.redis.llen(WAKE) <= 32
    async with app.worker(job):
        await until(lambda: len(notes.ends()) == 200, 30)
        await wait(app, 1)
        assert not await app.redis.exists(WAKE)


@pytest.mark.slow
async def test_a_worker_stops_while_it_waits(app: App, processes: Processes) -> None:
    worker = await processes.start(**NEVER)
    await wait(app, 1)
    assert await worker.stop() == 0
    await wait(app, 0)


async def test_the_list_is_of_another_type(app: App, notes: Notes) -> None:
    """Then workers look at each poll_delay."""
    await app.redis.set(WAKE, "no")
    async with app.worker(job):
        await app.enqueue(job, "a")
        await notes.ended("a", timeout=30)
