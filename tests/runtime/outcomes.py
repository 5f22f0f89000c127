"""What becomes of calls while Redis fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, NamedTuple

import pytest
from arq_runtime import server
from arq_runtime.client import sender
from kit import App
from redis.exceptions import ConnectionError, RedisError

#: How an error names the place where to look.
NAMED = "Redis fails, see ARQ_REDIS_URL: "


class Outcome(NamedTuple):
    """How a call has ended."""

    seconds: float
    text: str
    """"done", or its error."""

    @property
    def is_done(self) -> bool:
        return self.text == "done"


class OwnTime:
    """Seconds for which this event loop has run: a stall of the machine counts little.

    In a task of its own, which the caller cancels.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.now += min(time.monotonic() - before, 0.1)


async def outcome(call: Awaitable[Any]) -> Outcome:
    """Wait for a call: it is done, or Redis is not available."""
    start = time.monotonic()
    try:
        await call
        text = "done"
    except RedisError as exc:
        assert isinstance(exc, ConnectionError), exc
        text = str(exc)
    return Outcome(time.monotonic() - start, text)


async def at_once(app: App, number: int) -> list[Outcome]:
    """Enqueue so many jobs at the same time, and look at one."""
    lookup = app.lookup
    calls: list[Awaitable[Any]] = [app.enqueue("count") for _ in range(number)]
    calls += [lookup.get_job_status("x"), lookup.abort_job("x"), lookup.forget_job("x")]
    return await asyncio.gather(*map(outcome, calls))


def shorten(
    monkeypatch: pytest.MonkeyPatch, *, deadline: float, attempt: float
) -> None:
    """Have calls end after fewer than 5 seconds."""
    for module in (server, sender):
        monkeypatch.setattr(module, "DEADLINE_S", deadline)
        monkeypatch.setattr(module, "ATTEMPT_S", attempt)
