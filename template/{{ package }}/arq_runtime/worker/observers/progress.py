"""What a running job says of how far it has come."""

import asyncio
import json
import logging
from collections.abc import Awaitable
from dataclasses import dataclass

from arq import ArqRedis
from arq.utils import timestamp_ms
from redis.exceptions import RedisError

from ...keys import PROGRESS
from ..job import ClaimedJob, Context
from .observer import Observer

logger = logging.getLogger(__name__)

_INTERVAL_S = 1.0
_KEEP_MS = 24 * 60 * 60 * 1000
_LONGEST = 1000
_WRITER = "arq_progress"


async def set_progress(ctx: Context, percent: float, message: str = "") -> None:
    """Say how far the running job has come: `await set_progress(ctx, 40, "resizing")`.

    It can be called as often as you like, since it does not wait for Redis, which gets
    what was said last, at most once a second and when the job ends. It is kept as
    long as the result, and never fails the job. Outside of a worker, as in a test that
    calls the task, it does nothing.

    Args:
        ctx: What the worker gave the task.
        percent: 0 to 100.
        message: What it does now; up to 1,000 characters are kept.
    """
    if "redis" not in ctx or "job_id" not in ctx:
        return
    if _WRITER not in ctx:
        ctx[_WRITER] = _Writer(ctx["redis"], PROGRESS + ctx["job_id"])
    said = {
        "percent": min(100, max(0, percent)),  # and 0 for what is not a number
        "message": message[:_LONGEST],
        "at": timestamp_ms(),
    }
    ctx[_WRITER].say(json.dumps(said))


class Progress(Observer):
    """Writes what a job has said last, at its end; waits a second for it at most."""

    def finishing(self, job: ClaimedJob, ctx: Context) -> Awaitable[None] | None:
        """Write it."""
        writer: _Writer | None = ctx.get(_WRITER)
        if writer is None:
            return None
        job.has_progress = True
        return writer.finish()


@dataclass
class _Writer:
    """Writes the latest of one job's texts, at most once a second."""

    redis: ArqRedis
    key: str
    unwritten: str | None = None
    task: asyncio.Task[None] | None = None

    def say(self, text: str) -> None:
        self.unwritten = text
        if self.task is None or self.task.done():
            self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        while self.unwritten is not None:
            await self.write(self.unwritten)
            await asyncio.sleep(_INTERVAL_S)

    async def finish(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        if self.unwritten is not None:
            await self.write(self.unwritten)

    async def write(self, text: str) -> None:
        try:
            async with asyncio.timeout(_INTERVAL_S):
                await self.redis.set(self.key, text, px=_KEEP_MS)
        except (RedisError, OSError) as exc:  # a TimeoutError is an OSError
            logger.debug("The progress of %s is not written: %r", self.key, exc)
        else:
            if self.unwritten is text:  # nothing was said meanwhile
                self.unwritten = None
