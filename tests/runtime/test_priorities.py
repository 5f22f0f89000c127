"""Priorities: which of the jobs that are due starts first."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arq import Retry
from arq_runtime.limits import limit, priority
from arq_runtime.worker.job import Context
from kit import QUEUE, App, until


@pytest.fixture
def started() -> list[str]:
    STARTED.clear()
    return STARTED


STARTED: list[str] = []


async def task(ctx: Context, name: str) -> int:
    STARTED.append(name)
    return int(ctx["score"])


@priority(5)
async def urgent(ctx: Context, name: str) -> None:
    STARTED.append(name)


@priority(9)
async def tried_again(ctx: Context) -> None:
    STARTED.append(f"try {ctx['job_try']}")
    if ctx["job_try"] == 1:
        raise Retry(defer=0.1)
    if ctx["job_try"] == 2:
        raise Retry(defer=0)


async def blocking(ctx: Context) -> None:
    """It holds its slot until `goes_on` is set."""
    STARTED.append("blocking")
    await ctx["goes_on"].wait()


async def blocked(app: App) -> None:
    """Have the only slot held."""
    await app.enqueue(blocking)
    await until(lambda: "blocking" in STARTED)
    STARTED.remove("blocking")


async def enqueue(app: App, *names: str, **options: Any) -> None:
    calls = [{"name": name, **options} for name in names]
    assert all(await app.client.enqueue_many(task, calls))


def names(letter: str, count: int) -> list[str]:
    return [f"{letter}{number:03}" for number in range(count)]


@pytest.mark.slow
async def test_higher_ones_start_first_and_each_in_order(
    app: App, started: list[str]
) -> None:
    app.settings(task, urgent)
    lows, highs, mids = names("low", 30), names("high", 1500), names("mid", 30)
    await enqueue(app, *lows)
    await enqueue(app, *mids, _priority=4)
    for name in ("task's 1", "task's 2"):
        await app.enqueue(urgent, name)
    await app.enqueue(urgent, "lowered", _priority=0)
    await enqueue(app, *highs, _priority=9)
    await app.burst(task, urgent, max_jobs=1, strict_priority=True, log_results=False)
    expected = [*highs, "task's 1", "task's 2", *mids, *lows, "lowered"]
    assert started == expected


@pytest.mark.parametrize("slots", [1, 10])
async def test_the_others_have_a_share(
    app: App, started: list[str], slots: int
) -> None:
    app.settings(task)
    highs, mids, lows = names("high", 200), names("mid", 5), names("low", 5)
    await enqueue(app, *highs, _priority=9)
    await enqueue(app, *mids, _priority=4)
    await enqueue(app, *lows)
    await app.burst(task, max_jobs=slots)
    others = [place for place, name in enumerate(started) if name[0] != "h"]
    assert others == [9 + 10 * number for number in range(10)]
    # the oldest of them first
    assert [started[place] for place in others] == [*mids, *lows]


async def test_one_that_is_due_later_comes_first_then(
    app: App, started: list[str]
) -> None:
    goes_on = asyncio.Event()

    async def are_due() -> bool:
        return not await app.operations.list_jobs("deferred")

    async with app.worker(task, blocking, max_jobs=1, ctx={"goes_on": goes_on}):
        await blocked(app)
        await enqueue(app, *names("low", 20))
        await enqueue(app, "by", _priority=1, _defer_by=3)
        soon = datetime.now(UTC) + timedelta(seconds=3)
        await enqueue(app, "until", _priority=2, _defer_until=soon)
        assert not await are_due()
        await until(are_due)
        goes_on.set()
        await until(lambda: len(started) == 22)
        assert started[:2] == ["until", "by"]
        assert await app.redis.zcard(f"{QUEUE}:looks") == 0


async def test_a_retry_keeps_the_priority(app: App, started: list[str]) -> None:
    goes_on = asyncio.Event()
    tasks = task, tried_again, blocking
    async with app.worker(*tasks, max_jobs=1, ctx={"goes_on": goes_on}):
        await app.enqueue(tried_again)
        await until(lambda: started)
        await blocked(app)
        await enqueue(app, *names("low", 20))
        await asyncio.sleep(0.5)  # the second try is due
        goes_on.set()
        await until(lambda: len(started) == 23)
        # The slot is free, and taken by another, before the try's end is recorded.
        assert started.index("try 2") <= 2 and started.index("try 3") <= 4


async def test_a_killed_workers_job_keeps_it_too(app: App, started: list[str]) -> None:
    goes_on = asyncio.Event()
    worker = app.new_worker(task, lease=3)
    worker._open()
    worker.leases._claimed = lambda *job: None  # type: ignore[method-assign]
    await enqueue(app, "lost", _priority=3)
    await worker.leases.claim(lambda: 1)  # and is heard of no more
    async with app.worker(task, blocking, max_jobs=1, ctx={"goes_on": goes_on}):
        await blocked(app)
        await enqueue(app, *names("low", 20))
        await asyncio.sleep(3.1)  # its lease has ended
        goes_on.set()
        await until(lambda: len(started) == 21)
        assert started[0] == "lost"


async def test_when_it_is_due_is_what_is_seen(app: App, started: list[str]) -> None:
    app.settings(task)
    before = datetime.now(UTC) - timedelta(seconds=2)
    job = await app.enqueue(task, "seen", _priority=9)
    status = await app.lookup.get_job_status(job.job_id)
    assert status is not None and status["status"] == "queued"
    assert before.timestamp() * 1000 <= status["score"] <= await app.now()
    (listed,) = await app.operations.list_jobs("queued")
    assert listed.due is not None and listed.due > before
    stats = await app.operations.queue_stats()
    assert stats.queued == 1 and stats.oldest < 60
    async with app.worker(task):
        score = await job.result(timeout=25)
    assert before.timestamp() * 1000 <= score <= await app.now()


async def test_it_is_kept_by_a_stop_a_retry_by_hand_and_a_replacement(
    app: App, started: list[str]
) -> None:
    is_first = True

    @priority(7)
    async def fails(ctx: Context) -> None:
        started.append("fails")
        if is_first:
            raise ValueError("no")

    @priority(8)
    async def stopped(ctx: Context) -> None:
        started.append("stopped")
        if is_first:
            await asyncio.sleep(600)

    tasks = (task, fails, stopped)
    async with app.worker(*tasks, max_tries=1, job_completion_wait=0):
        failed = await app.enqueue(fails)
        await app.result_of(failed.job_id)
        await app.enqueue(stopped)
        await until(lambda: "stopped" in started)
    is_first = False
    started.clear()
    await enqueue(app, *names("low", 3))
    await app.enqueue(task, "old", _job_id="replaced")
    await app.enqueue(task, "new", _job_id="replaced", _replace=True, _priority=9)
    assert await app.operations.retry_job(failed.job_id)
    await app.burst(*tasks, max_jobs=1)
    assert started == ["new", "stopped", "fails", *names("low", 3)]


async def test_within_a_limit_too(app: App, started: list[str]) -> None:
    limited = limit(concurrency=1)(_copy_of(task))
    async with app.worker(limited, max_jobs=5):
        await app.operations.pause_queue()
        calls: list[dict[str, Any]] = [{"name": name} for name in names("low", 5)]
        calls.append({"name": "high", "_priority": 1})
        await app.client.enqueue_many(limited, calls)
        await app.operations.resume_queue()
        await until(lambda: len(started) == 6)
        assert started == ["high", *names("low", 5)]


def _copy_of(function: Any) -> Any:
    async def copy(ctx: Context, name: str) -> Any:
        return await function(ctx, name)

    return copy


@pytest.mark.parametrize("level", [-1, 10, 1.5, True, "1"])
async def test_what_is_no_priority(app: App, level: Any) -> None:
    app.settings(task)
    with pytest.raises(ValueError, match="a priority is from 0 to 9, not"):
        await app.enqueue(task, "a", _priority=level)
    with pytest.raises(ValueError, match="a priority is from 0 to 9, not"):
        priority(level)
