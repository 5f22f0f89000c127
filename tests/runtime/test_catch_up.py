"""Cron runs for which no worker was there: made up for once, if that is asked for."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arq import cron
from arq_runtime.operate.shown import iso, print_stats, span
from arq_runtime.worker.cron import Schedule
from arq_runtime.worker.job import Context
from kit import QUEUE, App, until
from noting import Notes, note

NIGHT = datetime(2026, 3, 4, 2, 30, tzinfo=UTC)
WINDOW = timedelta(seconds=1)


async def nightly(ctx: Context) -> None:
    note(ctx, "start", ctx["job_id"])
    if ctx.get("fails"):
        raise ValueError("no")


def schedule(app: App, catch_up: float) -> Schedule:
    """That of a worker which has just started."""
    jobs = [cron(nightly, hour=2, minute=30)]
    serializer = app.serializer.serialize
    return Schedule(jobs, QUEUE, UTC, 604_800_000, catch_up, serializer)


async def runs(app: App) -> list[str]:
    """The runs that are queued, by when they were due."""
    keys = await app.redis.keys(f"{QUEUE}:cron:*")
    stamps = [int(key.rpartition(b":")[2]) / 1000 for key in keys]
    return [f"{datetime.fromtimestamp(one, UTC):%d. %H:%M}" for one in sorted(stamps)]


async def seen(app: App, at: datetime, catch_up: float = 3600, times: int = 1) -> None:
    """A worker starts, looks at the schedule, and ends."""
    for _ in range(times):
        await schedule(app, catch_up).run(app.redis, at, WINDOW)


async def test_a_restart_over_the_minute(app: App) -> None:
    """The run is made up for, once over all workers and restarts."""
    await seen(app, NIGHT - timedelta(minutes=1))
    assert await runs(app) == []
    for minutes in (2, 3, 40):
        await seen(app, NIGHT + timedelta(minutes=minutes), times=3)
        assert await runs(app) == ["04. 02:30"]
        assert await app.queued() == 1


async def test_a_worker_that_was_there_is_not_made_up_for(app: App) -> None:
    there = schedule(app, 3600)
    for seconds in (-60, -0.5, 0.5, 60):
        await there.run(app.redis, NIGHT + timedelta(seconds=seconds), WINDOW)
    await seen(app, NIGHT + timedelta(minutes=5))
    assert await runs(app) == ["04. 02:30"]
    assert await app.queued() == 1


async def test_not_beyond_the_limit(app: App) -> None:
    await seen(app, NIGHT - timedelta(minutes=1))
    await seen(app, NIGHT + timedelta(minutes=61))
    assert await runs(app) == []


async def test_not_before_the_job_was_known(app: App) -> None:
    await seen(app, NIGHT + timedelta(minutes=10))
    await seen(app, NIGHT + timedelta(minutes=20))
    assert await runs(app) == []


async def test_not_unless_asked_for(app: App) -> None:
    await seen(app, NIGHT - timedelta(minutes=1), catch_up=0)
    await seen(app, NIGHT + timedelta(minutes=1), catch_up=0)
    assert await runs(app) == []


async def test_of_several_missed_runs_one_is_made_up_for(app: App) -> None:
    day = timedelta(days=1)
    await seen(app, NIGHT - day, catch_up=5 * 86400)
    late = schedule(app, 5 * 86400)
    for minutes in (0, 1):
        now = NIGHT + 2 * day + timedelta(hours=3, minutes=minutes)
        await late.run(app.redis, now, WINDOW)
    assert (await runs(app))[-1] == "06. 02:30"
    assert len(await runs(app)) == 1


async def test_a_pause_over_the_minute(app: App) -> None:
    """Of a worker that is there, and lets nothing begin."""
    there = schedule(app, 3600)
    for seconds in (-60, -0.5, 60):
        now = NIGHT + timedelta(seconds=seconds)
        await there.run(app.redis, now, WINDOW, is_paused=True)
    assert await runs(app) == []
    for seconds in (120, 180):
        await there.run(app.redis, NIGHT + timedelta(seconds=seconds), WINDOW)
    assert await runs(app) == ["04. 02:30"]


@pytest.mark.parametrize("fails", [False, True])
async def test_the_last_run_is_kept(
    app: App, notes: Notes, capsys: pytest.CaptureFixture[str], fails: bool
) -> None:
    """When, and how it ended; though a cron job keeps no result."""
    jobs: list[Any] = [cron(nightly, hour=2, run_at_startup=True)]
    async with app.worker(cron_jobs=jobs, ctx={"fails": fails}):
        await until(lambda: app.redis.hexists(f"{QUEUE}:crons", "cron:nightly:last"))
        stats = await app.operations.queue_stats()
    last = stats.last_runs["cron:nightly"]
    assert last.job_id == notes.starts()[0].name
    assert last.outcome == ("failed" if fails else "complete")
    assert last.started <= last.finished
    assert last.finished.timestamp() * 1000 <= await app.now()
    print_stats(stats)
    said = capsys.readouterr().out
    took = span((last.finished - last.started).total_seconds())
    assert f"last {iso(last.finished)}, {last.outcome}, took {took}" in said
    assert (last.job_id in said) == fails


async def test_what_others_have_left_does_not_hide_the_queue(app: App) -> None:
    await app.redis.set(f"{QUEUE}:crons", "no hash")
    assert (await app.operations.queue_stats()).last_runs == {}


async def test_a_worker_makes_up_for_it(app: App, notes: Notes) -> None:
    """All of it: the last run was a minute ago, and the job has been known for long."""
    past = datetime.now(UTC) - timedelta(minutes=2)
    jobs: list[Any] = [cron(nightly, hour=past.hour, minute=past.minute)]
    await app.redis.hset(f"{QUEUE}:crons", "cron:nightly:since", 1)
    async with app.worker(cron_jobs=jobs, catch_up=3600):
        await until(notes.starts)
        await asyncio.sleep(0.7)  # more than a look at the schedule
    async with app.worker(cron_jobs=jobs, catch_up=3600):
        await asyncio.sleep(0.7)
    assert len(notes.starts()) == 1
