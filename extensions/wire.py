"""Connects the queue to the project: the few lines in files that are the user's own.

Copier runs it in the project, after the files are rendered. What it does not understand
it leaves alone, and prints what to add.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from commands import FACTS
from leaving import leave, to_delete
from notes import notes
from packaging.version import Version
from paxx import Project
from rendered import CannotTellError, Rendering, losses
from repository import Repository
from seams import (
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

WIRED, UNWIRED = "    wired  ", "    unwired  "


# --- One seam -----------------------------------------------------------------------


def wire(
    seam: Seam, options: Options, *, mode: str, drafts: dict[str, bytes] | None = None
) -> str:
    """Bring one seam about; returns what to tell the user.

    Args:
        seam: The seam.
        options: The answers.
        mode: As in `main`, but "diff" writes into `drafts`, and "check" returns the
            name of the file that is not as it should be.
        drafts: The files with their seams, by name.
    """
    drafts = {} if drafts is None else drafts
    wanted = mode != "remove" and seam.wanted(options)
    if not wanted and mode in ("write", "diff"):
        return ""
    if not seam.missed and (mode == "check" or (mode == "wire" and not wanted)):
        return ""
    name = Project(options.root).first(seam.files)
    if not name and (seam.optional or not wanted):
        return ""
    name = name or seam.files[0]
    path, repository = options.root / name, Repository(options.root)
    try:
        if Project(options.root).link_out(name):
            raise UnknownShapeError("it is a link out of the project")
        source = drafts.get(name) or path.read_bytes()
        result = edited(source, seam, options, mode="write" if wanted else "remove")
        if result == source:
            return ""
        if mode == "check":
            return name
        if wanted and seam.needs_settings and not _has_settings(options, drafts):
            raise UnknownShapeError("settings.py does not know the queue yet")
        if mode == "diff":
            is_private = name == ".env" and not repository.blobs([name])
            if is_private or repository.ignores(name):
                return f"{name} changes, too; it is not shown, as git ignores it."
            drafts[name] = result
            return ""
        if not path.stat().st_mode & stat.S_IWUSR:
            raise UnknownShapeError("it is read-only")
        _replace(path, source, result)
    except (UnknownShapeError, OSError) as exc:
        why = getattr(exc, "strerror", None) or str(exc)
        return _by_hand(name, why, seam, options, wanted)
    target = f" -> {path.readlink()}" if path.is_symlink() else ""
    target += " (not in git)" if repository.ignores(name) else ""
    return f"{WIRED if wanted else UNWIRED}{name}{target}"


def _replace(path: Path, old: bytes, new: bytes) -> None:
    """Write in place, which keeps mode, owner and links; all or nothing."""
    try:
        path.write_bytes(new)
    except OSError:  # the disk is full, say: there was room for the old
        path.write_bytes(old)
        raise


def edited(source: bytes, seam: Seam, options: Options, *, mode: str) -> bytes:
    """The file with the seam in it, or without it; checked.

    Raises:
        UnknownShapeError: That cannot be, or would not hold.
    """
    edit = seam.remove if mode == "remove" else seam.add
    newline = "\r\n" if b"\r\n" in source else "\n"
    try:
        text = source.decode().replace(newline, "\n")
    except UnicodeDecodeError as exc:
        raise UnknownShapeError("it is not UTF-8") from exc
    if "\r" in text or text.replace("\n", newline).encode() != source:
        raise UnknownShapeError("its lines end in several ways")
    result = edit(text, options)
    if edit(result, options) != result:
        raise UnknownShapeError("the result could not be verified")
    return result.replace("\n", newline).encode()


def _has_settings(options: Options, drafts: dict[str, bytes]) -> bool:
    """Does Settings inherit the queue's fields?"""
    name = Project(options.root).first(settings.SEAM.files)
    try:
        source = drafts.get(name) or (options.root / name).read_bytes()
        return edited(source, settings.SEAM, options, mode="write") == source
    except (OSError, UnknownShapeError):
        return False


def _by_hand(path: str, why: str, seam: Seam, options: Options, wanted: bool) -> str:
    """What to print where nothing was changed."""
    what = "Add" if wanted else "Take out"
    return f"{path}: {why}. {what} by hand:\n\n{seam.lines(options)}\n"


# --- The command --------------------------------------------------------------------


def main(mode: str, facts: dict[str, Any]) -> None:
    """Do what Copier's `mode` says.

    Args:
        mode: "write" adds the seams; "wire" does, where nothing is rendered, and takes
            out those that the answers do not ask for; "diff" prints what "write" would
            change, to stdout; "check" prints which files are not as the queue needs
            them, after adding the seams that are new since a version; "remove" takes
            the seams out, and the template's files but those that the user has changed;
            "remove-all" those, too.
        facts: The `Options`, but for the root; and besides "answers_file", "template"
            and "since", the version before an update.
    """
    root, since = Path.cwd(), facts.pop("since")
    rendering = Rendering(root, facts.pop("answers_file"), facts.pop("template"))
    options = Options(root, **facts)
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
    new = [seam for seam in SEAMS if _is_newer(seam, since)]
    messages = [
        wire(seam, options, mode="write" if seam in new else "check") for seam in SEAMS
    ]
    names = {name for seam in SEAMS for name in seam.files}
    if stale := [*dict.fromkeys(it for it in messages if it in names)]:
        messages = [it for it in messages if it not in names]
        messages.append(
            f"The queue's lines are missing, or too many, in {', '.join(stale)}.\n"
            "To add them, or to take them out:\n\n"
            f"    {options.copier.format('recopy')} --data mode=wire\n"
        )
    lost = losses(rendering)
    _say([*messages, *notes(options), *lost])
    sys.exit(any(lost.values()))


def _is_newer(seam: Seam, since: str) -> bool:
    return bool(since and seam.since) and Version(since) < Version(seam.since)


def _add(options: Options, mode: str) -> None:
    """Modes "write", "wire" and "diff"."""
    drafts: dict[str, bytes] = {}
    messages = [wire(seam, options, mode=mode, drafts=drafts) for seam in SEAMS]
    _say(messages + ([] if mode == "diff" else notes(options)))
    try:
        for name, draft in drafts.items():
            files = ((options.root / name).read_bytes(), draft)
            old, new = (it.decode().splitlines(keepends=True) for it in files)
            lines = difflib.unified_diff(old, new, f"a/{name}", f"b/{name}")
            print("".join(lines), end="", flush=True)
    except BrokenPipeError:  # the reader has seen enough, as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(messages: Sequence[str]) -> None:
    """Print what there is, the files that were wired first, on one line if they fit.

    The diff has stdout for itself.
    """
    short = (re.sub(r"/deploy[\w-]*\.sh$", "/deploy*.sh", it) for it in messages)
    unique = [*filter(None, dict.fromkeys(short))]  # a file may have two seams
    if wired := [it.removeprefix(WIRED) for it in unique if it.startswith(WIRED)]:
        unique = [it for it in unique if not it.startswith(WIRED)]
        wrap = textwrap.TextWrapper(80, subsequent_indent=" " * len(WIRED))
        wrap.break_on_hyphens = False
        unique.insert(0, wrap.fill(WIRED + ", ".join(wired)))
    for message in unique:
        print(message, file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(os.environ[FACTS]))
