"""The job that enqueue returns."""

import asyncio
import logging
from typing import Generic, TypeVar

from arq.constants import result_key_prefix
from arq.jobs import Job as ArqJob
from arq.jobs import ResultNotFound, SerializationError, deserialize_result

from ..connection import REDIS_ERRORS
from ..keys import DONE, WORKERS

logger = logging.getLogger(__name__)

R = TypeVar("R")

#: After how many seconds without a result a missing worker is pointed out.
_WARN_AFTER_S = 10


class Job(ArqJob, Generic[R]):  # noqa: UP046, RUF100 - Python 3.11 knows no other way
    """A job on a queue: arq's, whose result comes as soon as there is one."""

    async def result(
        self,
        timeout: float | None = None,
        *,
        poll_delay: float = 0.5,
        pole_delay: float | None = None,
    ) -> R:
        """Wait for the job's end: what the task has returned, or raise what it raised.

        Where no worker of the queue has been seen after 10 seconds, a warning says so.

        Args:
            timeout: Seconds to wait; for ever without.
            poll_delay: Seconds between two looks, where no message comes: the job may
                be one of an arq worker.
            pole_delay: As arq's, whose deprecated name for it this is.

        Raises:
            TimeoutError: It has not ended in time.
            arq.jobs.ResultNotFound: There is no such job, and no result of it.
            Exception: What the task raised, as TaskError.
        """
        loop = asyncio.get_running_loop()
        warn_at: float | None = loop.time() + _WARN_AFTER_S
        async with asyncio.timeout(timeout), self._redis.pubsub() as pubsub:
            await pubsub.subscribe(DONE + self.job_id)
            while True:
                async with self._redis.pipeline(transaction=True) as pipe:
                    pipe.get(result_key_prefix + self.job_id)
                    pipe.zscore(self._queue_name, self.job_id)
                    pipe.exists(self._queue_name + WORKERS)
                    stored, score, has_worker = await pipe.execute()
                if stored:
                    break
                if score is None:
                    raise ResultNotFound(
                        "Not waiting for job result because the job is not in queue. "
                        "Is the worker function configured to keep result?"
                    )
                if warn_at is not None and loop.time() >= warn_at:
                    warn_at = None
                    if not has_worker:
                        logger.warning(
                            "Job %s waits still: no worker of queue %r is running",
                            self.job_id,
                            self._queue_name,
                        )
                try:
                    await pubsub.get_message(
                        ignore_subscribe_messages=True, timeout=pole_delay or poll_delay
                    )
                except REDIS_ERRORS:  # if Redis is unreachable, the next look tells
                    await asyncio.sleep(pole_delay or poll_delay)
        info = deserialize_result(stored, deserializer=self._deserializer)
        if info.success:
            result: R = info.result
            return result
        if isinstance(info.result, Exception | asyncio.CancelledError):
            raise info.result
        raise SerializationError(info.result)
