"""Idle workers wait for jobs: an enqueue wakes as many as it has jobs for, not all."""

from contextlib import AsyncExitStack

from kit import QUEUE, App, until
from noting import Notes, job, plain
from processes import Processes
from test_lease import calls

WAKE = f"{QUEUE}:wake"
#: No worker looks by itself, but for once when it starts.
NEVER = {"poll_delay": 600, "health_check_interval": 600}


async def wait(app: App, workers: int) -> None:
    """Until so many workers wait for jobs."""

    async def all_wait() -> bool:
        return len(await app.waiting()) == workers

    await until(all_wait, 30)


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


async def test_the_woken_worker_is_killed(
    app: App, processes: Processes, notes: Notes
) -> None:
    first = await processes.start(**NEVER)
    await wait(app, 1)
    first.freeze()  # it is the first to be woken, and cannot do anything about it
    async with app.worker(job, **NEVER):
        await wait(app, 2)
        await app.enqueue(job, "a")
        first.kill()
        await notes.ended("a", timeout=30)
        await app.enqueue(job, "b")
        await notes.ended("b", timeout=30)


async def test_without_workers_few_entries_are_kept(app: App, notes: Notes) -> None:
    for n in range(100):
        await app.enqueue(job, n)
    await app.client.enqueue_many(job, [{"name": n} for n in range(100, 200)])
    assert 0 < await app.redis.llen(WAKE) <= 32
    async with app.worker(job):
        await until(lambda: len(notes.ends()) == 200, 30)
        await wait(app, 1)
        assert not await app.redis.exists(WAKE)


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
