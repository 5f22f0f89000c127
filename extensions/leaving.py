"""Deletes what the template has rendered, and lists what is left of the queue."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rendered import Template, alike, git

REFERENCES = r"\b(core|services)(\.| import .*)\b(arq\w*|tasks)\b|\bARQ_[A-Z]"
"""What still speaks of the queue, for `git grep -E`."""


def to_delete(
    template: Template, files: dict[str, bytes], *, everything: bool
) -> tuple[list[str], list[str]]:
    """Which of the template's files to delete, and which to keep.

    Args:
        template: What is to go.
        files: What it has rendered.
        everything: Delete also what the user has changed.

    Raises:
        CannotTellError: Git does not say how old an empty file is.
    """
    root, answers_file = template.root, template.answers_file
    there = [
        name
        for name, content in files.items()
        if (root / name).is_file() and (content or _came_with(root, name, answers_file))
    ]
    kept = [
        name
        for name in there
        if not everything and not alike((root / name).read_bytes(), files[name])
    ]
    return [*(name for name in there if name not in kept), answers_file], kept


def leave(root: Path, deleted: Iterable[str], kept: Sequence[str]) -> Iterator[str]:
    """Delete the files; says what was done, and what is left of the queue."""
    for name in deleted:
        path = root / name
        try:
            path.unlink(missing_ok=True)
        except OSError as exc:
            yield f"{name} is still there: {exc.strerror}. Delete it by hand."
            continue
        for directory in path.relative_to(root).parents[:-1]:
            with suppress(OSError):  # there is something else in it
                (root / directory).rmdir()
        yield f"    deleted  {name}"
    if kept:
        yield f"\nKept, since you have changed it: {', '.join(kept)}"
    left = _references(root, but=kept)
    if left:
        yield "\nThese lines still speak of the queue:\n\n    " + "\n    ".join(left)
    yield "\nLook at it with `git diff HEAD`, then `uv sync` and commit."


def _came_with(root: Path, name: str, answers_file: str) -> bool:
    """Is it as old as the answers file? An empty file may have been there before."""
    added = ("log", "--diff-filter=A", "--format=%H", "-1", "--")
    return git(root, *added, name) == git(root, *added, answers_file)


def _references(root: Path, *, but: Iterable[str]) -> list[str]:
    """Lines of the project that still speak of the queue, as `file:number: line`."""
    done = subprocess.run(
        ["git", "grep", "-nIE", REFERENCES, "--", ".", *(f":!{name}" for name in but)],
        cwd=root,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()
