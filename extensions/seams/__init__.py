"""The lines that the queue needs in files that are the user's: a module for each kind.

What a module does to a file, `Edit`, is in three functions side by side: `lines`, in
words; `add`, which takes the bytes of a file and returns them with the lines in it, or
as they are when it is there already; and `remove`, its mirror. None guesses: where a
file has another shape, they raise `UnknownShapeError`, and the user is told the lines
instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

OTHER = {"core": "services", "services": "core"}


@dataclass(frozen=True)
class Options:
    """What the edits depend on: the answers."""

    root: Path
    package: str
    redis_db: int = 1
    max_jobs: int = 10
    job_timeout: int = 300
    queue_name: str = "arq:queue"
    serializer: str = "json"
    jobs_page: bool = True
    metrics: bool = False


class Edit(Protocol):
    """A module of this package, or an object in one that has several."""

    def lines(self, options: Options) -> str:
        """What to add, or to take out, by hand."""

    def add(self, source: bytes, options: Options) -> bytes:
        """The file with the lines in it."""

    def remove(self, source: bytes, options: Options) -> bytes:
        """The file without them."""


class UnknownShapeError(Exception):
    """A file does not look the way an edit needs it; says why."""


def newline_of(source: bytes) -> bytes:
    """The file's line ending."""
    return b"\r\n" if b"\r\n" in source else b"\n"


def append(source: bytes, text: str) -> bytes:
    """The file with lines at its end, below a blank one."""
    newline = newline_of(source)
    lines = newline.join(line.encode() for line in text.splitlines())
    return source + (newline if source else b"") + lines + newline


def undo(
    source: bytes, candidates: Iterable[bytes], add: Callable[[bytes], bytes]
) -> bytes:
    """What the file was before `add`: the candidate that it turns into `source`.

    Where there is none, since the user has moved the lines about, the first.
    """
    first = source
    for index, candidate in enumerate(candidates):
        first = first if index else candidate
        try:
            if add(candidate) == source:
                return candidate
        except UnknownShapeError:
            continue
    return first
