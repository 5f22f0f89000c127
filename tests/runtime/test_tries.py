"""Every failure is tried again, and nothing a task does ends the worker."""

import asyncio
import json
import logging
import re
import threading
from collections import Counter
from functools import partial
from typing import Any

import pytest
from arq import Retry, cron, func
from arq.worker import RetryJob
from arq_runtime.worker import ends
from arq_runtime.worker.job import Context
from arq_runtime.worker.options import no_retry
from kit import QUEUE, App, until
from noting import Notes, fail, job, note, plain, sync
from processes import Processes

ALWAYS = ["ValueError", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "Odd"]


class Odd(BaseException):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


ERRORS: dict[str, type[BaseException]] = {
    error.__name__: error
    for error in (
        *(ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, Odd),
        *(KeyError, TimeoutError, RetryJob, asyncio.CancelledError),
    )
}


async def raises(
    ctx: Context, name: str, error: str, times: int = 99, size: int = 1
) -> int:
    """It raises so many times; it returns which try it is."""
    note(ctx, "start", name)
    if ctx["job_try"] <= times:
        if error == "Mute":
            raise Mute
        raise ERRORS[error]("no" * size)
    return int(ctx["job_try"])


@no_retry(TimeoutError, KeyError)
async def picky(
    ctx: Context, name: str, wait: float = 0.0, error: str = "KeyError"
) -> None:
    note(ctx, "start", name)
    await asyncio.sleep(wait)
    raise ERRORS[error](name)


async def defer(ctx: Context, name: str, seconds: float) -> int:
    note(ctx, "start", name)
    if ctx["job_try"] == 1:
        raise Retry(defer=seconds)
    return int(ctx["job_try"])


async def stubborn(ctx: Context, name: str) -> None:
    """Its clean-up fails."""
    note(ctx, "start", name)
    try:
        await asyncio.sleep(600)
    finally:
        raise ValueError("clean-up")


brief = func(job, name="brief", timeout=0.1)


async def is_drained(app: App) -> bool:
    return await app.queued() == 0


# --- One job after another ------------------------------------------------------------


@pytest.mark.parametrize("error", ALWAYS)
async def test_an_error_is_tried_again(app: App, notes: Notes, error: str) -> None:
    await app.enqueue("raises", "a", error, _job_id="a")
    await app.enqueue("job", "neighbour", 0.3, _job_id="neighbour")
    async with app.worker(raises, job, retry_delay=0.02):
        result = await app.result_of("a")
        assert (await app.result_of("neighbour"))["s"]
    assert len(notes.starts("neighbour")) == 1
    assert len(notes.starts("a")) == 3
    assert result["s"] is False
    assert f"{error}: no" in json.dumps(result["r"])
    kept = await app.failed("a")
    assert (kept["error"], kept["tries"], kept["reason"]) == (
        f"{error}: no",
        "3",
        "failed",
    )
    assert error in kept["traceback"] and "in raises" in kept["traceback"]
    assert json.loads(kept["job"])["a"] == ["a", error]
    assert int(kept["st"]) <= int(kept["ft"]) <= await app.now()
    assert await app.redis.zscore(f"{QUEUE}:failed", "a") == int(kept["ft"])
    tries = [json.loads(text) for text in await errors_of(app, "a")]
    assert [entry["try"] for entry in tries] == [1, 2, 3]
    assert {entry["error"] for entry in tries} == {f"{error}: no"}
    for kind in ("job", "retry", "in-progress"):
        assert not await app.redis.keys(f"arq:{kind}:*"), kind


async def errors_of(app: App, job_id: str) -> list[bytes]:
    errors: list[bytes] = await app.redis.lrange(f"arq:errors:{job_id}", 0, -1)
    return errors


@pytest.mark.parametrize("error", ALWAYS)
async def test_a_try_that_succeeds_ends_it(app: App, notes: Notes, error: str) -> None:
    await app.enqueue("raises", "a", error, times=1, _job_id="a")
    await app.burst(raises)
    assert len(notes.starts("a")) == 2
    result = await app.result_of("a")
    assert (result["s"], result["r"], result["t"]) == (True, 2, 2)
    assert not await app.failed("a")
    for kind in ("job", "retry", "in-progress"):
        assert not await app.redis.keys(f"arq:{kind}:*"), kind


async def test_an_error_that_cannot_be_printed_is_reported_by_its_type(
    app: App, notes: Notes
) -> None:
    await app.enqueue("raises", "a", "Mute", _job_id="a")
    await app.burst(raises)
    assert len(notes.starts("a")) == 3
    assert "Mute" in json.dumps((await app.result_of("a"))["r"])
    assert "Mute" in (await app.failed("a"))["error"]


async def test_a_large_error_is_cut(
    app: App, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "arq.worker")
    await app.enqueue("raises", "a", "ValueError", size=5_000_000, _job_id="a")  # 10 MB
    await app.burst(raises)
    kept = await app.failed("a")
    assert len(kept["error"].encode()) <= 10_100
    assert len(kept["traceback"].encode()) <= 10_100
    assert len(await app.redis.get("arq:result:a")) < 12_000
    errors = await errors_of(app, "a")
    assert errors and max(map(len, errors)) < 1_200
    assert max(map(len, caplog.text.splitlines())) < 5_000
    assert len(caplog.text) < 30_000


async def test_a_timeout_is_tried_again(app: App, notes: Notes) -> None:
    await app.enqueue("brief", "a", 60, _job_id="a")
    await app.burst(brief)
    assert len(notes.starts("a")) == 3
    kept = await app.failed("a")
    assert kept["reason"] == "timeout"
    assert kept["error"].startswith("TimeoutError")


async def test_the_pause_before_a_retry_doubles(
    app: App, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "arq.worker")
    await app.enqueue("fail", "a", _job_id="a")
    await app.burst(fail, retry_delay=0.1)
    first, second, third = (event.at for event in notes.starts("a"))
    assert second - first >= 0.1
    assert third - second >= 0.2
    pauses = re.findall(r"a:fail failed.*again in (\S+)s\)", caplog.text)
    assert [float(pause) for pause in pauses] == [
        pytest.approx(0.1125, abs=0.02),  # 0.1 s, and up to a quarter more
        pytest.approx(0.225, abs=0.03),
    ]


async def test_max_tries_of_a_task(app: App, notes: Notes) -> None:
    await app.enqueue("single", "a", _job_id="a")
    await app.burst(func(fail, name="single", max_tries=1))
    assert len(notes.starts("a")) == 1
    assert (await app.failed("a"))["tries"] == "1"


@pytest.mark.parametrize(
    ("task", "arguments", "tries"),
    [
        ("picky", {}, 1),
        ("picky_brief", {"wait": 60}, 1),
        ("picky", {"error": "ValueError"}, 3),  # which it does not name
    ],
)
async def test_opting_out_of_retries(
    app: App, notes: Notes, task: str, arguments: dict[str, Any], tries: int
) -> None:
    await app.enqueue(task, "a", **arguments, _job_id="a")
    await app.burst(picky, func(picky, name="picky_brief", timeout=0.1))
    assert len(notes.starts("a")) == tries
    assert (await app.result_of("a"))["s"] is False


async def test_arqs_own_retries(app: App, notes: Notes) -> None:
    again = await app.enqueue("raises", "again", "RetryJob", times=2)
    later = await app.enqueue("defer", "later", 0.3)
    await app.burst(raises, defer, retry_delay=60)
    assert await again.result() == 3
    assert len(notes.starts("again")) == 3
    assert await later.result() == 2
    first, second = notes.starts("later")
    assert second.at - first.at >= 0.3


async def test_a_cancellation_that_is_not_the_workers_is_a_failure(
    app: App, notes: Notes
) -> None:
    """Of a library that cancels its caller, say: tried again, after a pause."""
    await app.enqueue("raises", "once", "CancelledError", times=1, _job_id="once")
    await app.enqueue("raises", "ever", "CancelledError", _job_id="ever")
    await app.burst(raises, retry_delay=0.1)
    assert (await app.result_of("once"))["r"] == 2
    first, second, third = notes.starts("ever")
    assert second.at - first.at >= 0.1
    assert third.at - second.at >= 0.2
    assert (await app.failed("ever"))["error"] == "CancelledError: no"


@pytest.mark.parametrize(("task", "wait"), [(stubborn, []), (job, [600])])
async def test_an_aborted_job_is_not_run_again(
    app: App, notes: Notes, task: Any, wait: list[float]
) -> None:
    async with app.worker(task, poll_delay=0.05):
        await app.enqueue(task, "a", *wait, _job_id="a")
        await notes.started("a")
        await app.redis.zadd("arq:abort", {"a": await app.now()})
        result = await app.result_of("a")
    assert len(notes.starts("a")) == 1
    assert result["s"] is False
    assert "CancelledError" in json.dumps(result["r"])
    assert await app.redis.zscore("arq:abort", "a") is None


# --- Pauses, hooks, results -----------------------------------------------------------


async def test_a_retry_delay_of_days(app: App, notes: Notes) -> None:
    async with app.worker(fail, retry_delay=800_000):
        job_id = (await app.enqueue(fail, "a", 1)).job_id
        await notes.started("a")
        await until(lambda: app.redis.exists(f"arq:errors:{job_id}"))
        delay = await app.redis.zscore(QUEUE, job_id) - await app.now()
        assert 799_000_000 < delay < 1_001_000_000
        for key in (f"arq:job:{job_id}", f"arq:retry:{job_id}"):
            assert await app.redis.pttl(key) > delay
        await app.redis.zadd(QUEUE, {job_id: await app.now()})  # the days have passed
        await app.wake()
        assert (await app.result_of(job_id))["r"] == 2


@pytest.mark.slow
async def test_a_job_that_kills_its_worker_is_given_up(
    app: App, processes: Processes, notes: Notes
) -> None:
    await app.enqueue("deadly", "a", _job_id="a")
    for _ in range(2):
        worker = await processes.start(lease=0.5, max_tries=2, ready=False)
        assert await worker.exit_code() == -9
    async with app.worker(func(job, name="deadly"), max_tries=2):
        await until(lambda: app.redis.exists("arq:failed:a"))
    kept = await app.failed("a")
    assert (kept["reason"], kept["tries"]) == ("killed", "3")
    assert "killed" in kept["error"]
    assert len(notes.starts("a")) == 2


async def test_cron_jobs_are_tried_as_said_and_repeated_after_a_stop(
    app: App, notes: Notes
) -> None:
    async def tick(ctx: Context) -> None:
        note(ctx, "start", f"tick-{ctx['job_try']}")
        raise ValueError("no")

    async def twice(ctx: Context) -> None:
        if ctx["job_try"] < 2:
            raise ValueError("no")
        note(ctx, "end", "twice")

    async def cut_short(ctx: Context) -> None:
        note(ctx, "start", f"cut-{ctx['job_try']}")
        await asyncio.sleep(ctx["seconds"])
        note(ctx, "end", "cut")

    def cron_jobs(**options: Any) -> list[Any]:
        return [
            cron(tick, month=1, **options),
            cron(twice, month=1, max_tries=2, **options),
            cron(cut_short, month=1, **options),
        ]

    jobs = cron_jobs(run_at_startup=True)
    async with app.worker(cron_jobs=jobs, ctx={"seconds": 60}):
        await notes.ended("twice")
        await notes.started("cut-1")
        await until(lambda: app.queued())
    assert not notes.ends("cut")
    async with app.worker(cron_jobs=cron_jobs(), ctx={"seconds": 0}):
        await notes.ended("cut")
    assert len(notes.starts("cut-1")) == 2  # a stop is no try
    assert len(notes.starts("tick-1")) == 1
    assert not notes.starts("tick-2")


async def test_hooks_that_raise(
    app: App, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    async def on_job_start(ctx: Context) -> None:
        raise ValueError("in on_job_start")

    async def on_job_end(ctx: Context) -> None:
        raise ValueError("in on_job_end")

    async def after_job_end(ctx: Context) -> None:
        raise ValueError("in after_job_end")

    async def on_failure(ctx: Context, exc: BaseException) -> None:
        note(ctx, "failure", f"{ctx['job_id']}-{ctx['job_try']}-{type(exc).__name__}")
        raise ValueError("in on_failure")

    hooks = on_job_start, on_job_end, after_job_end, on_failure
    await app.enqueue("raises", "a", "ValueError", _job_id="a")
    await app.enqueue("raises", "b", "SystemExit", times=1, _job_id="b")
    await app.enqueue("job", "c", _job_id="c")
    await app.burst(raises, job, max_tries=2, **{hook.__name__: hook for hook in hooks})
    assert (await app.result_of("a"))["s"] is False
    assert (await app.result_of("b"))["r"] == 2
    assert (await app.result_of("c"))["r"] == "c"
    assert [event.name for event in notes.events(what="failure")] == ["a-2-ValueError"]
    for hook in hooks:
        assert f"in {hook.__name__}" in caplog.text
    told = Counter(text for text in caplog.messages if "hook" in text)
    assert told == {
        "A hook failed, at a:raises": 3 * 2 + 1,
        "A hook failed, at b:raises": 3 * 2,
        "A hook failed, at c:job": 3,
    }


@pytest.mark.parametrize("keep", ["forever", "not"])
async def test_how_long_results_are_kept(app: App, notes: Notes, keep: str) -> None:
    settings = (
        {"keep_result_forever": True} if keep == "forever" else {"keep_result": 0}
    )
    await app.redis.zadd(QUEUE, {"gone": 1})  # its job has expired
    await app.enqueue("job", "ends", _job_id="ends")
    await app.enqueue("fail", "fails", _job_id="fails")
    await app.enqueue("brief", "times out", 60, _job_id="timeout")
    await app.enqueue("job", "aborted", 600, _job_id="aborted")
    await app.enqueue("nowhere", _job_id="unknown")
    await app.enqueue("job", bad=1, _job_id="poison")
    since = int(await app.now()) - 3_700_000
    await app.redis.set("arq:unknown:unknown", since, px=7_200_000)
    async with app.worker(
        *(job, fail, brief), max_tries=1, poll_delay=0.05, **settings
    ):
        await notes.started("aborted")
        await app.redis.zadd("arq:abort", {"aborted": await app.now()})
        await until(lambda: is_drained(app))
    ids = ["ends", "fails", "timeout", "gone", "unknown", "poison"]
    ttls = {job_id: await app.redis.ttl(f"arq:result:{job_id}") for job_id in ids}
    assert set(ttls.values()) == {-1 if keep == "forever" else -2}, ttls
    aborted = await app.redis.ttl("arq:result:aborted")  # for who waits for it
    assert aborted == -1 if keep == "forever" else 0 <= aborted <= 5
    reasons = {
        job_id: (await app.failed(job_id)).get("reason") for job_id in [*ids, "aborted"]
    }
    assert reasons == {
        "ends": None,
        "fails": "failed",
        "timeout": "timeout",
        "aborted": None,
        "gone": "expired",
        "unknown": "unknown",
        "poison": "failed",
    }


# --- Threads --------------------------------------------------------------------------


async def test_a_plain_function_runs_in_a_thread(app: App, notes: Notes) -> None:
    together = threading.Barrier(3, timeout=60)

    def meet(ctx: Context, n: int) -> int:
        together.wait()  # for all of them
        return n

    meet.__qualname__ = "meet"
    jobs = [await app.enqueue("meet", n) for n in range(3)]
    async with app.worker(meet, max_jobs=3):
        assert [await waiting.result(25) for waiting in jobs] == [0, 1, 2]


async def test_a_thread_that_outlives_its_job_holds_a_slot(
    app: App, notes: Notes
) -> None:
    async with app.worker(sync, job_timeout=0.1, max_jobs=1, max_tries=1):
        await app.enqueue("sync", "late", 3.0, _job_id="late")
        assert (await app.result_of("late"))["s"] is False
        await (await app.enqueue("sync", "other")).result(25)
    assert [(event.what, event.name) for event in notes.events()][:3] == [
        ("start", "late"),
        ("end", "late"),
        ("start", "other"),
    ]


@pytest.mark.slow
async def test_a_worker_waits_for_its_threads(
    app: App, processes: Processes, notes: Notes
) -> None:
    worker = await processes.start()
    job_id = (await app.enqueue("sync", "a", 1.0)).job_id
    await notes.started("a")
    assert await worker.stop() == 0
    assert (await app.result_of(job_id))["s"]


# --- Two versions of the code ---------------------------------------------------------


async def test_a_rolling_deploy_loses_no_job(
    app: App,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ends, "UNKNOWN_PAUSE_MS", 300)
    total = 400

    async def fresh(ctx: Context, name: int) -> int:
        note(ctx, "end", name)
        return name

    for start, task in enumerate(("job", "fresh")):
        names = range(start, total, 2)
        calls = [{"name": name, "_job_id": f"j{name}"} for name in names]
        await app.client.enqueue_many(task, calls)
    async with app.worker(job, max_jobs=20, ctx={"who": "old"}):
        await until(lambda: "'fresh'" in caplog.text)
        new = func(fresh, name="fresh")
        async with app.worker(job, new, max_jobs=20, ctx={"who": "new"}):
            await until(lambda: is_drained(app))
    results = await app.redis.mget([f"arq:result:j{n}" for n in range(total)])
    assert all(json.loads(result)["r"] == n for n, result in enumerate(results))
    assert sorted(int(event.name) for event in notes.ends()) == list(range(total))
    assert {event.who for event in notes.ends()} == {"old", "new"}
    assert len([text for text in caplog.messages if "'fresh'" in text]) == 1
    assert not await app.redis.keys("arq:unknown:*")


async def test_a_task_that_nobody_knows_fails_after_an_hour(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    await app.enqueue("nowhere", 1, _job_id="a")
    async with app.worker(job):
        await until(lambda: app.redis.exists("arq:unknown:a"))
        assert "'nowhere'" in caplog.text
        # put back, with a pause
        assert not await app.redis.exists("arq:in-progress:a", "arq:result:a")
        assert await app.redis.zscore(QUEUE, "a") > await app.now()
        assert int(await app.redis.get("arq:retry:a") or 0) == 0
        since = int(await app.redis.get("arq:unknown:a"))
        await app.redis.set("arq:unknown:a", since - 3_700_000, px=7_200_000)
        await app.redis.zadd(QUEUE, {"a": await app.now()})
        await app.wake()
        await until(lambda: app.redis.exists("arq:failed:a"))
    kept = await app.failed("a")
    assert kept["reason"] == "unknown"
    assert "'nowhere'" in kept["error"]


# --- What cannot be run, counted or told ----------------------------------------------


async def test_a_poisoned_payload_fails_alone(app: App, notes: Notes) -> None:
    for n, payload in enumerate(POISON):
        await app.put(f"poison-{n}", payload)
    async with app.worker(job, max_tries=1):
        assert await (await app.enqueue(job, "a")).result(25) == "a"
        for n, payload in enumerate(POISON):
            assert (await app.result_of(f"poison-{n}"))["s"] is False, payload
    assert await app.queued() == 0


POISON = [
    b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00}\x94.",
    b'{"t":null,"f":"job","a":[1',
    b'{"t":null,"f":["job"],"a":[],"k":{},"et":1}',
    b'{"t":null,"f":"job","a":[],"k":{"__arq__":"UUID","value":"x"},"et":1}',
    b'{"t":null,"f":"job","a":7,"k":{},"et":1}',
    b'{"t":"x","f":"job","a":[1],"k":{},"et":1}',
    b'{"t":null,"f":"job","a":[1],"k":{},"et":"x"}',
    b'{"t":null,"f":"job","a":[1],"k":{},"et":1e99}',
    b'{"t":null,"f":"job","a":[],"k":{"no_such_argument":1},"et":1}',
    b"[]",
    b"null",
    b"",
]


async def test_pauses_that_redis_cannot_count_are_a_century(
    app: App, notes: Notes
) -> None:
    """As of a job that waits for something with Retry, over and over, and then fails."""
    for job_id, tries in (("often", 60), ("very often", 1100)):
        await app.enqueue("fail", job_id, times=9999, _job_id=job_id)
        await app.redis.set(f"arq:retry:{job_id}", tries)
    await app.enqueue("defer", "far", 1e17, _job_id="far")
    await app.enqueue("defer", "long ago", -1e9, _job_id="long ago")
    century = 100 * 365 * 24 * 3600 * 1000
    async with app.worker(fail, defer, plain, max_tries=9999):
        assert (await app.result_of("long ago"))["r"] == 2
        for job_id in ("often", "very often", "far"):
            await until(partial(app.redis.exists, f"arq:errors:{job_id}"))
            due = await app.redis.zscore(QUEUE, job_id) - await app.now()
            assert century - 20_000 < due <= century
        assert await (await app.enqueue(plain, 1)).result(25) == 1


async def test_a_failure_that_cannot_be_told_takes_no_slot(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    class Untold(Exception):
        @property
        def extra(self) -> None:
            raise ValueError("no")

    async def odd(ctx: Context) -> None:
        raise Untold

    async with app.worker(
        func(odd, name="odd"), plain, max_jobs=1, max_tries=2, lease=0.3
    ):
        await app.enqueue("odd", _job_id="a")
        await until(lambda: "The end of a:odd was not recorded" in caplog.text)
        assert await (await app.enqueue(plain, 1)).result(25) == 1
        await until(lambda: app.redis.exists("arq:failed:a"))
    assert "max 2 retries" in (await app.failed("a"))["error"]
