"""A cancellation that the worker has not made is a failure: with a try, and a pause.

Some libraries cancel the task that they run in, and do not take it back, so that it
looks as if it were told to stop for ever: aiohttp up to 3.9.5, async-timeout 4.0.2 and
anyio 3.6 do so with each of their time-outs.
"""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from arq import func
from arq_runtime.worker.job import Context
from kit import App, until
from noting import Notes, note
from processes import Processes
from support import ARQ, environment

LIBRARIES = ["aiohttp==3.9.5", "async-timeout==4.0.2", "anyio==3.6.2"]


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Of a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture(scope="module")
def old_python() -> Path:
    """With versions of the libraries that leave their cancellations."""
    return environment("cancelling", [*LIBRARIES, ARQ, "pydantic"]) / "bin/python"


@pytest.mark.slow
async def test_time_outs_of_libraries(
    app: App,
    processes: Processes,
    notes: Notes,
    old_python: Path,
    silent_port: int,
) -> None:
    names = ["with_aiohttp", "with_async_timeout", "with_anyio"]
    worker = await processes.start(
        command=[old_python, "-m", "arq", "cancelling_tasks.WorkerSettings"],
        retry_delay=0.3,
        job_completion_wait=0,
    )
    for name in names:
        await app.enqueue("use", name, silent_port, _job_id=name)
    for name in names:
        assert (await app.result_of(name))["s"] is False
        first, second, third = notes.starts(name)
        assert second.at - first.at > 0.3 and third.at - second.at > 0.6
        assert notes.events(name, "cancelling 1"), (
            "it takes it back now: of no use here"
        )
        assert (await app.failed(name))["error"].startswith("TimeoutError")
    for name in names:
        job_id = f"caught-{name}"
        await app.enqueue("use", name, silent_port, True, _job_id=job_id)
        assert (await app.result_of(job_id))["r"] == 1
    # and what the worker cancels is given back, after such a time-out as ever
    await app.enqueue("use_and_wait", names[0], silent_port, _job_id="stopped")
    await until(lambda: notes.events(what="waits"))
    assert await worker.stop() == 0
    assert int(await app.redis.get("arq:retry:stopped")) == 0
    assert await app.redis.zscore(app.queue, "stopped") <= await app.now()


async def cancels_itself(ctx: Context, name: str, waits: bool) -> None:
    note(ctx, "start", name)
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    if waits:
        await asyncio.sleep(10)


async def ends_cancelled(ctx: Context, name: str) -> str:
    """It was cancelled, has noticed, and goes on."""
    note(ctx, "start", name)
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        await asyncio.sleep(0)
    return name


async def test_a_task_that_cancels_itself(
    app: App, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "arq.worker")
    await app.enqueue(cancels_itself, "a", True, _job_id="a")
    async with asyncio.timeout(20):  # else it would run for ever
        await app.burst(cancels_itself, retry_delay=0.1)
    first, second, third = notes.starts("a")
    assert second.at - first.at >= 0.1 and third.at - second.at >= 0.2
    assert (await app.failed("a"))["tries"] == "3"
    assert "will be run again" not in caplog.text


@pytest.mark.parametrize("task", [cancels_itself, ends_cancelled])
async def test_a_task_that_ends_though_it_is_cancelled(
    app: App, notes: Notes, task: object
) -> None:
    """It has ended well, as its hooks are told, once."""

    async def on_job_end(ctx: Context) -> None:
        note(ctx, "hook", ctx["job_id"])

    async def after_job_end(ctx: Context) -> None:
        await asyncio.sleep(0)
        note(ctx, "after", ctx["job_id"])

    arguments = [False] if task is cancels_itself else []
    async with app.worker(task, on_job_end=on_job_end, after_job_end=after_job_end):
        await app.enqueue(task, "a", *arguments, _job_id="a")
        assert (await app.result_of("a"))["s"]
        await until(lambda: notes.events(what="after"))
    assert [event.what for event in notes.events()] == ["start", "hook", "after"]


async def test_a_time_out_and_an_abort_after_a_cancellation(
    app: App, notes: Notes
) -> None:
    async def go_on(ctx: Context, name: str) -> None:
        await ends_cancelled(ctx, name)
        await asyncio.sleep(60)

    go_on.__qualname__ = "go_on"
    brief = func(go_on, name="brief", timeout=3)
    async with app.worker(go_on, brief, max_tries=1, poll_delay=0.05, max_jobs=2):
        await app.enqueue("brief", "late", _job_id="late")
        aborted = await app.enqueue("go_on", "aborted", _job_id="aborted")
        await notes.started("aborted")
        assert await app.lookup.abort_job(aborted.job_id)
        await app.result_of("late")
    assert (await app.failed("late"))["reason"] == "timeout"
    assert not await app.failed("aborted")
