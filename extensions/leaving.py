"""Deletes what the template has rendered, and lists what is left of the queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rendered import CannotTellError, Rendering
from repository import Repository, alike

REFERENCES = r"\b(core|services)(\.| import .*)\b(arq\w*|tasks)\b|\bARQ_[A-Z]"
"""What still speaks of the queue, for `git grep -E`."""


def to_delete(rendering: Rendering, *, everything: bool) -> tuple[list[str], list[str]]:
    """Which of the template's files to delete, and which to keep.

    Args:
        rendering: What is to go.
        everything: Delete also what the user has changed.

    Raises:
        CannotTellError: It is not known what the template has rendered, or git has no
            copy of what would be deleted.
    """
    repository, answers_file = rendering.repository, rendering.answers_file
    files = rendering.files()
    there = [
        name
        for name, content in files.items()
        if (repository.root / name).is_file()
        and (content or _came_with(repository, name, answers_file))
    ]
    kept = [
        name
        for name in there
        if not everything
        and not alike((repository.root / name).read_bytes(), files[name])
    ]
    deleted = [*(name for name in there if name not in kept), answers_file]
    if lost := repository.uncommitted(deleted):
        raise CannotTellError(f"git has no copy of {', '.join(lost)}")
    return deleted, kept


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
    others = (":.", *(f":(exclude,literal){name}" for name in kept))
    grep = ("grep", "--no-textconv", "-nIE", REFERENCES, "--", *others)
    if left := Repository(root).run(*grep).splitlines():
        yield "\nThese lines still speak of the queue:\n\n    " + "\n    ".join(left)
    yield "\nLook at it with `git diff HEAD`, then `uv sync` and commit."


def _came_with(repository: Repository, name: str, answers_file: str) -> bool:
    """Is it as old as the answers file? An empty file may have been there before."""
    added = ("log", "--no-show-signature", "--diff-filter=A", "--format=%H", "-1", "--")
    dates = [repository.run(*added, file) for file in (name, answers_file)]
    if not all(dates):
        raise CannotTellError("git log fails")
    return dates[0] == dates[1]
