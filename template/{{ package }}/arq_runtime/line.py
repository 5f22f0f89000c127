"""A connection that is kept from call to call: taking one costs as much again."""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

from arq import ArqRedis
from redis.exceptions import ConnectionError, NoScriptError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from .connection import is_of_replica, losses_named
from .scripts import Script

try:
    from hiredis import pack_command
except ImportError:  # arq asks for it, redis-py does without
    pack_command = None  # type: ignore[assignment]

#: Of no more than so many connections, none is kept: others need them, too.
FEW_CONNECTIONS = 50
#: After so many seconds without a call, the connection may have been closed: the pool
#: looks when it hands one out.
IDLE_S = 1.0


class _Kept:
    """A connection of the pool, and how many calls use it."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        # Before Python 3.12, redis-py's own limit makes a task of whatever is sent.
        self.timeout_s: float | None = connection.socket_timeout
        connection.socket_timeout = None
        self.calls = 0
        self.sent = self.answered = 0
        self.is_lost = False
        self.used_at = 0.0
        self.reading = asyncio.Lock()


class Line:
    """Runs scripts over one connection of a pool, in the order in which they come.

    The next one is sent before the last one is answered: Redis need not wait for it.
    """

    def __init__(self, redis: ArqRedis) -> None:
        self._pool = redis.connection_pool
        self._keeps = self._pool.max_connections > FEW_CONNECTIONS
        self._kept: _Kept | None = None
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self.refused_at = -math.inf
        """When Redis last refused to wait, by the event loop's clock."""
        self.was_woken = False
        """Was the last wait over before its time?"""

    async def run(
        self,
        script: Script,
        keys: Sequence[str | bytes],
        values: Sequence[Any],
        wait: Sequence[Any] = (),
        on_sent: Callable[[], None] | None = None,
    ) -> Any:
        """Run a Lua script, sending its text only where Redis does not have it.

        Whatever goes wrong, the next call has another connection; and so has this one
        where the kept one was closed meanwhile. So it must do no harm when run twice.

        Args:
            script: The script.
            keys: Its KEYS.
            values: Its ARGV.
            wait: A command that blocks, sent along: Redis runs the script as soon as
                that is over, whether or not anybody is there by then.
            on_sent: Called each time the script has been sent.

        Raises:
            redis.exceptions.RedisError, OSError: As redis-py.
        """
        arguments = (len(keys), *keys, *values)
        try:
            return await self._call(wait, ("EVALSHA", script.sha, *arguments), on_sent)
        except NoScriptError:  # others may be under way: it gets in line again
            return await self._call((), ("EVAL", script.text, *arguments), on_sent)

    async def wait(self, command: Sequence[Any]) -> None:
        """Only that: a command that blocks.

        Raises:
            redis.exceptions.RedisError, OSError: As redis-py.
        """
        await self._call(command, ())

    async def _call(
        self,
        wait: Sequence[Any],
        command: Sequence[Any],
        on_sent: Callable[[], None] | None = None,
    ) -> Any:
        before = self._kept
        try:
            return await self._try(wait, command, on_sent)
        except ConnectionError:
            if before is None or not before.answered:
                raise
        return await self._try(wait, command, on_sent)

    async def _try(
        self,
        wait: Sequence[Any],
        command: Sequence[Any],
        on_sent: Callable[[], None] | None,
    ) -> Any:
        kept: _Kept | None = None
        try:
            with losses_named():
                async with self._sending:
                    kept = await self._connected()
                    kept.calls += 1
                    place, kept.sent = kept.sent, kept.sent + 1
                    async with asyncio.timeout(kept.timeout_s):
                        await _send(kept.connection, wait, command)
                if on_sent:
                    on_sent()
                async with kept.reading:
                    # One before may have left without its answer, which is next then.
                    if kept.is_lost or place != kept.answered:
                        raise ConnectionError("Connection lost")
                    async with asyncio.timeout(kept.timeout_s):
                        return await self._read(kept, wait, command)
        except BaseException as exc:
            if kept and (not isinstance(exc, ResponseError) or is_of_replica(exc)):
                await self._lose(kept)
            if isinstance(exc, TimeoutError):
                raise RedisTimeoutError("Timeout waiting for an answer") from None
            raise
        finally:
            if kept:
                kept.calls -= 1
                if not kept.calls and (kept.is_lost or not self._keeps):
                    await self._release(kept)

    async def _read(
        self, kept: _Kept, wait: Sequence[Any], command: Sequence[Any]
    ) -> Any:
        answer = None
        try:
            if wait:
                try:
                    answer = await kept.connection.read_response()
                    self.was_woken = answer is not None
                except ResponseError:
                    self.refused_at = self._loop.time()
            if command:
                answer = await kept.connection.read_response()
            return answer
        finally:  # of an error, too
            kept.answered += 1
            kept.used_at = self._loop.time()

    async def _connected(self) -> _Kept:
        kept = self._kept
        if kept and not kept.calls and self._loop.time() - kept.used_at > IDLE_S:
            await self._release(kept)
        if self._kept is None:
            self._kept = _Kept(await _take(self._pool))
        return self._kept

    async def _lose(self, kept: _Kept) -> None:
        if self._kept is kept:
            self._kept = None
        if not kept.is_lost:
            kept.is_lost = True
            await kept.connection.disconnect(nowait=True)

    async def _release(self, kept: _Kept) -> None:
        if self._kept is kept:
            self._kept = None
        kept.connection.socket_timeout = kept.timeout_s
        await self._pool.release(kept.connection)


async def _send(connection: Any, *commands: Sequence[Any]) -> None:
    if pack_command is None:
        packed = b"".join(connection.pack_commands(filter(None, commands)))
    else:  # which takes a tenth of the time
        packed = b"".join([pack_command(tuple(one)) for one in commands if one])
    await connection.send_packed_command(packed)


async def _take(pool: Any) -> Any:
    try:
        return await pool.get_connection()
    except TypeError:  # before redis-py 5.3
        return await pool.get_connection("EVALSHA")
