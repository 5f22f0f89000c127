"""The Lua scripts in lua/: loaded once, run by their hash."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Any, NamedTuple

from arq import ArqRedis
from redis.exceptions import NoScriptError

from .keys import PRELUDE

#: What goes in one round trip, in bytes, unless one job or result alone has more.
BATCH_BYTES = 1 << 20


class Script(NamedTuple):
    """A Lua script, and the hash by which Redis knows it."""

    text: str
    sha: str


@cache
def script(*names: str) -> Script:
    """The script made of these files of lua/, below what all scripts begin with."""
    folder = files(__package__) / "lua"
    parts = [(folder / f"{name}.lua").read_text(encoding="utf-8") for name in names]
    text = PRELUDE + "\n".join(parts)
    return Script(text, sha1(text.encode()).hexdigest())


async def run_script(
    redis: ArqRedis, script: Script, keys: Sequence[str | bytes], values: Iterable[Any]
) -> Any:
    """Run a Lua script, sending its text only where Redis does not have it.

    Raises:
        redis.exceptions.RedisError, OSError: As redis-py.
    """
    execute: Callable[..., Awaitable[Any]] = redis.execute_command
    arguments = (len(keys), *keys, *values)
    try:
        return await execute("EVALSHA", script.sha, *arguments)
    except NoScriptError:
        return await execute("EVAL", script.text, *arguments)
