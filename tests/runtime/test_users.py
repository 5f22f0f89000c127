"""What arq's users bring along: settings of any kind, its options, their own loop."""

import asyncio
import logging
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
from arq import create_pool
from arq_runtime.connection import parse_redis_url
from arq_runtime.serializer import Serializer
from arq_runtime.worker.install import get_kwargs
from arq_runtime.worker.job import Context
from arq_runtime.worker.worker import Worker
from kit import App, until
from noting import Notes
from processes import PATHS, Processes, WorkerProcess
from support import OwnRedis

SERIALIZER = Serializer("json")
STORED: dict[str, Any] = {
    "job_serializer": SERIALIZER.serialize,
    "job_deserializer": SERIALIZER.deserialize,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("WorkerSettings", "job"),
        ("as_dict", "job"),
        ("Named", "noting.job"),
        ("Later", "added"),
    ],
)
async def test_settings_on_the_command_line(
    app: App, processes: Processes, name: str, task: str
) -> None:
    await app.enqueue(task, 1, _job_id="a")
    settings = f"user_settings.{name}"
    worker = await processes.start("--burst", settings=settings, ready=False)
    assert await worker.exit_code() == 0, worker.text
    assert (await app.result_of("a"))["r"] == 1


async def test_the_client_knows_the_tasks_of_settings(app: App) -> None:
    """Also those that are named, and those that are added later."""

    class Settings(app.base()):  # type: ignore[misc]
        functions: ClassVar[list[Any]] = ["noting.plain"]

    named = await app.enqueue("noting.plain", 1)
    Settings.functions = [*Settings.functions, blocking]
    added = await app.enqueue(blocking, 1)
    with pytest.raises(ValueError, match="no task 'other'"):
        await app.enqueue("other", 1)
    worker = Worker(**get_kwargs(Settings) | {"handle_signals": False, "burst": True})
    await worker.async_run()
    await worker.close()
    assert await named.result() == 1
    assert await added.result() == 2


def blocking(ctx: Context, n: int) -> int:
    return 2 * n


@pytest.mark.slow
async def test_options_of_the_command(app: App, processes: Processes) -> None:
    settings = "user_settings.Logging"
    custom = "--custom-log-dict", "user_settings.log_dict"
    options: list[Sequence[str]] = [custom, ["-v"], []]
    own, loud, usual = await asyncio.gather(
        *(processes.start(*some, settings=settings) for some in options)
    )
    job_id = (await app.enqueue("job", "a")).job_id
    await app.result_of(job_id)
    for worker in (own, loud, usual):
        assert await worker.stop() == 0
        assert worker.text.count("redis_version=") == 1  # once, not in two formats
    ours = [line for line in own.text.splitlines() if line.startswith("OWN ")]
    assert any("redis_version=" in line for line in ours)
    assert "PROJECT" not in own.text
    assert "PROJECT loud redis_version=" in loud.text
    assert "PROJECT usual redis_version=" in usual.text


# --- Workers made in the user's own tests ---------------------------------------------


async def add(ctx: Context, a: int, b: int) -> int:
    return a + b


@pytest.fixture
def sync_worker() -> Worker:
    """No event loop runs yet."""
    return Worker([add])


def test_a_worker_of_a_sync_fixture(sync_worker: Worker) -> None:
    assert sync_worker.functions["add"]


async def test_a_pool_passed_in_and_caplog(
    own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pool = await create_pool(parse_redis_url(own_redis.url), **STORED)
    connections = []
    for n in range(5):
        job = await pool.enqueue_job("add", n, b=1)
        assert job
        worker = Worker(
            [add],
            redis_pool=pool,
            burst=True,
            poll_delay=0.01,
            handle_signals=False,
            queue_read_limit=1,
            **STORED,
        )
        assert await worker.run_check() == 1
        assert await job.result(poll_delay=0) == n + 1
        connections.append(len(await pool.client_list()))
    assert len(set(connections[1:])) == 1, connections
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others, others
    await pool.aclose()
    assert "add(4, b=1)" in caplog.text


@pytest.mark.usefixtures("short_waits")
async def test_a_worker_runs_in_a_loop_of_the_application(redis_url: str) -> None:
    worker = Worker(
        [add],
        handle_signals=False,
        redis_settings=parse_redis_url(redis_url),
        **STORED,
    )
    running = asyncio.create_task(worker.async_run())
    await until(lambda: worker._pool)
    job = await worker.pool.enqueue_job("add", 1, b=1)
    assert job and await job.result(timeout=25, poll_delay=0.01) == 2
    await worker.close()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_cancellation_that_gets_lost(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As asyncio.wait_for may lose it before Python 3.12."""
    started = asyncio.Event()

    async def loses_it(ctx: Context) -> None:
        started.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    worker = Worker(
        [add],
        handle_signals=False,
        redis_settings=parse_redis_url(redis_url),
        on_startup=loses_it,
    )
    running = asyncio.create_task(worker.async_run())
    await started.wait()
    await worker.close()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not caplog.messages


async def test_a_cancellation_that_gets_lost_in_the_main_loop(redis_url: str) -> None:
    """Its connections are there until it has ended."""
    beating = asyncio.Event()

    class LosesIt(Worker):
        async def heart_beat(self) -> None:
            beating.set()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            await asyncio.sleep(0.1)
            await super().heart_beat()

    worker = LosesIt(
        [add], handle_signals=False, redis_settings=parse_redis_url(redis_url)
    )
    running = asyncio.create_task(worker.async_run())
    await beating.wait()
    await worker.close()
    with pytest.raises(asyncio.CancelledError):
        await running


# --- --watch --------------------------------------------------------------------------


@asynccontextmanager
async def watching(
    processes: Processes, project: Path, *options: str, **settings: Any
) -> AsyncIterator[WorkerProcess]:
    """A worker that starts anew when a file of this copy of the tasks changes."""
    project.mkdir()
    for name in ("fault_tasks.py", "noting.py"):
        shutil.copy(PATHS[1] / name, project)
    worker = await processes.start(*options, cwd=project, **settings)
    try:
        yield worker
    finally:
        pid = worker.pid
        assert await worker.stop() == 0
        await until(lambda: not alive_children(pid))


def alive_children(pid: int) -> str:
    done = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.slow
async def test_watch(
    app: App, processes: Processes, notes: Notes, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    settings = {"max_tries": 1, "job_completion_wait": 0}
    async with watching(processes, project, "--watch=.", **settings) as worker:
        await app.enqueue("once_slow", "a", 1.5, _job_id="a")
        await notes.started("a")
        (project / "data").mkdir()
        for n in range(3):  # what a task, or the host, may write
            (project / f"data/out-{n}.txt").write_text("x")
            (project / f"app-{n}.log").write_text("x")
        assert (await app.result_of("a"))["s"]
        assert len(notes.starts("a")) == 1

        await app.enqueue("once_slow", "b", 600, _job_id="b")
        await notes.started("b")
        code = (project / "noting.py").read_text()
        (project / "noting.py").write_text("def broken(:\n")
        await worker.wait_for("SyntaxError")
        assert worker.lives
        fixed = code.replace("await pause(name, seconds)", "pass")
        assert fixed != code
        (project / "noting.py").write_text(fixed)
        assert (await app.result_of("b"))["s"]  # it had only one try

        (project / "noting.py").write_text(f"{code}\nundefined_name\n")
        await worker.wait_for("NameError")
        (project / "noting.py").write_text(code)
        job_id = (await app.enqueue("plain", 1)).job_id
        assert (await app.result_of(job_id))["s"]
