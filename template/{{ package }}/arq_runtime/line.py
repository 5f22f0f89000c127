"""A connection that is kept from call to call: taking one costs as much again."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from arq import ArqRedis
from redis.exceptions import ConnectionError, NoScriptError, ResponseError

from .connection import is_of_replica
from .scripts import Script, run_script

try:
    from hiredis import pack_command
except ImportError:  # arq asks for it, redis-py does without
    pack_command = None  # type: ignore[assignment]

#: Of no more than so many connections, none is kept: others need them, too.
FEW_CONNECTIONS = 50
#: After so many seconds without a call, the connection may have been closed: the pool
#: looks when it hands one out.
IDLE_S = 1.0

#: What runs a script: takes it, its keys and its values; one at a time.
Run = Callable[..., Awaitable[Any]]


def one_by_one(redis: ArqRedis) -> Run:
    """What runs scripts over one connection of a pool, where there are many."""
    if redis.connection_pool.max_connections > FEW_CONNECTIONS:
        return Line(redis).run
    return partial(run_script, redis)


class Line:
    """Runs scripts over one connection of a pool, one at a time."""

    def __init__(self, redis: ArqRedis) -> None:
        self._pool = redis.connection_pool
        self._connection: Any = None
        self._used_at = 0.0
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

        async def run(connection: Any) -> Any:
            by_hash = ("EVALSHA", script.sha, *arguments)
            await _send(connection, *([wait] if wait else []), by_hash)
            if on_sent:
                on_sent()
            if wait:
                await self._note_wait(connection)
            try:
                return await connection.read_response()
            except NoScriptError:
                await _send(connection, ("EVAL", script.text, *arguments))
                return await connection.read_response()

        return await self._call(run)

    async def wait(self, command: Sequence[Any]) -> None:
        """Only that: a command that blocks.

        Raises:
            redis.exceptions.RedisError, OSError: As redis-py.
        """

        async def run(connection: Any) -> None:
            await _send(connection, command)
            await self._note_wait(connection)

        await self._call(run)

    async def _note_wait(self, connection: Any) -> None:
        try:
            self.was_woken = await connection.read_response() is not None
        except ResponseError:
            self.refused_at = self._loop.time()

    async def _call(self, run: Callable[[Any], Awaitable[Any]]) -> Any:
        if self._connection and self._loop.time() - self._used_at > IDLE_S:
            idle, self._connection = self._connection, None
            await self._pool.release(idle)
        was_kept = self._connection is not None
        if not was_kept:
            self._connection = await _take(self._pool)
        connection = self._connection

        async def drop(_: BaseException) -> None:
            await connection.disconnect(nowait=True)

        try:
            answer = await connection.retry.call_with_retry(
                lambda: run(connection), drop
            )
            self._used_at = self._loop.time()
            return answer
        except BaseException as exc:
            if not isinstance(exc, ResponseError) or is_of_replica(exc):
                self._connection = None
                await drop(exc)
                await self._pool.release(connection)
            if was_kept and isinstance(exc, ConnectionError):
                return await self._call(run)
            raise


async def _send(connection: Any, *commands: Sequence[Any]) -> None:
    if pack_command is None:
        packed = b"".join(connection.pack_commands(commands))
    else:  # which takes a tenth of the time
        packed = b"".join([pack_command(tuple(one)) for one in commands])
    await connection.send_packed_command(packed)


async def _take(pool: Any) -> Any:
    try:
        return await pool.get_connection()
    except TypeError:  # before redis-py 5.3
        return await pool.get_connection("EVALSHA")
