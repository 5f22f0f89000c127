"""Idle workers are woken when a job is enqueued, instead of polling for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from arq import ArqRedis

from ..connection import REDIS_ERRORS

#: How long Redis keeps a worker waiting, in seconds: a connection that is half open
#: would wait for ever, and Redis would take it for a worker.
WAIT_S = 3
#: How long it may take to say so, in seconds.
ANSWER_S = 2


async def wait_for_jobs(
    redis: ArqRedis, key: str, is_idle: asyncio.Event, wake: asyncio.Event
) -> None:
    """Set `wake` when there is a job for this worker, until cancelled.

    Of the entries that lua/wake.lua adds to the list, each goes to one of the workers
    that wait; so this one waits only while it `is_idle`, which is over then.
    """
    execute: Callable[..., Awaitable[Any]] = redis.execute_command
    while True:
        with suppress(*REDIS_ERRORS):  # until it is back, poll_delay it is
            while await is_idle.wait():
                async with asyncio.timeout(WAIT_S + ANSWER_S):
                    if await execute("BLPOP", key, WAIT_S):
                        is_idle.clear()
                        wake.set()
        await asyncio.sleep(1)


@asynccontextmanager
async def beside(others: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run them for the length of the block."""
    tasks = [asyncio.create_task(one) for one in others]
    try:
        yield
    finally:
        # Again where a cancellation got lost, as it can before Python 3.12.
        while running := [task for task in tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=1)
