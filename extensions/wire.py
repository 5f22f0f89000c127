# /// script
# requires-python = ">=3.11"
# dependencies = ["copier>=9.19.1", "copier-template-extensions>=0.3.4"]
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
import re
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from files import is_ignored, write
from leaving import leave, to_delete
from notes import notes
from paxx import Project
from rendered import CannotTellError, Rendering, losses
from seams import (
    OTHER,
    Options,
    Seam,
    UnknownShapeError,
    deploy,
    env,
    lifespan,
    page,
    password,
    pyproject,
    settings,
)

SEAMS = (
    settings.SEAM,
    lifespan.SEAM,
    pyproject.SEAM,
    env.EXAMPLE,
    env.ENV,
    page.SEAM,
    password.EXAMPLE,
    password.ENV,
    deploy.DEPLOY,
    deploy.INIT,
    deploy.PURGE,
)

MODES = {
    "write": "add the seams",
    "diff": "print the diff of that to stdout, change nothing",
    "check": "print which seams are missing; add those that are new since --since",
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
        if Project(options.root).link_out(name):
            raise UnknownShapeError("it is a link out of the project")
        source = drafts.get(name) or path.read_bytes()
        remove = mode == "remove" or (mode == "check" and not wanted)
        result = edited(source, seam, options, mode="remove" if remove else mode)
        if result == source:
            return ""
        if mode == "check":
            return _difference(name, source, result, seam, options)
        if mode != "remove" and not _is_wired(seam.needs, options, drafts):
            raise UnknownShapeError(f"{seam.needs[0]} does not know the queue yet")
        if mode == "diff":
            if (is_ignored(path), seam.private) in HIDDEN:
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


HIDDEN = {(True, True), (True, False), (None, True)}
"""What is not shown: does git ignore it, and is it private?"""


def edited(source: bytes, seam: Seam, options: Options, *, mode: str) -> bytes:
    """The file with the seam in it, or without it; checked.

    Raises:
        UnknownShapeError: That cannot be, or would not hold.
    """
    edit = seam.remove if mode == "remove" else seam.add
    result = edit(source, options)
    if edit(result, options) != result:
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


def _is_wired(
    needed: tuple[str, ...], options: Options, drafts: dict[str, bytes]
) -> bool:
    """Is the seam of these files there? True where none is needed."""
    for seam in SEAMS:
        if needed and needed[0] in seam.files:
            name = _existing(seam, options)
            try:
                source = drafts.get(name) or (options.root / name).read_bytes()
                return seam.add(source, options) == source
            except (OSError, UnknownShapeError):
                return False
    return True


def _by_hand(path: str, why: str, seam: Seam, options: Options, mode: str) -> str:
    """What to print where nothing was changed."""
    what = "Take out" if mode == "remove" else "Add"
    lines = seam.lines(options)
    return f"{path} was left as it is: {why}. {what} by hand:\n\n{lines}\n"


def _difference(
    name: str, source: bytes, result: bytes, seam: Seam, options: Options
) -> str:
    """What to print where a file is not as the answers ask for."""
    if not seam.wanted(options):
        return f"{name} has lines too many. Take out:\n\n{seam.lines(options)}\n"
    if len(result) < len(source):
        return f"{name} has lines too many:\n\n{diff(name, source, result)}"
    return f"{name} lacks the queue's lines:\n\n{seam.lines(options)}\n"


# --- The command --------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{mode:10} {text}" for mode, text in MODES.items()),
    )
    boolean = argparse.BooleanOptionalAction
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--package", required=True, choices=OTHER)
    parser.add_argument("--redis-db", type=int, default=1)
    parser.add_argument("--max-jobs", type=int, default=10)
    parser.add_argument("--job-timeout", type=int, default=300, help="seconds")
    parser.add_argument("--jobs-page", action=boolean, default=True)
    parser.add_argument("--metrics", action=boolean, default=False)
    parser.add_argument("--queue-name", default="arq:queue")
    parser.add_argument("--serializer", choices=("json", "pickle"), default="json")
    parser.add_argument("--since", default="", help="the version before the update")
    parser.add_argument("--answers-file", default=".copier-answers.yml")
    parser.add_argument("--template", default=str(Path(__file__).parent.parent))
    arguments = vars(parser.parse_args(argv))
    mode, since = arguments.pop("mode"), arguments.pop("since")
    root = Path.cwd()
    rendering = Rendering(
        root, arguments.pop("answers_file"), arguments.pop("template")
    )
    options = Options(root, **arguments)
    if mode in ("remove", "remove-all"):
        _remove(options, rendering, everything=mode == "remove-all")
    elif mode == "check":
        _check(options, rendering, since)
    else:
        _add(options, mode)


def _remove(options: Options, rendering: Rendering, *, everything: bool) -> None:
    """Modes "remove" and "remove-all"."""
    try:  # asked before anything is taken out
        deleted, kept = to_delete(rendering, everything=everything)
    except CannotTellError as exc:
        sys.exit(f"The queue was left as it is: {exc}.")
    messages = [wire(seam, options, mode="remove") for seam in reversed(SEAMS)]
    _say([*messages, *leave(options.root, deleted, kept)])


def _check(options: Options, rendering: Rendering, since: str) -> None:
    """Mode "check", which ends with 1 where changes of the user's are lost."""
    new = [seam for seam in SEAMS if _numbers(since) < _numbers(seam.since)]
    messages = [
        wire(seam, options, mode="write" if since and seam in new else "check")
        for seam in SEAMS
    ]
    lost = losses(rendering)
    _say([*messages, *notes(options), *(one.text for one in lost)])
    if any(one.is_fault for one in lost):
        sys.exit(1)


def _numbers(version: str) -> tuple[int, ...]:
    """1.10.0 as (1, 10, 0)."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, match[1].split("."))) if match else ()


def _add(options: Options, mode: str) -> None:
    """Modes "write" and "diff"."""
    drafts: dict[str, bytes] = {}
    messages = [wire(seam, options, mode=mode, drafts=drafts) for seam in SEAMS]
    _say(messages + (notes(options) if mode == "write" else []))
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
