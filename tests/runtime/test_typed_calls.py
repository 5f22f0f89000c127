"""A type checker knows a call by job(): its arguments, and what it returns."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import CACHE, locked
from support import TEMPLATE as REPOSITORY

TEMPLATE = REPOSITORY / "template/{{ package }}"

CALLS = """
from typing import Any, assert_type

from arq_runtime.client.client import Client
from arq_runtime.client.gather import Gather
from arq_runtime.client.job import Job


async def welcome(ctx: dict[str, Any], user_id: int, text: str = "") -> list[int]:
    return [user_id]


def plain(ctx: dict[str, Any], path: str) -> float:
    return 1.5


async def report(ctx: dict[str, Any], job_ids: list[str], month: int = 1) -> str:
    return "done"


async def main(client: Client) -> None:
    assert_type(await client.job(welcome)(1), Job[list[int]])
    assert_type(await client.job(welcome, _defer_by=6)(user_id=1), Job[list[int]])
    assert_type(await (await client.job(welcome)(1)).result(), list[int])
    assert_type(await client.job(welcome, _job_id="a")(1), Job[list[int]] | None)
    assert_type(await client.job(plain)("a"), Job[float])
    assert_type(await client.job(plain, _job_id="a")("a"), Job[float] | None)
    await client.job(welcome)(userid=1)  # no such argument
    await client.job(welcome)(user_id="1")  # of another type
    await client.job(welcome)()  # one is missing
    await client.job(plain)(1)  # of another type
    await client.job(welcome, _deferby=1)(1)  # no such option
    gather_then = Gather(client).gather_then
    calls = [client.job(welcome)(1), client.job(welcome)(2)]
    mixed = [client.job(plain)("a"), client.enqueue("welcome", user_id=1)]
    await gather_then(calls, then=client.job(report))
    await gather_then(mixed, then=client.job(report, _job_id="a"))
    await gather_then(calls, then=lambda ids: client.job(report)(ids, month=2))
    await gather_then(calls, then=lambda ids: client.enqueue("report", ids))
    await gather_then(calls, then=client.job(plain))  # takes no ids
    await gather_then([1], then=client.job(report))  # no calls
"""


WRONG = {n for n, line in enumerate(CALLS.splitlines(), 1) if "  # " in line}


def complaints(tmp_path: Path, *command: str, env: dict[str, str]) -> set[int]:
    """The lines of CALLS in which the type checker finds an error."""
    (tmp_path / "calls.py").write_text(CALLS)
    done = subprocess.run(
        [sys.executable, "-m", *command, "calls.py"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    found = re.findall(r"calls\.py:(\d+)(?::\d+)?(?: -)?:? error", done.stdout)
    assert found, done.stdout + done.stderr
    return {int(line) for line in found}


@pytest.mark.slow
def test_mypy_knows_calls(tmp_path: Path) -> None:
    env = {"MYPYPATH": str(TEMPLATE)}
    cache = CACHE / "typed-calls"  # what mypy has found out of other packages
    options = "--strict", "--cache-dir", str(cache)
    with locked(cache.with_suffix(".lock")):
        assert complaints(tmp_path, "mypy", *options, env=env) == WRONG


@pytest.mark.slow
def test_pyright_knows_calls(tmp_path: Path) -> None:
    options = {"typeCheckingMode": "standard", "extraPaths": [str(TEMPLATE)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(options))
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    assert complaints(tmp_path, "basedpyright", env=env) == WRONG
