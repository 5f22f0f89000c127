"""Idle workers are woken when a job is enqueued, instead of polling for it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from arq import ArqRedis

from ..connection import UNREACHABLE
from ..keys import WAKE

#: After so many seconds of silence, the connection is tried with a ping.
SILENCE_S = 15


async def listen(
    redis: ArqRedis, queue: str, free: Callable[[], int], wake: asyncio.Event
) -> None:
    """Set `wake` for each message of the queue's channel, until cancelled.

    But while nothing is `free` to do something about it.
    """
    while True:
        with suppress(*UNREACHABLE):  # until it is back, poll_delay it is
            async with redis.pubsub() as pubsub:
                await pubsub.subscribe(queue + WAKE)
                asked = False
                while True:
                    message = await pubsub.get_message(timeout=SILENCE_S)
                    if message is None and asked:
                        raise ConnectionError("no answer to a ping")
                    asked = message is None
                    if asked:  # a connection that is half open is as quiet
                        await pubsub.ping()
                    elif free() > 0:
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
