"""The lines that the queue needs in files that are the user's: a module for each kind.

A seam is a few such lines. None guesses: where a file has another shape, `add` and
`remove` raise `UnknownShapeError`, and the user is told the lines instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

OTHER_PACKAGE = {"core": "services", "services": "core"}


@dataclass(frozen=True)
class Options:
    """What the seams depend on: the answers."""

    root: Path
    package: str
    redis_db: int = 1
    max_jobs: int = 10
    job_timeout: int = 300
    queue_name: str = "arq:queue"
    serializer: str = "json"
    jobs_page: bool = True
    metrics: bool = False
    copier: str = "copier {} --defaults"
    """Copier's command line, as it runs here, without its subcommand."""


@dataclass(frozen=True)
class Seam:
    """One place in the project that the queue needs."""

    files: tuple[str, ...]
    """Where it can be: the first that exists."""
    lines: Callable[[Options], str]
    """What to add, or to take out, by hand."""
    add: Callable[[bytes, Options], bytes]
    """The file with the lines in it; as it is when it is there already."""
    remove: Callable[[bytes, Options], bytes]
    """The file without them: the mirror of `add`."""
    optional: bool = False
    """Nothing is missing when there is no such file."""
    missed: bool = True
    """Is it a mistake when it is not there any more?"""
    private: bool = False
    """Is the file never shown, unless git has it?"""
    of_page: bool = False
    """Is it for the jobs page alone?"""
    needs_settings: bool = False
    """Does it do harm where Settings does not have the queue's fields?"""
    since: str = ""
    """The version that brought it: an update from an older one adds it."""

    def wanted(self, options: Options) -> bool:
        """Do the answers ask for it?"""
        return options.jobs_page or not self.of_page


class UnknownShapeError(Exception):
    """A file does not look the way a seam needs it; says why."""


def newline_of(source: bytes) -> bytes:
    """The file's line ending."""
    return b"\r\n" if b"\r\n" in source else b"\n"


def append(source: bytes, text: str) -> bytes:
    """The file with lines at its end, below a blank one.

    Raises:
        UnknownShapeError: It is in another encoding.
    """
    try:
        source.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise UnknownShapeError("it is not UTF-8") from exc
    newline = newline_of(source)
    lines = newline.join(line.encode() for line in text.splitlines())
    return source + (newline if source else b"") + lines + newline


def undo(
    source: bytes, candidates: Iterable[bytes], add: Callable[[bytes], bytes]
) -> bytes:
    """What the file was before `add`: the candidate that it turns into `source`.

    Where there is none, since the user has moved the lines about, the first.
    """
    found = [*candidates]
    for candidate in found:
        with suppress(UnknownShapeError):
            if add(candidate) == source:
                return candidate
    return found[0]
