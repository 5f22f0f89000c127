"""The command that operates the queue."""

import asyncio
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
        assert "nightly in " in stats.stdout and stats.stderr == ""
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
    both = await run("discard", "--all", "--json")
    assert (both.exit_code, json.loads(both.stdout)) == (0, {"discarded": 2})
    assert (await run("discard", "--task", "fail")).exit_code == 0


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
