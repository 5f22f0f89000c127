"""The command that operates the queue."""

import asyncio
import contextlib
import json
import os
import pty
import re
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from arq_runtime.operate.command import Project, command
from click.testing import CliRunner, Result
from kit import QUEUE, App, until
from processes import PATHS, PYTHON
from support import free_port
from test_operations import OPTIONS, TASKS, has_failed, keep_failed

Run = Callable[..., Awaitable[Result]]


@pytest.fixture
def run(redis_url: str) -> Run:
    """Runs the command; in a thread, since it has an event loop of its own."""

    async def run(*arguments: str, url: str = redis_url) -> Result:
        app = App(url)
        project = Project(app.operations, app.lookup.abort_job)
        return await asyncio.to_thread(
            CliRunner().invoke, command, arguments, obj=project, prog_name="it"
        )

    return run


async def test_it_shows_and_acts(app: App, run: Run) -> None:
    bad = "bad" * 20
    async with app.worker(*TASKS, **OPTIONS):
        await app.enqueue("fail", text="\x1b]0;a title\x07" + "x" * 300, _job_id=bad)
        await app.enqueue("fine", _job_id="later", _defer_by=3600)
        await has_failed(app, bad)
        await until(lambda: app.redis.exists(f"{QUEUE}:workers"))
        stats = await run("stats")
        assert QUEUE in stats.stdout
        assert "1 deferred, 0 in progress, 1 failed" in stats.stdout
        assert "nightly next in " in stats.stdout and stats.stderr == ""
        failed = await run("list", "failed")
        assert "ValueError:" in failed.stdout
        for line in (stats.stdout + failed.stdout).splitlines():
            assert len(line) <= 80 and line.isprintable(), line
        assert "later" in (await run("list", "deferred", "--task", "fine")).stdout
        assert (await run("list", "deferred", "--task", "other")).stdout == ""
        shown = await run("show", bad)
        assert "in fail" in shown.stdout and "\x1b" not in shown.stdout
        later = await run("show", "later", "--json")
        assert json.loads(later.stdout)["task"] == "fine"

        assert (await run("run-now", "later")).exit_code == 0
        await app.result_of("later")
        assert (await run("pause")).stdout == f"{QUEUE} is paused\n"
        assert (await run("retry", bad)).stdout == "retried 1 job\n"
        [paused] = json.loads((await run("stats", "--json")).stdout)
        assert paused["paused"] is True and paused["queued"] == 1
        assert "is paused" in (await run("stats")).stdout
        assert (await run("abort", bad)).stdout == "aborted 1 job\n"
        assert (await run("resume")).stdout == f"{QUEUE} goes on\n"


async def test_it_shows_progress(app: App, run: Run) -> None:
    async with app.worker(*TASKS, **OPTIONS):
        await app.enqueue("chatty", 1, seconds=60, _job_id="one")
        await until(lambda: app.redis.exists("arq:progress:one"))
        for arguments in (["list", "in_progress"], ["show", "one"]):
            assert "50 % line 0 <b>" in (await run(*arguments)).stdout
        assert "in progress" in (await run("show", "one")).stdout
        refused = await run("retry", "one")
        assert refused.stderr == "one is in progress: left alone\n"


async def test_its_exit_codes(app: App, run: Run) -> None:
    for name in ("one", "two", "three"):
        await keep_failed(app.redis, name, "fail", 1000)
    some = await run("retry", "one", "nope")
    assert (some.exit_code, some.stdout) == (1, "retried 1 job\n")
    assert some.stderr == "nope is not known: left alone\n"
    again = await run("retry", "one")
    assert (again.exit_code, again.stderr) == (1, "one is queued: left alone\n")
    for code, *arguments in (
        (1, "show", "nope"),
        (1, "run-now", "one"),
        (2, "discard"),
        (2, "discard", "two", "--all"),
        (2, "list", "lost"),
        (2, "list", "failed", "--limit", "-1"),
        (2, "list", "failed", "--offset", "-1"),
    ):
        assert (await run(*arguments)).exit_code == code, arguments
    odd = await run("show", os.fsdecode(b"\xff"))
    assert odd.exit_code == 2 and "An id or a name is not UTF-8." in odd.stderr
    both = await run("discard", "--all", "--yes", "--json")
    assert (both.exit_code, json.loads(both.stdout)) == (0, {"discarded": 2})
    assert (await run("discard", "--task", "fail", "--yes")).exit_code == 0


@pytest.mark.parametrize(
    "arguments", [["stats"], ["list", "failed"], ["retry", "x"], ["abort", "x"]]
)
async def test_one_line_when_redis_is_away(
    run: Run, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arq_runtime.server.DEADLINE_S", 0.2)
    done = await run(*arguments, url=f"redis://127.0.0.1:{free_port()}/0")
    assert done.exit_code == 3 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("Redis fails, see ARQ_REDIS_URL: ")


# --- As a process ---------------------------------------------------------------------


def process_of(
    url: str, *arguments: str | bytes, **options: Any
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [PYTHON, "-m", "operate_queue", *arguments],
        env={
            **os.environ,
            "ARQ_REDIS_URL": url,
            "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
        },
        **options,
    )


@pytest.mark.slow
async def test_colours_only_on_a_terminal(app: App, run: Run) -> None:
    await keep_failed(app.redis, "one", "fail", 1000)
    assert "\x1b" not in (await run("list", "failed")).stdout
    control, terminal = pty.openpty()
    with process_of(app.url, "list", "failed", stdout=terminal) as process:
        assert process.wait(60) == 0
    shown = os.read(control, 10_000).decode()
    os.close(control)
    os.close(terminal)
    assert re.search("\x1b\\[31m  ValueError: no", shown)


@pytest.mark.slow
def test_it_says_itself_what_fails() -> None:
    """And its log, which nobody has configured, does not say it once more."""
    url = f"redis://u:secret@127.0.0.1:{free_port()}/0"
    with process_of(url, "pause", stderr=subprocess.PIPE) as process:
        error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 3
    assert len(error.splitlines()) == 1 and "secret" not in error
    with process_of(url, "show", b"\xff", stderr=subprocess.PIPE) as process:
        error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 2 and "Traceback" not in error


@pytest.mark.slow
async def test_a_pipe_that_is_closed_early(app: App) -> None:
    async with app.redis.pipeline(transaction=False) as pipe:
        for i in range(2000):
            await keep_failed(pipe, f"job-{i}", "fail", 1000 + i)
        await pipe.execute()
    arguments = ("list", "failed", "--limit", "2000")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with process_of(app.url, *arguments, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"job-1999 ")
        process.stdout.close()
        assert process.stderr.read() == b""


# --- Many jobs ------------------------------------------------------------------------


async def some_failed(app: App) -> None:
    for at, (name, task, error) in enumerate(
        [
            ("a", "fail", "OSError: 503"),
            ("b", "fail", "OSError: 504"),
            ("c", "other", "OSError: 503"),
            ("d", "other", "ValueError: no"),
        ]
    ):
        await keep_failed(app.redis, name, task, 1000 + at, error=error)


async def failed_ids(run: Run, *arguments: str) -> list[str]:
    done = await run("list", "failed", "--json", *arguments)
    return [job["job_id"] for job in json.loads(done.stdout)]


async def test_failures_by_error(app: App, run: Run) -> None:
    await some_failed(app)
    shown = (await run("errors")).stdout
    assert "     2 1970-01-01T00:00:01Z" in shown and "OSError: N" in shown
    [first, *_] = json.loads((await run("errors", "--json")).stdout)
    assert (first["task"], first["error"], first["count"]) == ("fail", "OSError: N", 2)
    assert await failed_ids(run, "--error", "503") == ["c", "a"]
    assert await failed_ids(run, "--since", "1h") == []
    assert (await run("retry", "--error", "503", "--dry-run")).stdout == (
        "would have retried 2 jobs\n"
    )
    assert (await run("retry", "--task", "fail", "--error", "OSError: N")).stdout == (
        "retried 2 jobs\n"
    )
    assert await failed_ids(run) == ["d", "c"]


async def test_discarding_wants_a_yes_and_can_be_undone(app: App, run: Run) -> None:
    await some_failed(app)
    refused = await run("discard", "--task", "other")
    assert refused.exit_code == 2 and await failed_ids(run) == ["d", "c", "b", "a"]
    assert "Discard 2 jobs of other? Say --yes." in refused.stderr
    done = await run("discard", "--task", "other", "--yes")
    assert done.stdout == "discarded 2 jobs\n" and await failed_ids(run) == ["b", "a"]
    assert (await run("undiscard", "d")).stdout == "brought back 1 job\n"
    assert (await run("undiscard", "--all", "--json")).stdout == (
        '{\n  "brought back": 1\n}\n'
    )
    assert await failed_ids(run) == ["d", "c", "b", "a"]
    assert (await run("undiscard", "d")).exit_code == 1
    assert (await run("undiscard")).exit_code == 2


async def test_purge(app: App, run: Run) -> None:
    for i in range(1100):
        await app.enqueue("fine", _job_id=f"f{i}")
    await app.enqueue("other", _job_id="o")
    await app.enqueue("fine", _job_id="later", _defer_by=60)
    now = await app.now()
    await app.redis.zadd(QUEUE, {"f0": now - 7_200_000, "f1": now - 7_200_000})
    for arguments in (["purge"], ["purge", "--all", "--task", "fine"]):
        assert (await run(*arguments)).exit_code == 2
    old = await run("purge", "--older-than", "1h", "--dry-run")
    assert old.stdout == "would have purged 2 jobs\n"
    assert (
        await run("purge", "--older-than", "1h", "--yes")
    ).stdout == "purged 2 jobs\n"
    assert (await run("purge", "--task", "fine")).exit_code == 2
    done = await run("purge", "--task", "fine", "--yes")
    assert done.stdout == "purged 1099 jobs\n"
    assert await app.redis.zrange(QUEUE, 0, -1) == [b"o"]
    assert await app.redis.keys("arq:job:f*") == []
    assert await app.operations.list_jobs("complete") == []


async def test_abort_those_of_a_task(app: App, run: Run) -> None:
    async with app.worker(*TASKS, **OPTIONS):
        await app.enqueue("fine", seconds=60, _job_id="running")
        await app.enqueue("fine", _job_id="later", _defer_by=60)
        await until(lambda: app.redis.exists("arq:in-progress:running"))
        done = await run("abort", "--task", "fine", "--yes")
        assert done.stdout == "aborted 2 jobs\n"


@pytest.mark.slow
async def test_on_a_terminal_it_asks(app: App) -> None:
    await some_failed(app)
    await app.enqueue("fine", _job_id="one")
    for answer, arguments, code in (
        (b"n\n", ["discard", "--all"], 1),
        (b"y\n", ["discard", "--all"], 0),
        (b"2\n", ["purge", "--all"], 1),
        (b"1\n", ["purge", "--all"], 0),
    ):
        control, terminal = pty.openpty()
        pipes = {
            "stdin": terminal,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        with process_of(app.url, *arguments, **pipes) as process:
            os.write(control, answer)
            assert await asyncio.to_thread(process.wait, 60) == code, arguments
        os.close(control)
        os.close(terminal)
    assert await app.redis.zcard(f"{QUEUE}:failed") == 0
    assert await app.redis.zcard(QUEUE) == 0


# --- Honest answers -------------------------------------------------------------------


async def test_names_that_do_not_exist(app: App, run: Run) -> None:
    app.settings(*TASKS)
    await some_failed(app)
    for arguments in (
        *(["pause"], ["resume"], ["stats"], ["list", "failed"], ["errors"]),
        *(["show", "a"], ["retry", "a"], ["discard", "--all", "--yes"]),
    ):
        done = await run(*arguments, "--queue", f"{QUEUE}s")
        assert (done.exit_code, done.stdout) == (1, ""), arguments
        assert done.stderr == (
            f"There is no queue '{QUEUE}s'; did you mean '{QUEUE}'?\n"
        )
    for arguments in (["list"], ["retry"], ["purge", "--yes"]):
        done = await run(*arguments, "--task", "fial")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "There is no task 'fial'; " in done.stderr
    assert not await app.redis.exists(f"{QUEUE}s:paused")


@pytest.mark.slow
async def test_a_task_that_does_not_stop(app: App, run: Run) -> None:
    ends = asyncio.Event()

    async def stubborn(ctx: dict[str, Any]) -> None:
        while not ends.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(ends.wait(), 60)

    async with app.worker(stubborn):
        await app.enqueue(stubborn, _job_id="one")
        await until(lambda: app.redis.exists("arq:in-progress:one"))
        done = await run("abort", "one")
        ends.set()
    assert done.exit_code == 1
    assert done.stderr == "one is in progress: asked to stop, still running\n"


async def test_what_was_looked_at(
    app: App, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arq_runtime.operate.look.MOST", 500)
    async with app.redis.pipeline(transaction=False) as pipe:
        for i in range(1200):
            await keep_failed(pipe, f"j{i}", "fail", 1000 + i)
        await pipe.execute()
    done = await run("list", "failed", "--search", "nobody")
    assert done.stdout == ""
    text = "looked at 500 of 1,200 jobs; go on with --start failed:500\n"
    assert done.stderr == text
    assert (await run("list", "--start", "nonsense")).exit_code == 2
    [job] = json.loads((await run("list", "--search", "j777", "--json")).stdout)
    assert job["job_id"] == "j777"


async def test_times_and_json(app: App, run: Run) -> None:
    await some_failed(app)
    assert "a " in (listed := (await run("list", "failed")).stdout)
    assert "1970-01-01T00:00:01Z" in listed
    assert all(len(line) <= 80 for line in listed.splitlines())
    for name, paused in (("pause", True), ("resume", False)):
        said = json.loads((await run(name, "--json")).stdout)
        assert said == {"queue": QUEUE, "paused": paused}
    for arguments in (
        ["list", "failed", "--since", "25:99"],
        ["purge", "--older-than", "x"],
    ):
        done = await run(*arguments)
        assert done.exit_code == 2 and "is no time such as" in done.stderr
