"""The lines that the queue needs in files that are the user's: a module for each kind.

A seam is a few such lines. None guesses: where a file has another shape, `add` and
`remove` raise `UnknownShapeError`, and the user is told the lines instead.
"""

from __future__ import annotations

from collections.abc import Callable
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
    add: Callable[[str, Options], str]
    """The file's text with the lines in it; as it is when it is there already."""
    remove: Callable[[str, Options], str]
    """The text without them: the mirror of `add`."""
    optional: bool = False
    """Nothing is missing when there is no such file."""
    missed: bool = True
    """Is it a mistake when it is not there any more?"""
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
