"""Operating the queue: failed, waiting and running jobs, progress, a pause."""

import asyncio
import json
from typing import Any

import pytest
import redis.asyncio
from arq import cron, func
from arq.worker import Worker as ArqWorker
from arq_runtime.worker.observers import progress
from arq_runtime.worker.observers.progress import Progress, set_progress
from kit import QUEUE, App, until
from support import OwnRedis

Ctx = dict[str, Any]


async def fail(ctx: Ctx, text: str = "no") -> None:
    raise ValueError(text)


async def fail_again(ctx: Ctx) -> None:
    raise RuntimeError("again")


async def fine(ctx: Ctx, seconds: float = 0.0, **ignored: Any) -> dict[str, float]:
    await asyncio.sleep(seconds)
    return {"seconds": seconds}


async def chatty(
    ctx: Ctx, lines: int, seconds: float = 0.0, percent: float = 50.0
) -> None:
    for line in range(lines):
        await set_progress(ctx, percent, f"line {line} <b>")
    await asyncio.sleep(seconds)


async def nightly(ctx: Ctx) -> None: ...


FAIL = func(fail, name="fail", max_tries=1)
TASKS = (FAIL, func(fail_again, name="fail_again", max_tries=2), fine, chatty)
OPTIONS: dict[str, Any] = {
    "cron_jobs": [cron(nightly, name="nightly", hour=3, minute=0)],
    "health_check_interval": 0.1,
    "retry_delay": 3600,
    "job_completion_wait": 0,
}


def record_of(task: str, at: int, **more: str) -> dict[str, str]:
    """A failed job as lua/finish.lua keeps it.

    Args:
        task: The task's name.
        at: When it failed, in milliseconds since 1970.
        more: Other fields than the usual ones.
    """
    job: dict[str, Any] = {"t": None, "f": task, "a": [], "k": {}, "et": at}
    record = {"job": json.dumps(job, separators=(",", ":")), "task": task}
    record |= {"error": "ValueError: no", "traceback": "", "tries": "3"}
    return record | {"reason": "failed", "st": str(at), "ft": str(at), **more}


async def keep_failed(
    client: Any, job_id: str, task: str, at: int, **more: str
) -> None:
    """Put a failed job there, by a connection or a pipeline."""
    await client.hset(f"arq:failed:{job_id}", mapping=record_of(task, at, **more))
    await client.zadd(f"{QUEUE}:failed", {job_id: at})


async def has_failed(app: App, job_id: str) -> float:
    """When, in milliseconds since 1970; waits for it."""
    await until(lambda: app.redis.zscore(f"{QUEUE}:failed", job_id))
    return float(await app.redis.zscore(f"{QUEUE}:failed", job_id))


# --- Failed jobs ----------------------------------------------------------------------


async def test_a_failed_job_is_kept_and_can_be_run_again(app: App) -> None:
    async with app.worker(*TASKS, **OPTIONS):
        await app.enqueue("fail", text="<b>", _job_id="one")
        first = await has_failed(app, "one")
        [listed] = await app.operations.list_jobs("failed")
        shown = await app.operations.get_job("one")
        stats = await app.operations.queue_stats()
        assert listed == shown
        assert (listed.task, listed.kwargs) == ("fail", {"text": "<b>"})
        assert (listed.tries, listed.reason) == (1, "failed")
        assert listed.error == "ValueError: <b>"
        assert "Traceback" in listed.traceback and "in fail" in listed.traceback
        assert [one["error"] for one in listed.errors] == ["ValueError: <b>"]
        assert listed.started and listed.finished and listed.enqueued
        assert (stats.failed, stats.queued) == (1, 0)

        await app.operations.pause_queue()
        retries = [app.operations.retry_job("one", by="ada") for _ in range(5)]
        assert sorted(await asyncio.gather(*retries)) == [False] * 4 + [True]
        await app.operations.resume_queue()

        async def has_failed_again() -> bool:
            return await has_failed(app, "one") > first

        await until(has_failed_again)
        again = await app.operations.get_job("one")
        assert again is not None
        assert again.tries == 1
        assert [one.get("retried_by") for one in again.errors] == [None, "ada", None]
        assert again.kwargs == {"text": "<b>"}


async def test_a_discarded_job_leaves_what_undo_needs(app: App) -> None:
    await app.enqueue("fail", _job_id="one")
    await app.burst(*TASKS)
    assert await app.operations.discard_job("one")
    assert not await app.operations.discard_job("one")
    assert await app.redis.keys("*one*") == [b"arq:discarded:one"]
    assert 0 < await app.redis.ttl("arq:discarded:one") <= 3600
    assert await app.enqueue("fail", _job_id="one")


async def test_all_failed_jobs_or_those_of_a_task(app: App) -> None:
    async with app.redis.pipeline(transaction=False) as pipe:
        for i in range(1200):
            await keep_failed(pipe, f"a{i}", "fail", 1000 + i)
            await keep_failed(pipe, f"b{i}", "fail_again", 1000 + i)
        await pipe.execute()
    found = []
    for offset in (0, 500, 1000):
        page = await app.operations.list_jobs(
            "failed", task="fail", limit=500, offset=offset
        )
        found += [job.job_id for job in page]
    assert found == [f"a{i}" for i in reversed(range(1200))]
    assert await app.operations.retry_failed("fail") == 1200
    assert await app.operations.retry_failed("fail") == 0
    assert await app.operations.discard_failed("fail_again") == 1200
    assert (await app.operations.queue_stats()).queued == 1200
    assert await app.redis.keys("arq:failed:*") == []


async def test_what_cannot_be_run_again(app: App) -> None:
    await keep_failed(app.redis, "expired", "fail", 1000, job="", reason="expired")
    await app.enqueue("fine", _job_id="taken")
    await keep_failed(app.redis, "taken", "fail", 1000)
    assert not await app.operations.retry_job("expired")
    assert not await app.operations.retry_job("taken")
    assert await app.operations.discard_failed() == 2
    taken = await app.operations.get_job("taken")
    assert taken is not None
    assert (taken.task, taken.state) == ("fine", "queued")


async def test_a_job_enqueued_under_the_id_of_a_failed_one_is_failed_no_more(
    app: App,
) -> None:
    await keep_failed(app.redis, "one", "fail", 1000)
    await app.enqueue("fine", _job_id="one")
    assert (await app.operations.queue_stats()).failed == 0
    assert await app.operations.list_jobs("failed") == []


async def test_jobs_whose_record_has_gone_are_not_counted_for_ever(app: App) -> None:
    await keep_failed(app.redis, "here", "fail", 1000)
    await app.redis.zadd(f"{QUEUE}:failed", {"gone": 2000})
    jobs = await app.operations.list_jobs("failed")
    assert [job.job_id for job in jobs] == ["here"]
    assert (await app.operations.queue_stats()).failed == 1


# --- Progress -------------------------------------------------------------------------


async def progress_of(app: App, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        await app.redis.get(f"arq:progress:{job_id}") or b'{"message": ""}'
    )
    return found


async def test_progress_is_shown_and_the_last_one_stays(app: App) -> None:
    async def sets() -> int:
        stats = await app.redis.info("commandstats")
        return int(stats.get("cmdstat_set", {"calls": 0})["calls"])

    async def is_said() -> bool:
        return "line 499" in (await progress_of(app, "one"))["message"]

    async with app.worker(*TASKS, **OPTIONS | {"health_check_interval": 60}):
        before = await sets()
        await app.enqueue("chatty", 500, seconds=60, _job_id="one")
        await until(is_said)
        assert await sets() - before < 10  # enqueue's and the worker's own among them
        status = await app.lookup.get_job_status("one")
        [listed] = await app.operations.list_jobs("in_progress")
        assert status is not None and status["progress"] == listed.progress
        said = status["progress"]
        assert (said["percent"], said["message"]) == (50, "line 499 <b>")
        assert said["at"] > 1e12
        assert await app.lookup.abort_job("one")

        # said within the second before the end
        await app.enqueue("chatty", 3, _job_id="two")
        await app.result_of("two")
        assert (await progress_of(app, "two"))["message"] == "line 2 <b>"
        assert 0 < await app.redis.ttl("arq:progress:two") <= 24 * 3600

        # of another job, then, that has its id
        await app.enqueue("chatty", 1, _job_id="two", _replace=True, _defer_by=60)
        status = await app.lookup.get_job_status("two")
        assert status is not None and status["progress"] is None


@pytest.mark.parametrize(
    ("percent", "shown"), [(1e9, 100), (-1, 0), (float("nan"), 0), (2.5, 2.5)]
)
async def test_any_percentage(app: App, percent: float, shown: float) -> None:
    async def task(ctx: Ctx) -> None:
        await set_progress(ctx, percent, chr(0xD800) + "x" * 2000)
        await set_progress({}, 5)

    await app.enqueue("task", _job_id="one")
    await app.burst(func(task, name="task"))
    found = await progress_of(app, "one")
    assert found["percent"] == shown and len(found["message"]) == 1000


async def test_a_job_does_not_fail_by_its_progress(
    own_app: App, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_INTERVAL_S", 0.1)
    running, goes_on = asyncio.Event(), asyncio.Event()

    async def task(ctx: Ctx) -> int:
        running.set()
        await goes_on.wait()
        for percent in range(10):
            await set_progress(ctx, percent)
        return int(ctx["job_try"])

    async with own_app.worker(func(task, name="task")):
        job = await own_app.enqueue("task")
        await running.wait()
        own_redis.kill()
        goes_on.set()
        await asyncio.sleep(0.3)  # it is written once, and again as the job ends
        own_redis.start()
        assert (await own_app.result_of(job.job_id))["r"] == 1


def test_progress_is_of_every_worker(app: App) -> None:
    observers = app.settings(fine).observers
    assert any(isinstance(one, Progress) for one in observers)


# --- Waiting and running jobs ---------------------------------------------------------


async def test_the_states(app: App) -> None:
    async with app.worker(*TASKS, **OPTIONS):
        await app.enqueue("fine", seconds=60, _job_id="running")
        await app.enqueue("fine", _job_id="deferred", _defer_by=3600)
        await app.enqueue("fail_again", _job_id="retried")
        await app.enqueue("fine", _job_id="done")
        await app.result_of("done")
        await until(lambda: app.redis.exists("arq:errors:retried"))

        async def is_said() -> bool:
            workers = (await app.operations.queue_stats()).workers
            return [one.running for one in workers] == [["running"]]

        await until(is_said)
        states = {
            state: {job.job_id for job in await app.operations.list_jobs(state)}
            for state in ("queued", "deferred", "in_progress", "failed", "complete")
        }
        assert states == {
            "queued": set(),
            "deferred": {"deferred", "retried"},
            "in_progress": {"running"},
            "failed": set(),
            "complete": {"done"},
        }
        retried = await app.operations.get_job("retried")
        assert retried is not None
        assert (retried.error, retried.tries) == ("RuntimeError: again", 1)
        done = await app.operations.get_job("done")
        assert done is not None
        assert (done.result, done.success) == ({"seconds": 0.0}, True)
        stats = await app.operations.queue_stats()
        assert (stats.queued, stats.deferred) == (0, 2)
        assert (stats.in_progress, stats.failed) == (1, 0)
        [worker] = stats.workers
        assert {"fail", "fine"} <= set(worker.tasks)
        assert list(worker.cron) == ["nightly"]
        assert (worker.cron["nightly"].hour, worker.cron["nightly"].minute) == (3, 0)
        assert await app.operations.list_queues() == [QUEUE]


async def test_run_now(app: App) -> None:
    async with app.worker(*TASKS, **OPTIONS):
        await app.enqueue("fine", _job_id="deferred", _defer_by=3600)
        await app.enqueue("fail_again", _job_id="retried")
        await app.enqueue("fine", seconds=60, _job_id="running")
        await until(lambda: app.redis.exists("arq:in-progress:running"))
        await until(lambda: app.redis.exists("arq:errors:retried"))
        names = ("deferred", "retried", "running", "unknown")
        hurried = [await app.operations.run_now(name) for name in names]
        assert hurried == [True, True, False, False]
        await app.result_of("deferred")
        await has_failed(app, "retried")


async def test_a_paused_queue(app: App, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "arq.worker")
    goes_on = asyncio.Event()

    async def long(ctx: Ctx) -> None:
        await goes_on.wait()

    async with app.worker(*TASKS, long, **OPTIONS):
        await app.enqueue(long, _job_id="running")
        await until(lambda: app.redis.exists("arq:in-progress:running"))
        await app.operations.pause_queue()
        await app.enqueue("fine", _job_id="waits")
        goes_on.set()
        await app.result_of("running")
        await until(lambda: f"Queue {QUEUE} is paused" in caplog.text)
    caplog.clear()
    async with app.worker(*TASKS, **OPTIONS):
        await until(lambda: f"Queue {QUEUE} is paused" in caplog.text)
        assert (await app.operations.queue_stats()).paused
        assert not await app.redis.exists("arq:in-progress:waits", "arq:result:waits")
        await app.operations.resume_queue()
        await app.result_of("waits")
    assert not (await app.operations.queue_stats()).paused


@pytest.mark.parametrize("format", ["json", "pickle"])
async def test_the_jobs_of_one_task(redis_url: str, format: str) -> None:
    app = App(redis_url, format=format)
    for i in range(3):
        await app.enqueue("fail", _job_id=f"a{i}")
        await app.enqueue("fail_again", _job_id=f"b{i}")
        await app.enqueue("fine", f="fail", _job_id=f"c{i}")
        await app.enqueue("fail", _job_id=f"d{i}", _defer_by=60)
    queued = await app.operations.list_jobs("queued", task="fail", offset=1)
    deferred = await app.operations.list_jobs("deferred", task="fail", limit=1)
    assert [job.job_id for job in queued] == ["a1", "a2"]
    assert [job.job_id for job in deferred] == ["d0"]
    await app.close()


@pytest.mark.parametrize("name", ["größe", "a_task_of_" + 300 * "x"])
@pytest.mark.parametrize("format", ["json", "pickle"])
async def test_the_jobs_of_a_task_with_an_odd_name(
    redis_url: str, format: str, name: str
) -> None:
    app = App(redis_url, format=format)
    await app.enqueue(name, _job_id="odd")
    await app.enqueue("fine", _job_id="other")
    found = await app.operations.list_jobs("queued", task=name)
    assert [job.job_id for job in found] == ["odd"]
    await app.close()


async def test_failures_of_arqs_own_worker(app: App) -> None:
    """As in a project that had a queue before: they are seen while they last."""

    async def fail(ctx: Ctx) -> None:
        raise ValueError("of arq")

    await app.enqueue("fail", _job_id="one")
    worker = ArqWorker(
        [func(fail, name="fail")],
        queue_name=QUEUE,
        burst=True,
        max_tries=1,
        handle_signals=False,
        redis_settings=app.redis_settings,
        job_serializer=app.serializer.serialize,
        job_deserializer=app.serializer.deserialize,
    )
    await worker.main()
    await worker.close()
    [job] = await app.operations.list_jobs("complete")
    assert (job.job_id, job.success, job.error) == ("one", False, "ValueError: of arq")
    assert await app.operations.list_jobs("complete", queue="arq:queue") == []
    assert await app.operations.list_jobs("complete", task="fai") == []


async def test_jobs_that_cannot_be_read_hide_no_others(app: App) -> None:
    db: redis.asyncio.Redis = app.redis
    await app.enqueue("fine", _job_id="good")
    await db.set("arq:job:bad", "\x80?")
    await db.zadd(QUEUE, {"bad": 5, "good": 6})
    await db.set("arq:job:never", await db.get("arq:job:good"))
    await db.zadd(QUEUE, {"never": "inf"})
    await db.zadd(QUEUE, {b"\xff\xfe": 7})
    await db.set(b"arq:job:\xff\xfe", "?")
    queued = await app.operations.list_jobs("queued")
    tasks = {job.job_id: job.task for job in queued}
    assert tasks == {"good": "fine", "bad": "", "\\xff\\xfe": ""}
    odd = await app.operations.get_job("\\xff\\xfe")
    assert odd is not None and odd.state == "queued"
    deferred = await app.operations.list_jobs("deferred")
    assert [job.job_id for job in deferred] == ["never"]
