"""Deletes what the template has rendered, and lists what is left of the queue."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from rendered import Template, alike, git

REFERENCES = r"\b(core|services)(\.| import .*)\b(arq\w*|tasks)\b|\bARQ_[A-Z]"
"""What still speaks of the queue, for `git grep -E`."""


def leave(
    template: Template, files: dict[str, bytes], *, everything: bool
) -> Iterator[str]:
    """Delete the template's files; says what was done, and what is left of the queue.

    Args:
        template: What is to go.
        files: What it has rendered.
        everything: Delete also what the user has changed.

    Raises:
        CannotTellError: Git does not say how old an empty file is.
    """
    deleted, kept = _delete(template, files, everything=everything)
    yield from (f"    deleted  {name}" for name in deleted)
    if kept:
        yield f"\nKept, since you have changed it: {', '.join(kept)}"
    left = _references(template.root, but=kept)
    if left:
        yield "\nThese lines still speak of the queue:\n\n    " + "\n    ".join(left)
    yield "\nLook at it with `git diff HEAD`, then `uv sync` and commit."


def _delete(
    template: Template, files: dict[str, bytes], *, everything: bool
) -> tuple[list[str], list[str]]:
    """Delete the files that are as they were rendered; all, if wanted.

    Returns:
        What was deleted, and what was kept.
    """
    root, answers_file = template.root, template.answers_file
    deleted, kept = [], []
    for name, content in files.items():
        path = root / name
        if not path.is_file() or not (content or _came_with(root, name, answers_file)):
            continue
        if everything or alike(path.read_bytes(), content):
            path.unlink()
            deleted.append(name)
            for directory in path.relative_to(root).parents[:-1]:
                if not any((root / directory).iterdir()):
                    (root / directory).rmdir()
        else:
            kept.append(name)
    (root / answers_file).unlink()
    return [*deleted, answers_file], kept


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
