"""The tasks of the workers in processes of their own, see processes.py.

What a job does is written to a file: Redis may be away.
"""

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from arq_runtime.worker.install import install
from arq_runtime.worker.job import Context
from kit import App


def note(what: str, name: object) -> None:
    """For Processes.events: one line, written at once."""
    event = what, str(name), os.getpid(), time.time()
    with Path(os.environ["EVENTS"]).open("a") as file:
        file.write(f"{json.dumps(event)}\n")


async def job(ctx: Context, name: Any, wait: float = 0.0) -> Any:
    note("start", name)
    await asyncio.sleep(wait)
    note("end", name)
    return name


async def once_slow(
    ctx: Context, name: str, seconds: float = 600.0, fails: bool = False
) -> int:
    """Its first try takes long; it returns who ran it."""
    note("start", name)
    if ctx["job_try"] == 1:
        await asyncio.sleep(seconds)
        if fails:
            raise ValueError("late")
    note("end", name)
    return os.getpid()


async def block(ctx: Context, name: str, seconds: float) -> int:
    """Its first try blocks the worker; it returns who ran it."""
    note("start", name)
    if ctx["job_try"] == 1:
        time.sleep(seconds)
    note("end", name)
    return os.getpid()


def sync(ctx: Context, name: str, seconds: float = 0.0) -> str:
    note("start", name)
    time.sleep(seconds)
    note("end", name)
    return name


async def fail(ctx: Context, name: str, times: int = 99) -> int:
    note("start", name)
    if ctx["job_try"] <= times:
        raise ValueError("no")
    return int(ctx["job_try"])


async def deadly(ctx: Context, name: str) -> None:
    note("start", name)
    os.kill(os.getpid(), signal.SIGKILL)


app = App(os.environ["ARQ_REDIS_URL"])
TASKS = (job, once_slow, block, sync, fail, deadly)
WorkerSettings = app.settings(*TASKS, **json.loads(os.environ["OPTIONS"]))
install()
