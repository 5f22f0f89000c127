"""How much is asked of Redis, and cron jobs over several workers."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from arq import cron
from arq.cron import CronJob
from arq_runtime.worker import worker
from arq_runtime.worker.job import Context
from kit import QUEUE, App, until
from noting import Notes, job
from test_lease import arq_worker

pytestmark = pytest.mark.slow


@asynccontextmanager
async def commands(app: App) -> AsyncIterator[Counter[str]]:
    """Counts what clients send meanwhile, by command: not what scripts call."""
    counts: Counter[str] = Counter()

    async with app.redis.monitor() as monitor:

        async def watch() -> None:
            async for seen in monitor.listen():
                name = seen["command"].split()[0].upper()
                if seen["client_type"] != "lua" and name not in SETTING_UP:
                    counts[name] += 1
                if name == "ECHO":
                    return

        watching = asyncio.create_task(watch())
        yield counts
        await app.redis.echo("done")
        await watching


SETTING_UP = {"HELLO", "AUTH", "SELECT", "CLIENT", "INFO", "PING", "DBSIZE", "ECHO"}


@pytest.mark.filterwarnings("ignore:Call to deprecated close")
async def test_a_burst_that_waits_is_as_quiet_as_arqs(
    own_app: App, notes: Notes
) -> None:
    async def sent(run: Any) -> Counter[str]:
        await own_app.redis.flushdb()
        await own_app.enqueue(job, "deferred", _defer_by=2)
        await own_app.redis.set("arq:in-progress:foreign", "1", px=2000)
        await own_app.enqueue(job, "foreign", _job_id="foreign")
        async with commands(own_app) as seen:
            await run()
        return seen

    ours = await sent(lambda: own_app.burst(job))
    with arq_worker(own_app, job, burst=True) as stock:
        arqs = await sent(stock.async_run)
        await stock.close()
    assert len(notes.ends("deferred")) == 2
    assert len(notes.ends("foreign")) == 2
    assert 0 < ours.total() <= arqs.total(), (ours, arqs)


async def test_an_idle_worker_asks_once_in_three_seconds(
    own_app: App, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CPU it takes: see benchmarks/."""
    monkeypatch.setattr(worker, "SAY_S", 600)
    async with own_app.worker(job, health_check_interval=600):
        await (await own_app.enqueue(job, "a")).result(25)
        await own_app.enqueue(job, "later", _defer_by=60)
        await until(own_app.waiting)
        async with commands(own_app) as seen:
            start = time.monotonic()
            await asyncio.sleep(7)
            waits = (time.monotonic() - start) / 3
    assert 1 <= seen["EVALSHA"] <= waits + 2, seen
    assert seen.total() == seen["EVALSHA"] + seen["BLPOP"], seen


async def test_each_tick_once_over_three_workers(app: App) -> None:
    """Three workers for each of three values of poll_delay."""
    polls, count, duration_s = (0.5, 1.0, 2.0), 3, 7
    runs: dict[float, list[tuple[int, float]]] = defaultdict(list)

    def queue(poll: float) -> str:
        return f"{QUEUE}-{poll}"

    def settings(poll: float) -> dict[str, Any]:
        async def tick(ctx: Context) -> None:
            """Note when it was due, and its delay, in seconds."""
            due = int(ctx["job_id"].rpartition(":")[2]) / 1000
            runs[poll].append((int(due), await app.now() / 1000 - due))

        ticks = cron(tick, name="tick", second={*range(60)}, keep_result=0)
        return {
            "cron_jobs": [ticks],
            "queue_name": queue(poll),
            "poll_delay": poll,
        }

    stalls: list[tuple[float, float]] = []

    async def note_stalls() -> None:
        """Of this machine: after one, the last of the runs that were missed is made up."""
        while True:
            before = time.time()
            await asyncio.sleep(0.05)
            if time.time() - before > 0.5:
                stalls.append((before, time.time()))

    noting = asyncio.create_task(note_stalls())
    async with AsyncExitStack() as workers:
        for poll in polls:
            for _ in range(count):
                await workers.enter_async_context(app.worker(**settings(poll)))
        began = await app.now() / 1000
        await asyncio.sleep(duration_s)
    noting.cancel()
    lag = sum(end - start for start, end in stalls)
    for poll in polls:
        # but for the last ones, which may be late
        expected = range(int(began) + 2, int(began + duration_s - poll - 1))
        assert expected
        times = Counter(due for due, _ in runs[poll])
        for due in expected:
            is_stalled = any(start - 2 < due < end for start, end in stalls)
            assert due in times or is_stalled, (times, stalls)
        assert set(times.values()) == {1}, times
        assert max(delay for _, delay in runs[poll]) < poll + 1 + lag, runs[poll]


async def test_a_worker_that_is_late_enqueues_no_tick_that_has_run(app: App) -> None:
    runs: list[int] = []

    async def tick(ctx: Context) -> None:
        runs.append(int(ctx["job_id"].rpartition(":")[2]))

    def cron_jobs() -> list[CronJob]:
        return [cron(tick, name="tick", second={*range(60)}, keep_result=0)]

    async with (
        app.worker(cron_jobs=cron_jobs()),
        app.worker(cron_jobs=cron_jobs()) as late,
    ):
        await until(lambda: runs)
        await until(lambda: is_drained_of(app, runs[0]))
        # which is kept for a minute, for arq's own workers
        await app.redis.delete(*await app.redis.keys(f"arq:in-progress:*:{runs[0]}"))
        due = datetime.fromtimestamp(runs[0] / 1000, UTC)
        late.cron_jobs[0].next_run = due
        await late.run_cron(due, 0.5)
        await until(lambda: len(runs) > 1)
    assert set(Counter(runs).values()) == {1}


async def is_drained_of(app: App, due_ms: int) -> bool:
    """Has the run that was due then ended?"""
    return not await app.redis.keys(f"arq:job:*:{due_ms}")
