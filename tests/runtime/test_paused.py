"""A paused queue: a burst does not wait for it, and cron runs do not pile up."""

import asyncio
import time
from typing import Any

import pytest
from arq import cron
from arq_runtime.worker.job import Context
from kit import App
from noting import Notes, job, note


async def tick(ctx: Context) -> None:
    note(ctx, "start", "tick")


async def test_a_burst_ends(app: App, notes: Notes) -> None:
    await app.enqueue(job, "a")
    await app.operations.pause_queue()
    async with asyncio.timeout(25):
        await app.burst(job)
    assert not notes.starts()
    await app.operations.resume_queue()
    await app.burst(job)
    assert len(notes.starts("a")) == 1


@pytest.mark.slow
async def test_cron_runs_of_the_pause_do_not_come_at_once(
    app: App, notes: Notes
) -> None:
    jobs: list[Any] = [cron(tick, second=set(range(60)))]
    async with app.worker(cron_jobs=jobs):
        await notes.started("tick")
        await app.operations.pause_queue()
        await asyncio.sleep(1)  # what was queued before has run, or waits
        before = len(notes.starts())
        await asyncio.sleep(5)
        assert len(notes.starts()) == before
        resumed = time.monotonic()
        await app.operations.resume_queue()
        await asyncio.sleep(0.6)
        # what had been queued as it was paused, and those of now
        now = time.monotonic() - resumed
        assert len(notes.starts()) - before <= 3 + int(now)
        await notes.started("tick", len(notes.starts()) + 2)
