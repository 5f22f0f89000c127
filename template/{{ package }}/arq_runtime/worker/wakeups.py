"""Idle workers are woken when a job is enqueued, instead of polling for it."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from arq import ArqRedis

from ..connection import UNREACHABLE
from ..keys import WAKE

#: After so many seconds of silence, the connection is tried with a ping.
SILENCE_S = 15


async def listen(
    redis: ArqRedis, queue: str, is_idle: Callable[[], bool], wake: asyncio.Event
) -> None:
    """Set `wake` for each message of the queue's channel, until cancelled."""
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
                    elif is_idle():
                        wake.set()
        await asyncio.sleep(1)


async def end(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Cancel tasks, again where that got lost, as it can before Python 3.12."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=1)
