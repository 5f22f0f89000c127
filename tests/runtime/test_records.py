"""What stays of a job in Redis: its last record is the one that counts, and no more."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from arq import Retry, cron, func
from arq.connections import ArqRedis
from arq_runtime.worker import runner
from arq_runtime.worker.job import Context
from arq_runtime.worker.observers.observer import Observer
from arq_runtime.worker.observers.progress import set_progress
from kit import QUEUE, WAIT_S, App, until
from noting import Notes, fail, job, note, pause
from processes import PYTHON, Processes
from redis.exceptions import OutOfMemoryError
from support import OwnRedis


async def daily(ctx: Context, name: str, fails: bool = False) -> str:
    if fails:
        raise ValueError(name)
    return name


# --- A failure is over when its id is used again --------------------------------------


@pytest.mark.parametrize("client", ["ours", "arq's"])
async def test_a_success_takes_the_place_of_a_failure(app: App, client: str) -> None:
    async with app.worker(daily, max_tries=1, keep_result=0):
        await app.enqueue(daily, "Monday", True, _job_id="daily")
        await until(lambda: app.failed("daily"))
        if client == "ours":
            await app.enqueue(daily, "Tuesday", _job_id="daily")
        else:
            redis = ArqRedis(connection_pool=app.redis.connection_pool)
            redis.job_serializer = app.serializer.serialize
            redis.default_queue_name = QUEUE
            assert await redis.enqueue_job("daily", "Tuesday", _job_id="daily")
        await until(lambda: _is_over(app, "daily"))
    assert not await app.failed("daily")
    assert await app.operations.list_jobs("failed") == []
    assert await app.operations.retry_failed() == 0
    assert await app.queued() == 0


async def _is_over(app: App, job_id: str) -> bool:
    return not await app.redis.exists(f"arq:job:{job_id}", f"arq:failed:{job_id}")


async def test_what_is_accepted_takes_the_place_of_a_failure(app: App) -> None:
    await app.enqueue(daily, "Monday", True, _job_id="daily")
    await app.burst(daily, max_tries=1)
    assert await app.client.enqueue(daily, "Tuesday", _job_id="daily") is None
    await app.enqueue(daily, "Tuesday", _job_id="daily", _replace=True)
    found = await app.operations.get_job("daily")
    assert found and (found.state, found.args, found.error) == (
        *("queued", ("Tuesday",), ""),
    )
    assert not await app.failed("daily")
    assert (await app.operations.queue_stats()).failed == 0
    assert await app.operations.retry_failed() == 0
    await app.burst(daily)
    found = await app.operations.get_job("daily")
    assert found and (found.state, found.result, found.tries) == (
        *("complete", "Tuesday", 1),
    )
    status = await app.lookup.get_job_status("daily")
    assert status and status["args"] == ("Tuesday",)


# --- Memory ---------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"_replace": True}])
async def test_enqueue_under_an_id_heeds_maxmemory(
    own_redis: OwnRedis, options: dict[str, Any]
) -> None:
    app = App(own_redis.url)
    used = (await app.redis.info("memory"))["used_memory"]
    limit = used + 4_000_000
    await app.redis.config_set("maxmemory", limit)
    accepted = 0
    with pytest.raises(OutOfMemoryError):
        for n in range(200):
            await app.enqueue("job", "x" * 100_000, _job_id=f"j{n}", **options)
            accepted += 1
    assert 10 < accepted < 50
    assert (await app.redis.info("memory"))["used_memory"] < limit + 500_000
    assert await app.queued() == accepted
    await app.close()


async def test_the_newest_errors_of_a_job_stay(app: App) -> None:
    has_looked = asyncio.Event()

    async def poll(ctx: Context) -> int:
        if ctx["job_try"] == 130:
            await has_looked.wait()
        if ctx["job_try"] <= 150:
            raise Retry(defer=0)
        return int(ctx["job_try"])

    poll.__qualname__ = "poll"
    waiting = await app.enqueue("poll", _job_id="a")
    async with app.worker(poll, max_tries=1000):
        await until(lambda: _has_tried(app, 120))
        errors = await app.redis.lrange("arq:errors:a", 0, -1)
        assert len(errors) == 100
        assert json.loads(errors[-1])["try"] >= 119
        has_looked.set()
        assert await waiting.result(25) == 151
    assert await app.redis.llen("arq:errors:a") <= 100


async def _has_tried(app: App, times: int) -> bool:
    return int(await app.redis.get("arq:retry:a") or 0) > times


@pytest.mark.parametrize(
    ("settings", "ttl"),
    [
        ({"keep_result": 30}, (20, 30)),
        ({"keep_result": 0}, (-2, -2)),
        ({"keep_result_forever": True}, (-1, -1)),
    ],
)
async def test_progress_is_kept_as_long_as_the_result(
    app: App, settings: dict[str, Any], ttl: tuple[int, int]
) -> None:
    async def works(ctx: Context) -> None:
        await set_progress(ctx, 50, "half")

    works.__qualname__ = "works"
    await app.enqueue("works", _job_id="a")
    await app.burst(works, **settings)
    for kind in ("progress", "result"):
        assert ttl[0] <= await app.redis.ttl(f"arq:{kind}:a") <= ttl[1]


# --- Aborts ---------------------------------------------------------------------------


async def test_an_abort_of_a_cron_job_is_told_at_once(app: App, notes: Notes) -> None:
    async def long(ctx: Context) -> None:
        note(ctx, "start", ctx["job_id"])
        await asyncio.sleep(60)

    jobs = [cron(long, month=1, run_at_startup=True)]
    async with app.worker(cron_jobs=jobs):
        await until(notes.starts)
        abort = app.lookup.abort_job(notes.starts()[0].name, timeout=600)
        assert await asyncio.wait_for(abort, WAIT_S)


# --- Who is told of a failure ---------------------------------------------------------


class Failures(Observer):
    """Notes what Sentry would be told."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def failed(self, job: Any, exc: BaseException) -> None:
        self.found.append(job.job_id)


async def test_a_failure_is_told_once_it_is_recorded(app: App, notes: Notes) -> None:
    async def on_failure(ctx: Context, exc: BaseException) -> None:
        kept = await app.failed(ctx["job_id"])
        note(ctx, kept.get("error", "not recorded"), ctx["job_id"])

    failures = Failures()
    await app.enqueue(daily, "a", True, _job_id="a")
    options = {"on_failure": on_failure, "observers": [failures]}
    await app.burst(daily, max_tries=2, **options)
    assert [(event.what, event.name) for event in notes.events()] == [
        ("ValueError: a", "a")
    ]
    assert failures.found == ["a"]


async def test_a_failure_that_is_not_recorded_is_not_told(
    app: App, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    """Since another worker has the job by now."""
    told = []

    async def on_failure(ctx: Context, exc: BaseException) -> None:
        told.append(ctx["job_id"])

    failures = Failures()
    once_late = func(fail_late, name="fail_late")
    options: dict[str, Any] = {
        "on_failure": on_failure,
        "observers": [failures],
        "max_tries": 1,
    }
    async with app.worker(once_late, **options):
        await app.enqueue("fail_late", _job_id="a")
        await notes.started("a")
        await app.redis.set("arq:in-progress:a", "another worker's", px=600_000)
        notes.let_go("a")
        await until(lambda: "was run by another worker, too: dropped" in caplog.text)
        await asyncio.sleep(0.1)
    assert not told and not failures.found
    assert not await app.failed("a")


async def fail_late(ctx: Context) -> None:
    note(ctx, "start", ctx["job_id"])
    await pause(ctx["job_id"], 600)
    raise ValueError("late")


async def test_a_hook_that_hangs_is_ended(
    app: App,
    notes: Notes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "HOOK_S", 0.2)

    async def on_failure(ctx: Context, exc: BaseException) -> None:
        await asyncio.sleep(60)

    async with app.worker(fail, job, max_jobs=1, max_tries=1, on_failure=on_failure):
        await app.enqueue(fail, "a", _job_id="a")
        # it holds up no other job meanwhile
        assert await (await app.enqueue(job, "b")).result(25) == "b"
        await until(lambda: "A hook failed, at a:fail" in caplog.text)
    assert runner.HOOK_S == 0.2


# --- Clocks ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("days", [-40, 40])
async def test_a_worker_whose_clock_is_wrong_drops_nothing(
    app: App, processes: Processes, notes: Notes, days: int
) -> None:
    """Neither other workers from the list, nor what has failed, nor its queue."""
    await app.enqueue(fail, "a", _job_id="failed")
    async with app.worker(fail, job, max_tries=1):
        await until(lambda: app.failed("failed"))
        await processes.start(
            paths=[Path(__file__).parent / "clock"],
            env={"SKEW": str(days * 24 * 3600)},
            command=["env", PYTHON, "-m", "arq", "fault_tasks.WorkerSettings"],
        )
        await until(lambda: _workers(app, 2))
        await asyncio.sleep(0.2)
        assert await _workers(app, 2)
        assert (await app.operations.queue_stats()).failed == 1
        assert await app.operations.list_queues() == [QUEUE]
        assert await app.operations.retry_job("failed")


async def _workers(app: App, count: int) -> bool:
    return len((await app.operations.queue_stats()).workers) == count
