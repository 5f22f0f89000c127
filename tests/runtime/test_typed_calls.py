"""A type checker knows a call by job(): its arguments, and what it returns."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CALLS = """
from typing import Any, assert_type

from arq_runtime.client.client import Client
from arq_runtime.client.job import Job


async def welcome(ctx: dict[str, Any], user_id: int, text: str = "") -> list[int]:
    return [user_id]


def plain(ctx: dict[str, Any], path: str) -> float:
    return 1.5


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
"""


@pytest.mark.slow
def test_mypy_knows_calls(tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text(CALLS)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "calls.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT / "template/{{ package }}")},
        capture_output=True,
        text=True,
    )
    lines = CALLS.splitlines()
    wrong = {int(n) for n in re.findall(r"^calls\.py:(\d+): error", done.stdout, re.M)}
    assert wrong == {n for n, line in enumerate(lines, 1) if "  # " in line}, (
        done.stdout
    )
