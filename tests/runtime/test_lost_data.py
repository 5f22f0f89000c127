"""Redis loses its data while jobs run: they run on, and their ends are recorded."""

import asyncio
import signal
from collections import Counter
from typing import Any

import pytest
from arq_runtime.worker.job import Context
from kit import QUEUE, App, until
from noting import Notes, job, note, once_slow, pause
from processes import Processes
from support import OwnRedis

pytestmark = pytest.mark.slow

NAMES = [f"j{n}" for n in range(10)]


async def fails_once(ctx: Context, name: str, wait: float = 600) -> int:
    note(ctx, "start", name)
    await pause(name, wait)
    if ctx["job_try"] == 1:
        raise ValueError("no")
    return int(ctx["job_try"])


async def lose(app: App, server: OwnRedis, how: str) -> None:
    if how == "flush":
        await app.redis.flushall()
        return
    server.kill()
    # an older dump has what was there before the jobs were claimed, or nothing
    server.start("--appendonly", "no")
    await app.redis.connection_pool.disconnect()  # those that are no more


async def are_complete(app: App, names: list[str]) -> bool:
    found = await app.redis.exists(*(f"arq:result:{name}" for name in names))
    return bool(found == len(names))


@pytest.mark.parametrize("how", ["flush", "restart", "older dump"])
async def test_running_jobs_go_on(
    own_redis: OwnRedis, notes: Notes, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    own_redis.stop()
    own_redis.start("--appendonly", "no")
    app = App(own_redis.url)
    for name in NAMES:
        await app.enqueue(job, name, 600, _job_id=name)
    if how == "older dump":
        await app.redis.save()
    async with app.worker(job, lease=2):
        await until(lambda: len(notes.starts()) == 10)
        await lose(app, own_redis, how)
        if how == "older dump":
            await asyncio.sleep(1.5)  # for some leases to be renewed, or claimed anew
        else:
            await until(lambda: "Redis has lost data" in caplog.text)
        for name in NAMES:
            notes.let_go(name)
        await until(lambda: are_complete(app, NAMES))
        assert await (await app.enqueue(job, "after")).result(25) == "after"
    starts = Counter(event.name for event in notes.starts())
    if how != "older dump":  # as worker.md says, that one may run a job once more
        assert starts == dict.fromkeys([*NAMES, "after"], 1)
    assert max(starts.values()) <= 2
    for name in NAMES:
        stored = await app.stored(name)
        assert stored and (stored["s"], stored["r"]) == (True, name)
    if how != "older dump":  # whose jobs are claimed again, and mostly recognised
        assert "another worker" not in caplog.text
    assert await app.queued() == 0
    await app.close()


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("how", ["flush", "older dump"])
async def test_a_job_that_fails_then_is_queued_again(
    own_redis: OwnRedis, notes: Notes, noticed: bool, how: str
) -> None:
    """From what the worker has: it knows of the loss by then, or learns of it."""
    own_redis.stop()
    own_redis.start("--appendonly", "no")
    app = App(own_redis.url)
    await app.enqueue(fails_once, "a", _job_id="a")
    if how == "older dump":
        await app.redis.save()
    # with one slot it claims nothing while it runs the job
    async with app.worker(fails_once, max_jobs=1, lease=1 if noticed else 60):
        await notes.started("a")
        await lose(app, own_redis, how)
        if noticed:
            await asyncio.sleep(1.2)
        notes.let_go("a")
        assert (await app.result_of("a"))["r"] == 2
    # the older dump's may be claimed in the moment in which the try's end is refused
    assert len(notes.starts("a")) <= (2 if how == "flush" else 3)
    assert await app.queued() == 0
    await app.close()


async def test_a_job_that_fails_for_good_then_can_be_run_again(
    own_app: App, notes: Notes
) -> None:
    async with own_app.worker(fails_once, max_tries=1):
        await own_app.enqueue(fails_once, "a", _job_id="a")
        await notes.started("a")
        await own_app.redis.flushall()
        notes.let_go("a")
        assert (await own_app.result_of("a"))["s"] is False
    kept = await own_app.failed("a")
    assert (kept["error"], kept["reason"]) == ("ValueError: no", "failed")
    assert await own_app.operations.retry_job("a")


@pytest.mark.parametrize("lease", [1, 60])
async def test_a_stop_gives_back_what_was_lost(
    own_app: App, own_processes: Processes, notes: Notes, lease: float
) -> None:
    worker = await own_processes.start(job_completion_wait=0, lease=lease)
    for name in NAMES:
        await own_app.enqueue("job", name, 60, _job_id=name)
    await until(lambda: len(notes.starts()) == 10)
    await own_app.redis.flushall()
    assert await worker.stop() == 0
    assert await own_app.queued() == 10
    found = await own_app.redis.exists(*(f"arq:job:{name}" for name in NAMES))
    assert found == 10


@pytest.mark.parametrize("max_jobs", [1, 5])
async def test_another_job_under_the_id_is_left_alone(
    own_app: App, notes: Notes, max_jobs: int
) -> None:
    """The first one's failure neither takes its place nor is recorded as its own."""
    async with own_app.worker(fails_once, max_jobs=max_jobs, lease=2):
        await own_app.enqueue(fails_once, "a", _job_id="a")
        await notes.started("a")
        await own_app.redis.flushall()
        await own_app.enqueue(fails_once, "b", 0.0, _job_id="a")
        notes.let_go("a")
        assert (await own_app.result_of("a"))["a"][0] == "b"
    assert [event.name for event in notes.starts()] == ["a", "b", "b"]


async def test_an_end_elsewhere_is_no_loss_where_no_result_is_kept(
    app: App, processes: Processes, notes: Notes
) -> None:
    """A frozen worker has lost its lease, not Redis its data: it must not run it."""
    settings: dict[str, Any] = {"lease": 0.5, "keep_result": 0, "max_tries": 5}
    worker = await processes.start(**settings)
    await app.enqueue("once_slow", "a", 600, True, _job_id="a")
    await notes.started("a")
    worker.freeze()
    async with app.worker(once_slow, **settings):
        await notes.ended("a")
        await until(lambda: is_gone(app, "a"))
    notes.let_go("a")
    worker.thaw()
    await until(lambda: "another worker" in worker.text)
    assert "has lost data" not in worker.text
    assert await app.queued() == 0
    assert len(notes.starts("a")) == 2
    assert await worker.stop(signal.SIGTERM) == 0


async def is_gone(app: App, job_id: str) -> bool:
    waits = await app.redis.zscore(QUEUE, job_id)
    return waits is None and not await app.redis.exists(f"arq:job:{job_id}")
