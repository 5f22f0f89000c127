"""Copier in the process of the test, and with it the wiring that it would launch.

What users get is the same, but for the seconds that two more Pythons take to start. A
test that is about the command itself, or about its launching the wiring with uv, has
`support.run` start `copier` as any other command.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    chdir,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
)
from itertools import takewhile
from pathlib import Path
from typing import IO, Any
from unittest.mock import patch

import plumbum
import wire
from copier.__main__ import CopierApp

_run = subprocess.run


def copier(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Copier's command line, in a directory and with more environment."""
    command = ["copier", *arguments]
    with (
        chdir(cwd),
        patch.dict(os.environ, env),
        plumbum.local.env(**env),  # Copier asks this copy of the environment
        wiring_in_process(),
        _redirected(1, redirect_stdout) as stdout,
        _redirected(2, redirect_stderr) as stderr,
    ):
        code = CopierApp.run(command, exit=False)[1]
        said = [_content(file) for file in (stdout, stderr)]
    return subprocess.CompletedProcess(command, code, *said)


def wiring_in_process() -> AbstractContextManager[object]:
    """Where Copier is to launch this repository's wiring, it is called instead."""
    return patch.object(subprocess, "run", _run_or_wire)


def _run_or_wire(
    command: Any, *args: Any, **options: Any
) -> subprocess.CompletedProcess[Any]:
    words = shlex.split(command) if isinstance(command, str) else [*map(str, command)]
    script = next((word for word in words if word.endswith("extensions/wire.py")), "")
    if not script or Path(script).read_bytes() != Path(wire.__file__).read_bytes():
        return _run(command, *args, **options)
    rest = words[words.index(script) + 1 :]
    try:
        wire.main([*takewhile(lambda word: word != "||", rest)])
    except SystemExit as exc:
        if isinstance(exc.code, str):
            print(exc.code, file=sys.stderr)
        return subprocess.CompletedProcess(command, 1 if exc.code else 0)
    return subprocess.CompletedProcess(command, 0)


@contextmanager
def _redirected(number: int, redirect: Any) -> Iterator[IO[str]]:
    """What this process, and those that it starts, write to a standard stream."""
    with tempfile.TemporaryFile("w+", buffering=1) as file:
        kept = os.dup(number)
        os.dup2(file.fileno(), number)
        try:
            with redirect(file):
                yield file
        finally:
            os.dup2(kept, number)
            os.close(kept)


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
