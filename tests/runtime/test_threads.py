"""Plain functions run in threads, which nobody can stop: one that is left is a slot."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from arq_runtime.worker.job import Context
from kit import App, until
from noting import Notes, note, sync
from processes import Processes

pytestmark = pytest.mark.slow


def hang(ctx: Context, name: str) -> None:
    note(ctx, "start", name)
    ctx["let_go"].wait(120)
    note(ctx, "end", name)


async def test_jobs_wait_for_threads_that_hang_and_fail_of_nothing(
    app: App, notes: Notes
) -> None:
    let_go = threading.Event()
    options: dict[str, Any] = {"max_jobs": 2, "max_tries": 1, "job_timeout": 0.5}
    async with app.worker(hang, sync, **options, ctx={"let_go": let_go}) as worker:
        for name in ("a", "b"):
            await app.enqueue("hang", name, _job_id=name)
        assert (await app.result_of("a"))["s"] is False
        assert (await app.result_of("b"))["s"] is False
        assert worker.threads.left == worker.threads.busy == 2
        waiting = [await app.enqueue(sync, f"{n}", _job_id=f"n{n}") for n in range(5)]
        await asyncio.sleep(0.7)  # longer than a poll
        assert not notes.starts("0")
        assert not await app.redis.exists("arq:retry:n0")  # nor has it been claimed
        let_go.set()
        assert [await one.result(25) for one in waiting] == [*"01234"]
        for n in range(5):
            assert (await app.result_of(f"n{n}"))["t"] == 1
        assert worker.threads.left == worker.threads.busy == 0


async def test_the_count_of_threads_is_right_whatever_ends_their_jobs(
    app: App, notes: Notes
) -> None:
    let_go = threading.Event()
    options: dict[str, Any] = {
        "max_jobs": 20,
        "max_tries": 1,
        "job_timeout": 10,  # not before the aborts
        "poll_delay": 0.05,
    }
    async with app.worker(hang, sync, **options, ctx={"let_go": let_go}) as worker:
        jobs = [await app.enqueue(hang, f"{n}") for n in range(10)]
        done = [await app.enqueue(sync, f"d{n}") for n in range(5)]
        await until(lambda: len(notes.starts()) == 15)
        aborts = [app.lookup.abort_job(job.job_id) for job in jobs[:5]]
        assert all(await asyncio.gather(*aborts))
        for job in jobs[5:]:
            assert (await app.result_of(job.job_id))["s"] is False
        for job in done:
            await job.result(25)
        assert (worker.threads.busy, worker.threads.left) == (10, 10)
        let_go.set()
        await until(lambda: worker.threads.busy == 0)
        assert worker.threads.left == 0


async def test_the_time_out_begins_when_the_thread_does(app: App, notes: Notes) -> None:
    """All slots are taken; the time for which a job waits is not its own."""
    async with app.worker(sync, max_jobs=1, job_timeout=5, max_tries=1):
        jobs = [await app.enqueue(sync, f"{n}", 1.5) for n in range(4)]
        assert [await one.result(25) for one in jobs] == [*"0123"]


async def test_a_process_ends_as_python_does_once_its_threads_are_done(
    app: App, processes: Processes, notes: Notes, tmp_path: Path
) -> None:
    """Also after time-outs, so that what is registered with atexit is run."""
    worker = await processes.start(
        settings="exits.WorkerSettings", job_timeout=0.1, max_tries=1, max_jobs=4
    )
    late = [(await app.enqueue("sync", n, 3.0)).job_id for n in range(8)]
    for job_id in late:
        assert (await app.result_of(job_id))["s"] is False
    await until(lambda: len(notes.ends()) == 8)
    assert await worker.stop() == 0
    assert "at exit" in worker.text


async def test_a_process_does_not_wait_for_a_thread_that_hangs(
    app: App, processes: Processes, notes: Notes
) -> None:
    worker = await processes.start(job_timeout=0.1, max_tries=1)
    job_id = (await app.enqueue("sync", "a", 30.0)).job_id
    assert (await app.result_of(job_id))["s"] is False
    began = time.monotonic()
    assert await worker.stop() == 0
    assert time.monotonic() - began < 20
