"""Copier in the process of the test, and with it the wiring that it would launch.

What users get is the same, but for the seconds that two more Pythons take to start. A
test that is about the command itself, or about its launching the wiring, has
`support.run` start `copier` as any other command.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from types import CodeType
from typing import IO, Any
from unittest.mock import patch

import clones
import plumbum
import wire
from commands import FACTS
from copier import _template
from copier.__main__ import CopierApp
from copier._main import Worker
from copier._vcs import get_git
from jinja2 import Environment

_run = subprocess.run
_compile = Environment.compile
_codes: dict[Any, CodeType] = {}
_load = _template.load_template_config
_configs: dict[bytes, dict[str, Any]] = {}
_sync_mode = Worker._sync_git_index_executable_bit
_answers_file = Worker.answers_relpath.fget  # type: ignore[attr-defined]
_rendered = Worker._render_string


def _compiled_once(self: Environment, source: str, *args: Any, **options: Any) -> Any:
    """Jinja's code for a text, which is the same each time.

    Copier compiles each part of each path anew, and for each the answers file's name:
    a third of the time that a copy takes.
    """
    syntax = (self.block_start_string, self.variable_start_string, *self.extensions)
    key = (source, args, *options.items(), *syntax)
    if key not in _codes:
        _codes[key] = _compile(self, source, *args, **options)
    return _codes[key]


def _loaded_once(path: Path, quiet: bool = False) -> dict[str, Any]:
    """What copier.yml says, whose YAML takes as long as all of the rendering."""
    text = path.read_bytes()
    if b"!include" in text:
        return _load(path, quiet)
    if text not in _configs:
        _configs[text] = _load(path, quiet)
    return copy.deepcopy(_configs[text])


def _rendered_once(self: Worker) -> Path:
    """The answers file's name, which Copier renders twice for each path."""
    known: dict[str, Any] = self.__dict__
    if "_answers_file" not in known:
        known["_answers_file"] = _answers_file(self)
    return Path(known["_answers_file"])


def _rendered_if_templated(
    self: Worker, string: str, extra_context: dict[str, Any] | None = None
) -> str:
    """What Jinja makes of a text: itself, where nothing is in braces.

    Most parts of the template's paths are such texts.
    """
    if not set("{}\n").intersection(string) and not self.template.envops.keys() - {
        "keep_trailing_newline"
    }:
        return string
    return _rendered(self, string, extra_context)


def _ignores_modes(root: Path) -> bool:
    """Does git not look at files' modes there? Copier asks it for each file."""
    asked = ("config", "--type=bool", "--get", "core.fileMode")
    return bool(get_git(root)(*asked, retcode=None).strip() == "false")


def copier(
    *arguments: str, cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Copier's command line, in a directory and with more environment."""
    command = ["copier", *arguments]

    def run() -> int:
        # plumbum's copy of the environment is the one that Copier asks
        with plumbum.local.env(**env), shortcuts():
            return int(CopierApp.run(command, exit=False)[1])

    return _done(command, run, cwd, env)


def wiring(
    mode: str, facts: dict[str, Any], *, cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """What wire.py does, in a directory and with more environment."""
    return _done(["wire.py", mode], lambda: _wire(mode, facts), cwd, env)


def facts(**changed: Any) -> dict[str, Any]:
    """What Copier tells wire.py, with other answers than the defaults."""
    rest = {"answers_file": ".copier-answers.yml", "since": ""}
    template = str(Path(wire.__file__).parent.parent)
    return {"package": "core", **rest, "template": template, **changed}


@contextmanager
def shortcuts() -> Iterator[None]:
    """This repository's wiring is called, not launched, and nothing is done twice."""
    ignores_modes = cache(_ignores_modes)

    def sync_mode(self: Worker, path: Path, mode: int) -> None:
        if ignores_modes(self.subproject.local_abspath):
            _sync_mode(self, path, mode)

    with (
        clones.made_once(),
        patch.object(subprocess, "run", _run_or_wire),
        patch.object(Environment, "compile", _compiled_once),
        patch.object(_template, "load_template_config", _loaded_once),
        patch.object(Worker, "answers_relpath", property(_rendered_once)),
        patch.object(Worker, "_render_string", _rendered_if_templated),
        patch.object(Worker, "_sync_git_index_executable_bit", sync_mode),
    ):
        yield


def _run_or_wire(
    command: Any, *args: Any, **options: Any
) -> subprocess.CompletedProcess[Any]:
    script, mode = command[-2:] if isinstance(command, list) else ("", "")
    if not str(script).endswith("extensions/wire.py") or (
        Path(script).read_bytes() != Path(wire.__file__).read_bytes()
    ):
        return _run(command, *args, **options)
    code = _wire(mode, json.loads(options["env"][FACTS]))
    return subprocess.CompletedProcess(command, code)


def _wire(mode: str, facts: dict[str, Any]) -> int:
    try:
        wire.main(mode, facts)
    except SystemExit as exc:
        if isinstance(exc.code, str):
            print(exc.code, file=sys.stderr)
        return 1 if exc.code else 0
    return 0


def _done(
    command: Sequence[str], run: Callable[[], int], cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """What a call has printed, and its exit code."""
    with (
        chdir(cwd),
        patch.dict(os.environ, env),
        _redirected(1, redirect_stdout) as stdout,
        _redirected(2, redirect_stderr) as stderr,
    ):
        code = run()
        said = [_content(file) for file in (stdout, stderr)]
    return subprocess.CompletedProcess(command, code, *said)


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
