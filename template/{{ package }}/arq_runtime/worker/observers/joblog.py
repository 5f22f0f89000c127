"""The newest lines that a job has logged: seen with it while it runs or has failed."""

import logging
import re
from collections import deque
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from arq import ArqRedis

from ...keys import LOG
from ..job import ERROR_SIZE, LOGGED_ERROR_SIZE, ClaimedJob, Context, clean
from .observer import Observer

_KEEP_MS = 24 * 60 * 60 * 1000
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class _Lines:
    """Of one try. Threads add to them, too: each step is one that Python does whole."""

    def __init__(self, most: int) -> None:
        self._newest = deque[str](maxlen=most)
        self.written = ""

    def add(self, text: str) -> None:
        lines = _COLOURS.sub("", text).splitlines()
        self._newest.extend([clean(line, LOGGED_ERROR_SIZE) for line in lines])

    def text(self) -> str:
        """The newest that fit into ERROR_SIZE."""
        size, lines = 0, deque[str]()
        for line in reversed(self._newest.copy()):
            size += len(line) + 1
            if size > ERROR_SIZE:
                break
            lines.appendleft(line)
        return "\n".join(lines)


_LINES = ContextVar[_Lines | None]("arq_lines", default=None)


class _Noting(logging.Formatter):
    """Formats as the project does, and notes the line with the job that logs it."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        text = self._formatter.format(record)
        # the worker's own lines say what is known of the job anyway
        if record.name != "arq.worker" and (lines := _LINES.get()) is not None:
            lines.add(str(text))
        return text


class JobLogs(Observer):
    """Keeps what jobs log as it is in the log: below its levels, filters and format.

    Args:
        most: How many lines of a job.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._running: dict[ClaimedJob, _Lines] = {}

    @contextmanager
    def around(self, job: ClaimedJob, queue: str) -> Iterator[None]:
        """Note its lines."""
        for handler in logging.getLogger().handlers:
            is_text = handler.formatter or isinstance(handler, logging.StreamHandler)
            if is_text and not isinstance(handler.formatter, _Noting):
                handler.setFormatter(_Noting(handler.formatter or logging.Formatter()))
            if is_text:
                break  # another one would write the same once more
        lines = self._running[job] = _Lines(self._most)
        token = _LINES.set(lines)
        try:
            yield
        finally:
            _LINES.reset(token)
            self._running.pop(job, None)

    def finishing(self, job: ClaimedJob, ctx: Context) -> Awaitable[None] | None:
        """They go with its end, where that is a failure."""
        job.log = self._running.pop(job).text()
        return None

    async def write(self, redis: ArqRedis) -> None:
        """Write what running jobs have logged since the last time.

        Raises:
            redis.exceptions.RedisError, OSError: Redis is unreachable.
        """
        found = [(job, lines, lines.text()) for job, lines in self._running.items()]
        new = [one for one in found if one[1].written != one[2]]
        if not new:
            return
        async with redis.pipeline(transaction=False) as pipe:
            for job, _, text in new:
                pipe.set(LOG.encode() + job.id, text, px=_KEEP_MS)
            await pipe.execute()
        for _, lines, text in new:
            lines.written = text
