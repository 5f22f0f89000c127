"""One Redis server, as the client sees it: connections, and calls that end in time."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from arq import ArqRedis
from arq.connections import RedisSettings
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from .connection import connect, drop_replica
from .keys import EXPIRES_MS
from .serializer import Serializer

logger = logging.getLogger(__name__)

#: Seconds after which a call has failed, whatever Redis or the network does: with what
#: is around it, less than 5.
DEADLINE_S = 4.8
#: Seconds after which a connection that has said nothing is given up.
ATTEMPT_S = 2.0
#: Seconds between two tries.
PAUSE_S = 0.1
# Calls at the same time that are not sent together, each of which needs a connection.
_MAX_CALLS = 50

#: What goes away by itself, so that a call is worth another try.
TRANSIENT = (
    ConnectionError,
    RedisTimeoutError,
    OSError,
    ReadOnlyError,
    BusyLoadingError,
)

#: The same, by what Redis says: another script runs for long; or a cluster fails over,
#: or moves the queue to another node.
_TRANSIENT = (
    *("BUSY ", "MOVED ", "ASK ", "CLUSTERDOWN ", "TRYAGAIN "),
    "Script attempted to access a non local key",
)


class QueueUnavailableError(ConnectionError):
    """Redis could not be reached in time, so the call may have had no effect."""


def is_transient(exc: BaseException) -> bool:
    """Is another try worth it?"""
    return isinstance(exc, TRANSIENT) or (
        isinstance(exc, ResponseError) and str(exc).startswith(_TRANSIENT)
    )


@dataclass
class Pool:
    """The connections of one event loop."""

    redis: ArqRedis
    lifetime: AsyncGenerator[None, None]
    calls: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(_MAX_CALLS)
    )
    trouble: Exception | None = None
    """The last error, since there was an answer."""
    local: dict[str, Any] = field(default_factory=dict)
    """What the rooms above keep for this loop."""


class Server:
    """A Redis server: a pool of connections for each event loop.

    Args:
        redis_settings: Where it is.
        serializer: How jobs are written.
        queue_name: The queue that the pool's own methods use by default.
        unavailable: What a call raises that has had no answer in time.
    """

    def __init__(
        self,
        redis_settings: RedisSettings,
        serializer: Serializer,
        queue_name: str,
        unavailable: type[QueueUnavailableError] = QueueUnavailableError,
    ) -> None:
        self.redis_settings = redis_settings
        self.serializer = serializer
        self.queue_name = queue_name
        self._unavailable = unavailable
        self._pools: dict[asyncio.AbstractEventLoop, Pool] = {}
        self._connect: Callable[[], ArqRedis] = partial(
            connect, redis_settings, default_queue_name=queue_name
        )

    async def set_pool(self, redis: ArqRedis) -> None:
        """Use this pool in the running event loop, as in tests; close() closes it."""
        redis.job_serializer = self.serializer.serialize
        redis.job_deserializer = self.serializer.deserialize
        redis.default_queue_name = self.queue_name
        redis.expires_extra_ms = EXPIRES_MS
        await self.close()
        for loop in list(self._pools):  # other threads have loops of their own
            if loop.is_closed():
                self._pools.pop(loop, None)
        pool = Pool(redis, _lifetime(redis))
        await anext(pool.lifetime)
        self._pools[asyncio.get_running_loop()] = pool

    async def pool(self) -> Pool:
        """That of the running event loop, made when it is first needed."""
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            await self.set_pool(self._connect())
        return self._pools[loop]

    @contextmanager
    def replaced(self, connector: Callable[[], ArqRedis]) -> Iterator[None]:
        """For the length of the block, connect to something else; for tests."""
        before = self._pools, self._connect
        self._pools, self._connect = {}, connector
        try:
            yield
        finally:
            for loop, pool in self._pools.items():
                if not (loop.is_closed() or loop.is_running()):
                    loop.run_until_complete(pool.lifetime.aclose())
            self._pools, self._connect = before

    async def close(self) -> None:
        """Close the pool of the running event loop; the next use opens a new one."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.lifetime.aclose()

    async def call(self, operation: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run an operation, again if the connection is lost, until it is too late.

        Args:
            operation: Takes the redis-py client and args. It must do no harm when Redis
                gets it twice: an answer may be lost.
            args: For the operation.

        Raises:
            QueueUnavailableError: There was no answer within DEADLINE_S.
            redis.exceptions.RedisError: Redis refuses, being out of memory, say.
        """
        pool = await self.pool()
        with suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S), pool.calls:
                while True:
                    try:
                        async with asyncio.timeout(ATTEMPT_S):
                            result = await operation(pool.redis, *args)
                        pool.trouble = None
                        return result
                    except Exception as exc:
                        if not is_transient(exc):
                            raise
                        await drop_replica(pool.redis, exc)
                        note_trouble(pool, exc)
                        if isinstance(exc, AuthenticationError):
                            break
                    await asyncio.sleep(PAUSE_S)
        raise self.unavailable(pool)

    def unavailable(self, pool: Pool) -> QueueUnavailableError:
        """The error of a call that has had no answer; it is logged, too."""
        reason = str(pool.trouble or "") or "no answer"
        error = self._unavailable(f"Redis fails, see ARQ_REDIS_URL: {reason}")
        logger.error("%s", error)
        return error


def note_trouble(pool: Pool, exc: Exception) -> None:
    """Remember why calls fail: one that was cut short knows least."""
    if pool.trouble is None or str(exc):
        pool.trouble = exc


async def _lifetime(redis: ArqRedis) -> AsyncGenerator[None, None]:
    """Closes the pool along with its loop, which ends the async generators it knows."""
    try:
        yield
    finally:
        with suppress(ConnectionError, RedisTimeoutError, OSError):
            await redis.connection_pool.disconnect()
