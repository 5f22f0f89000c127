"""Tasks that note what they do, in whatever process they run, and what they have noted.

It is written to a file: Redis may be away.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arq_runtime.worker.job import Context
from kit import WAIT_S, until

#: The environment variable that names the file.
FILE = "NOTES"


def note(ctx: Context, what: str, name: object) -> None:
    """Note this, with who ran the task: ctx["who"] in the test's own process."""
    who = ctx.get("who") or str(os.getpid())
    with Path(os.environ[FILE]).open("a") as file:
        file.write(f"{json.dumps((what, str(name), who, time.time()))}\n")


def _go(name: object) -> Path:
    """The file whose existence lets a task of this name go on."""
    return Path(os.environ[FILE]).with_name(f"go {name}")


def _may_go(name: object) -> bool:
    return _go(name).exists() or _go(f"{name} {os.getpid()}").exists()


async def pause(name: object, seconds: float) -> None:
    """Wait for so long, or until Notes.let_go(name)."""
    end, left = time.monotonic() + seconds, seconds
    while left > 0 and not _may_go(name):
        await asyncio.sleep(min(left, 0.05))
        left = end - time.monotonic()


async def job(ctx: Context, name: Any, wait: float = 0.0, pad: str = "") -> Any:
    note(ctx, "start", name)
    await asyncio.sleep(0)
    await pause(name, wait)
    note(ctx, "end", name)
    return name


async def plain(ctx: Context, n: int) -> int:
    """Notes nothing."""
    return n


async def once_slow(
    ctx: Context, name: str, seconds: float = 600.0, fails: bool = False
) -> str:
    """Its first try takes long; it returns who ran it."""
    note(ctx, "start", name)
    if ctx["job_try"] == 1:
        await pause(name, seconds)
        if fails:
            raise ValueError("late")
    note(ctx, "end", name)
    return ctx.get("who") or str(os.getpid())


async def block(ctx: Context, name: str, seconds: float) -> str:
    """Its first try blocks the worker; it returns who ran it."""
    note(ctx, "start", name)
    end = time.monotonic() + seconds
    while ctx["job_try"] == 1 and time.monotonic() < end and not _may_go(name):
        time.sleep(0.01)
    note(ctx, "end", name)
    return ctx.get("who") or str(os.getpid())


def sync(ctx: Context, name: str, seconds: float = 0.0) -> str:
    note(ctx, "start", name)
    time.sleep(seconds)
    note(ctx, "end", name)
    return name


async def fail(ctx: Context, name: str, times: int = 99) -> int:
    """It fails so many times; it returns which try it is."""
    note(ctx, "start", name)
    if ctx["job_try"] <= times:
        raise ValueError("no")
    return int(ctx["job_try"])


async def deadly(ctx: Context, name: str) -> None:
    """It ends its process."""
    note(ctx, "start", name)
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Event:
    """Something that a task has noted."""

    what: str
    name: str
    who: str
    at: float
    """By its process' own clock, in seconds since 1970."""


class Notes:
    """What the tasks of one test have noted.

    Args:
        file: Where they write; named by the environment variable FILE, too.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._found: list[Event] = []
        self._read = 0
        file.touch()

    def let_go(self, name: object, pid: int | str = "") -> None:
        """End the waiting of tasks of this name, in all processes or that one."""
        _go(f"{name} {pid}".rstrip()).touch()

    def events(self, name: object = None, what: str = "") -> list[Event]:
        """All, or those of this name or kind."""
        with self.file.open() as file:
            file.seek(self._read)
            while (line := file.readline()).endswith("\n"):
                self._found.append(Event(*json.loads(line)))
                self._read = file.tell()
        return [
            event
            for event in self._found
            if name is None or event.name == str(name)
            if what in ("", event.what)
        ]

    def starts(self, name: object = None) -> list[Event]:
        return self.events(name, "start")

    def ends(self, name: object = None) -> list[Event]:
        return self.events(name, "end")

    async def started(
        self, name: object, times: int = 1, timeout: float = WAIT_S
    ) -> list[Event]:
        """Wait until the task has started so often under this name; all its starts."""
        await until(lambda: len(self.starts(name)) >= times, timeout)
        return self.starts(name)

    async def ended(
        self, name: object, times: int = 1, timeout: float = WAIT_S
    ) -> list[Event]:
        """Wait until the task has ended so often under this name; all its ends."""
        await until(lambda: len(self.ends(name)) >= times, timeout)
        return self.ends(name)
