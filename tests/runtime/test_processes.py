"""Worker settings with several processes: a parent starts, replaces and stops them."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from kit import App, until
from noting import Notes
from processes import Processes, WorkerProcess

pytestmark = pytest.mark.slow


def children(worker: WorkerProcess) -> set[int]:
    path = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    return {int(pid) for pid in path.read_text().split()}


async def start(processes: Processes, count: int, **settings: Any) -> WorkerProcess:
    worker = await processes.start(ready=False, processes=count, **settings)
    await worker.wait_for("redis_version=", times=count)
    return worker


async def test_they_share_the_jobs(
    app: App, processes: Processes, notes: Notes
) -> None:
    worker = await start(processes, 3, max_jobs=1, job_completion_wait=60)
    for n in range(3):
        await app.enqueue("job", n, 600)
    await until(lambda: len(notes.starts()) == 3)
    assert {int(event.who) for event in notes.starts()} == children(worker)
    # It drains: a stop waits for them.
    worker.send(signal.SIGTERM)
    await worker.wait_for("shutdown on SIG", times=3)
    for n in range(3):
        notes.let_go(n)
    assert await worker.exit_code() == 0
    assert len(notes.events(what="end")) == 3


async def test_one_that_is_killed_is_replaced(
    app: App, processes: Processes, notes: Notes
) -> None:
    worker = await start(processes, 2, lease=1)
    await app.enqueue("once_slow", "a", _job_id="a")
    await notes.started("a")
    killed = int(notes.starts("a")[0].who)
    os.kill(killed, signal.SIGKILL)
    assert (await app.result_of("a"))["s"] is True
    await worker.wait_for(f"Process {killed} ended with signal 9: replaced")
    await worker.wait_for("redis_version=", times=3)
    assert len(children(worker) - {killed}) == 2
    assert await worker.stop() == 0


async def test_a_mistake_ends_them_all(processes: Processes) -> None:
    url = f"{processes.url.rpartition('/')[0]}/9999"
    worker = await processes.start(ready=False, processes=2, url=url)
    assert await worker.exit_code() == 1
    assert "no such database" in worker.text.lower() or "index" in worker.text


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_does_not_wait(
    app: App, processes: Processes, notes: Notes, signum: signal.Signals
) -> None:
    worker = await start(processes, 2, max_jobs=1)
    for n in range(2):
        await app.enqueue("job", n, 60.0)
    await until(lambda: len(notes.starts()) == 2)
    worker.send(signum)
    await worker.wait_for("shutdown on SIG", times=2)
    assert await worker.stop(signum) == 0
    assert await app.queued() == 2


async def test_without_their_parent_they_drain(
    app: App, processes: Processes, notes: Notes
) -> None:
    worker = await start(processes, 2)
    pids = children(worker)
    await app.enqueue("job", "a", 3.0, _job_id="a")
    await notes.started("a")
    worker.kill()
    assert (await app.result_of("a"))["r"] == "a"
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


async def test_one_that_has_run_its_jobs_is_replaced(
    app: App, processes: Processes, notes: Notes
) -> None:
    """None of its jobs is cut short: one takes longer than the lease, and than a stop."""
    worker = await start(processes, 1, max_jobs_per_process=5, lease=4)
    for n in range(12):
        await app.enqueue("job", n, 7.0 if n == 0 else 0.0, _job_id=f"j{n}")
    for n in range(12):
        assert (await app.result_of(f"j{n}", 60))["r"] == n
    assert len(notes.starts()) == 12
    assert len({event.who for event in notes.starts()}) == 3
    assert await worker.stop() == 0
