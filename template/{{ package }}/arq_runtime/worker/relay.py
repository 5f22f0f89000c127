"""The worker's part in the outbox: it has committed jobs moved to Redis."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from ..connection import REDIS_ERRORS, drop_replica
from ..keys import OUTBOX, WAKE
from ..queue import Queue
from ..server import ATTEMPT_S
from ..values import error_text
from .job import LOGGED_ERROR_SIZE, clean
from .outages import LOG_EVERY

logger = logging.getLogger("arq.worker")

#: How often to look for jobs, besides those that a commit announces; seconds.
POLL_S = 1
#: After so many seconds of silence, the connection is tried with a ping.
SILENCE_S = 15
#: After which another worker takes over from one that was killed; milliseconds.
TURN_MS = 5_000


class Relay:
    """Has the outbox moved while a worker runs. It ends no worker.

    The workers take turns: one at a time moves, which keeps the jobs in order and the
    others off the database. Should it be two, each job still is moved once.

    Args:
        queue: The project's default one.
        move: Moves some jobs, and returns whether there may be more.
    """

    def __init__(self, queue: Queue, move: Callable[[], Awaitable[bool]]) -> None:
        self._queue = queue
        self._move = move
        self._key = queue.name + OUTBOX
        self._log_at = 0.0

    async def __call__(self, is_burst: bool) -> None:
        """Move what there is and, unless in burst mode, what comes, until cancelled."""
        if is_burst:
            await self._move_all()
            return
        wake = asyncio.Event()
        listener = asyncio.create_task(self._listen(wake))
        try:
            while True:
                await self._take_turn()
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await wake.wait()
                wake.clear()
        finally:
            listener.cancel()

    async def _listen(self, wake: asyncio.Event) -> None:
        """Set `wake` for each commit, until cancelled."""
        redis = await self._queue.redis()
        while True:
            with suppress(*REDIS_ERRORS):  # until it is back, POLL_S it is
                async with redis.pubsub() as pubsub:
                    await pubsub.subscribe(self._key + WAKE)
                    asked = False
                    while True:
                        message = await pubsub.get_message(timeout=SILENCE_S)
                        if message is None and asked:
                            raise ConnectionError("no answer to a ping")
                        asked = message is None
                        if asked:  # a connection that is half open is as quiet
                            await pubsub.ping()
                        else:
                            wake.set()
            await asyncio.sleep(1)

    async def _take_turn(self) -> None:
        redis = await self._queue.redis()
        try:
            async with asyncio.timeout(ATTEMPT_S):
                if not await redis.set(self._key, "", nx=True, px=TURN_MS):
                    return
            try:
                await self._move_all()
            finally:
                async with asyncio.timeout(ATTEMPT_S):
                    await redis.delete(self._key)
        except REDIS_ERRORS as exc:  # the worker itself says so
            await drop_replica(redis, exc)

    async def _move_all(self) -> None:
        redis = await self._queue.redis()
        try:
            while await self._move():
                await redis.pexpire(self._key, TURN_MS)
        except Exception as exc:
            now = asyncio.get_running_loop().time()
            if now >= self._log_at:
                self._log_at = now + LOG_EVERY
                why = clean(error_text(exc).partition("\n")[0], LOGGED_ERROR_SIZE)
                if "arq_outbox" in why:
                    why += ". `paxx db migrate` and `paxx db upgrade` make that table"
                logger.error("Jobs wait in the outbox: %s", why)
