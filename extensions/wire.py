# /// script
# requires-python = ">=3.11"
# dependencies = ["libcst>=1.8"]
# ///
"""Connects the queue to the project: the few lines in files that are the user's own.

Run in the project: by Copier, after the files are rendered, or by hand. What it does
not understand it leaves alone, and prints what to add.

    uv run ../paxx-arq/extensions/wire.py diff --package core
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from files import is_ignored, write
from leaving import leave, to_delete
from notes import notes
from rendered import CannotTellError, Template, dropped_edits
from seams import (
    OTHER,
    Edit,
    Options,
    UnknownShapeError,
    deploy,
    env,
    lifespan,
    page,
    password,
    pyproject,
    settings,
)


@dataclass(frozen=True)
class Seam:
    """One place in the project that the queue needs."""

    files: tuple[str, ...]
    """Where it can be: the first that exists."""
    edit: Edit
    """How it is added and taken out, and its lines in words."""
    optional: bool = False
    """Nothing is missing when there is no such file."""
    missed: bool = True
    """Is it a mistake when it is not there any more?"""
    wanted: Callable[[Options], bool] = lambda options: True
    """Do the answers ask for it?"""
    needs: str = ""
    """The file without whose seam this one does harm."""


def with_page(options: Options) -> bool:
    """Is the jobs page asked for?"""
    return options.jobs_page


SERVER = "deploy/linux-server"

SEAMS = (
    Seam(("settings.py", "settings/__init__.py"), settings),
    Seam(("main.py",), lifespan),
    Seam(("pyproject.toml",), pyproject),
    Seam((".env.example",), env, optional=True, needs="settings.py"),
    Seam((".env",), env, optional=True, needs="settings.py"),
    Seam(("main.py",), page, wanted=with_page),
    Seam(
        (".env.example",),
        password.EXAMPLE,
        optional=True,
        missed=False,
        wanted=with_page,
    ),
    Seam((".env",), password.ENV, optional=True, missed=False, wanted=with_page),
    Seam((f"{SERVER}/deploy.sh",), deploy.DEPLOY, optional=True),
    Seam((f"{SERVER}/deploy-init.sh",), deploy.INIT, optional=True),
    Seam((f"{SERVER}/deploy-purge.sh",), deploy.PURGE, optional=True),
)

MODES = {
    "write": "add the seams",
    "diff": "print the diff of that to stdout, change nothing",
    "check": "print which seams are missing, change nothing",
    "remove": "take the seams out, and the template's files but those you have changed",
    "remove-all": "those, too",
}

WIRED, UNWIRED = "    wired  ", "    unwired  "


# --- One seam -----------------------------------------------------------------------


def wire(
    seam: Seam, options: Options, *, mode: str, drafts: dict[str, bytes] | None = None
) -> str:
    """Bring one seam about; returns what to tell the user.

    Mode "diff" writes into `drafts`, by name, and leaves the files alone.
    """
    drafts = {} if drafts is None else drafts
    wanted = seam.wanted(options)
    if mode in ("write", "diff") and not wanted:
        return ""
    if mode == "check" and not seam.missed:
        return ""
    name = _existing(seam, options)
    if not name:
        if seam.optional or mode == "remove" or not wanted:
            return ""
        return _by_hand(seam.files[0], "there is no such file", seam, options, mode)
    path = options.root / name
    try:
        source = drafts.get(name) or path.read_bytes()
        remove = mode == "remove" or (mode == "check" and not wanted)
        result = edited(source, seam, options, mode="remove" if remove else mode)
        if result == source:
            return ""
        if mode == "check":
            return _difference(name, source, result, seam, options)
        if mode != "remove" and not _is_wired(seam.needs, options, drafts):
            raise UnknownShapeError(f"{seam.needs} does not know the queue yet")
        if mode == "diff":
            if is_ignored(path):
                return f"{name} changes, too; it is not shown, as git ignores it."
            drafts[name] = result
            return ""
        write(path, result)
    except UnknownShapeError as exc:
        return _by_hand(name, str(exc), seam, options, mode)
    except OSError as exc:
        why = exc.strerror or "it cannot be read"
        return _by_hand(name, why, seam, options, mode)
    target = f" -> {path.readlink()}" if path.is_symlink() else ""
    target += " (not in git)" if is_ignored(path) else ""
    return f"{UNWIRED if mode == 'remove' else WIRED}{name}{target}"


def edited(source: bytes, seam: Seam, options: Options, *, mode: str) -> bytes:
    """The file with the seam in it, or without it; checked.

    Raises:
        UnknownShapeError: That cannot be, or would not hold.
    """
    edit = seam.edit.remove if mode == "remove" else seam.edit.add
    try:
        result = edit(source, options)
        holds = edit(result, options) == result
    except RecursionError as exc:
        raise UnknownShapeError("its code is nested too deeply") from exc
    if not holds:
        raise UnknownShapeError("the result could not be verified")
    return result


def diff(path: str, old: bytes, new: bytes) -> str:
    """A unified diff."""
    before, after = (
        data.decode(errors="replace").splitlines(keepends=True) for data in (old, new)
    )
    return "".join(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"))


def _existing(seam: Seam, options: Options) -> str:
    return next((name for name in seam.files if (options.root / name).is_file()), "")


def _is_wired(name: str, options: Options, drafts: dict[str, bytes]) -> bool:
    """Is the seam in this file? True where there is no such seam."""
    for seam in SEAMS:
        if name in seam.files:
            name = _existing(seam, options)
            try:
                source = drafts.get(name) or (options.root / name).read_bytes()
                return seam.edit.add(source, options) == source
            except (OSError, UnknownShapeError, RecursionError):
                return False
    return True


def _by_hand(path: str, why: str, seam: Seam, options: Options, mode: str) -> str:
    """What to print where nothing was changed."""
    what = "Take out" if mode == "remove" else "Add"
    lines = seam.edit.lines(options)
    return f"{path} was left as it is: {why}. {what} by hand:\n\n{lines}\n"


def _difference(
    name: str, source: bytes, result: bytes, seam: Seam, options: Options
) -> str:
    """What to print where a file is not as the answers ask for."""
    if not seam.wanted(options):
        return f"{name} has lines too many. Take out:\n\n{seam.edit.lines(options)}\n"
    if len(result) < len(source):
        return f"{name} has lines too many:\n\n{diff(name, source, result)}"
    return f"{name} lacks the queue's lines:\n\n{seam.edit.lines(options)}\n"


# --- The command --------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{mode:10} {text}" for mode, text in MODES.items()),
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--package", required=True, choices=OTHER)
    parser.add_argument("--redis-db", type=int, default=1)
    parser.add_argument("--max-jobs", type=int, default=10)
    parser.add_argument("--job-timeout", type=int, default=300, help="seconds")
    parser.add_argument("--no-jobs-page", action="store_false", dest="jobs_page")
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--queue-name", default="arq:queue")
    parser.add_argument("--serializer", choices=("json", "pickle"), default="json")
    parser.add_argument("--seam", help="only this file, as in --seam main.py")
    parser.add_argument("--copier", default="python", help="a Python that has Copier")
    parser.add_argument("--answers-file", default=".copier-answers.yml")
    arguments = vars(parser.parse_args(argv))
    mode, only = arguments.pop("mode"), arguments.pop("seam")
    root = Path.cwd()
    template = Template(root, arguments.pop("copier"), arguments.pop("answers_file"))
    options = Options(root, **arguments)
    if mode in ("remove", "remove-all"):
        _remove(options, template, everything=mode == "remove-all")
    else:
        _add(options, template, mode, only)


def _remove(options: Options, template: Template, *, everything: bool) -> None:
    """Modes "remove" and "remove-all"."""
    try:  # asked before anything is taken out
        files = template.rendered()
        deleted, kept = to_delete(template, files, everything=everything)
    except CannotTellError as exc:
        sys.exit(f"The queue was left as it is: {exc}.")
    messages = [wire(seam, options, mode="remove") for seam in reversed(SEAMS)]
    _say([*messages, *leave(template.root, deleted, kept)])


def _add(options: Options, template: Template, mode: str, only: str | None) -> None:
    """Modes "write", "diff" and "check"."""
    drafts: dict[str, bytes] = {}
    messages = [
        wire(seam, options, mode=mode, drafts=drafts)
        for seam in SEAMS
        if only is None or only in seam.files
    ]
    if only is None and mode in ("write", "check"):
        messages += notes(options)
    if only is None and mode == "check":
        messages.append(dropped_edits(template))
    _say(messages)
    try:
        for name, draft in drafts.items():
            print(diff(name, (options.root / name).read_bytes(), draft), end="")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(messages: Sequence[str]) -> None:
    """Print what there is, the files that were wired first, on one line if they fit.

    The diff has stdout for itself.
    """
    unique = [*filter(None, dict.fromkeys(messages))]  # a file may have two seams
    wired = [it.removeprefix(WIRED) for it in unique if it.startswith(WIRED)]
    if wired:
        text = WIRED + ", ".join(wired)
        indent = " " * len(WIRED)
        lines = textwrap.wrap(
            text, 80, subsequent_indent=indent, break_on_hyphens=False
        )
        print(*lines, sep="\n", file=sys.stderr)
    for message in unique:
        if not message.startswith(WIRED):
            print(message, file=sys.stderr)


if __name__ == "__main__":
    main()
