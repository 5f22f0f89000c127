"""Outages of Redis: they are waited out, and said in the log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from arq import ArqRedis
from arq.connections import RedisSettings
from redis.exceptions import AuthenticationError, NoPermissionError

from ..connection import REDIS_ERRORS, address, drop_replica
from ..values import error_text
from .job import LOGGED_ERROR_SIZE, clean

logger = logging.getLogger("arq.worker")

#: How often an outage is logged while it lasts, in seconds.
LOG_EVERY = 30


class HopelessError(Exception):
    """Redis can be reached, and cannot be used; no waiting will mend that."""


def _hopeless(exc: BaseException) -> str:
    """What to do about an error that does not go away by itself; empty for others."""
    text = str(exc)
    if isinstance(exc, AuthenticationError) or "NOAUTH" in text or "WRONGPASS" in text:
        return "correct the user and password in ARQ_REDIS_URL"
    if "No master found" in text and "Authentication" in text:
        return "give the Sentinels' own ?sentinel_password=... in ARQ_REDIS_URL"
    if isinstance(exc, NoPermissionError):
        return "grant the Redis user what docs/production.md lists"
    if "DB index is out of range" in text or "SELECT is not allowed" in text:
        return "name a database that the server has, at the end of ARQ_REDIS_URL"
    if "CROSSSLOT" in text or "cluster mode" in text:
        return "cluster:// goes with that, or use a Redis that is none"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "trust its certificate: ?ssl_ca_certs=FILE in ARQ_REDIS_URL"
    if "WRONG_VERSION_NUMBER" in text:
        return "it does not speak TLS there: redis:// instead of rediss://"
    return ""


@dataclass
class Outages:
    """Does a step as soon as Redis lets it be done."""

    redis_settings: RedisSettings | None
    """Where it is; None where a pool was given."""
    is_patient: bool
    """Else its errors are raised, as in burst mode."""
    on_long: Callable[[], None]
    """Called after, and during, one that has lasted for long_s seconds."""
    long_s: float
    log_at: float = 0.0
    """When the next line about this outage is due, by the loop's clock."""

    async def wait_out(
        self, redis: ArqRedis, step: Callable[[], Awaitable[Any]], *, is_first: bool
    ) -> Any:
        """Do a step, again until Redis lets it be done.

        Args:
            redis: The connections that the step uses.
            step: What to do; may be done twice.
            is_first: How long an outage has been is not known to a worker that was
                started meanwhile.

        Raises:
            redis.exceptions.RedisError, OSError: It is not patient.
            HopelessError: It is the first step, and waiting would not mend it.
        """
        loop = asyncio.get_running_loop()
        since, failed = loop.time(), False
        long_at = since if is_first else since + self.long_s
        while True:
            try:
                result = await step()
            except REDIS_ERRORS as exc:
                if not self.is_patient:
                    raise
                if is_first and (remedy := _hopeless(exc)):
                    raise HopelessError(f"{self.reason(exc)}: {remedy}") from None
                failed = True
                if loop.time() >= self.log_at:
                    self.log_at = loop.time() + LOG_EVERY
                    why = self.reason(exc)
                    logger.error("Waiting for Redis, see ARQ_REDIS_URL: %s", why)
                if is_cancelled():
                    raise asyncio.CancelledError from exc
                await drop_replica(redis, exc)
                if loop.time() > long_at:
                    self.on_long()
                await asyncio.sleep(0.5)
            else:
                if failed and self.log_at:
                    self.log_at = 0.0
                    away = loop.time() - since
                    logger.info("Redis is back, after %.0f s", away)
                # Also where the step itself has taken so long.
                if loop.time() > long_at and (failed or not is_first):
                    self.on_long()
                return result

    def reason(self, exc: BaseException) -> str:
        """Which Redis cannot be used, and why, without a password."""
        text = clean(error_text(exc), LOGGED_ERROR_SIZE)
        if self.redis_settings is None:
            return text
        return f"{address(self.redis_settings)}: {text}"


def is_cancelled() -> bool:
    """Whether this task was told to stop: before Python 3.12, a CancelledError can get
    lost in asyncio.wait_for, with which redis-py sends each command.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
