"""Look jobs up, abort them, and forget them."""

import asyncio
import json
import math
from typing import Any

from arq import ArqRedis
from arq.constants import job_key_prefix, result_key_prefix
from arq.jobs import (
    DeserializationError,
    JobStatus,
    deserialize_job,
    deserialize_result,
    serialize_result,
)
from arq.utils import timestamp_ms, to_ms

from ..keys import with_tag_of
from ..limits import due_ms, waits_for
from ..queue import Queue, Queues
from ..scripts import run_script, script
from ..values import error_text

_ABORT = script("control", "wake", "gather", "abort")
_STATUS_KEYS = (
    "job_id",
    "status",
    "function",
    "args",
    "kwargs",
    "job_try",
    "enqueue_time",
    "score",
    "success",
    "result",
    "start_time",
    "finish_time",
    "progress",
    "waits_for",
)


class Lookup:
    """Looks up, aborts and forgets the jobs of a project."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    async def get_job_status(
        self, job_id: str, _queue_name: str | None = None
    ) -> dict[str, Any] | None:
        """Look a job up.

        Returns:
            None when there is no such job (or no longer: results are kept for an hour).
            Else a dict with job_id, status ("deferred", "queued", "in_progress" or
            "complete"), function, args, kwargs, job_try, enqueue_time and score (when
            it is due, in milliseconds since 1970); with success, result, start_time and
            finish_time once it is complete. The result of a failed job is its error, as
            text. progress is what set_progress said last: a dict with percent, message
            and at (in milliseconds since 1970). waits_for is the limit that a queued
            job waits for. What is not known is None.

        Raises:
            QueueUnavailableError: Redis could not be reached for 5 seconds.
        """
        queue = self._queues.get(_queue_name)
        job_id = with_tag_of(queue.name, job_id)
        found = await queue.run(script("status"), [queue.name], [job_id])
        result, job, running, score, progress, now = found
        if not (result or job):
            return None
        due = due_ms(float(score or 0))
        waiting = JobStatus.deferred if due > now + 1 else JobStatus.queued
        status = JobStatus.in_progress if running else waiting
        deserializer = queue.serializer.deserialize
        try:
            if result:
                info = vars(deserialize_result(result, deserializer=deserializer))
            else:
                info = vars(deserialize_job(job, deserializer=deserializer))
        except DeserializationError as exc:
            info = {"result": str(exc)}
        if isinstance(info.get("result"), BaseException):
            info["result"] = error_text(info["result"])
        info["job_id"] = job_id
        info["status"] = (JobStatus.complete if result else status).value
        info["score"] = None if score is None else int(due)
        info["waits_for"] = waits_for(job or b"", float(score or 0)) or None
        info["progress"] = json.loads(progress) if progress else None
        return {key: info.get(key) for key in _STATUS_KEYS}

    async def abort_job(
        self, job_id: str, _queue_name: str | None = None, timeout: float = 10
    ) -> bool:
        """Cancel a job, waiting or running, and wait up to `timeout` seconds for it.

        Args:
            job_id: Of a job in whatever queue.
            _queue_name: Its queue, if no worker settings of the project have that. A
                job that waits in a queue unknown here is cancelled by the queue's
                worker when its turn comes.
            timeout: Seconds.

        Returns:
            True once it is cancelled; False if it ended by itself, is unknown, or no
            worker took notice in time.

        Raises:
            QueueUnavailableError: Redis could not be reached for 5 seconds.
        """
        queue = self._queues.get(_queue_name)
        job_id = with_tag_of(queue.name, job_id)
        job_key, result_key = job_key_prefix + job_id, result_key_prefix + job_id
        known = [one for one in self._queues.known() if one.server is queue.server]
        names = list(dict.fromkeys([queue.name, *(one.name for one in known)]))
        deserializer = queue.serializer.deserialize

        async def take(redis: ArqRedis) -> bool | None:
            """Is it cancelled? None when that is left to its worker."""
            outcome = b"changed"
            while outcome == b"changed":
                content = await redis.get(job_key) or b""
                cancelled, keep = _cancelled(queue, job_id, content)
                values = [job_id, content, cancelled, keep]
                outcome = await run_script(redis, _ABORT, names, values)
            if outcome == b"gone":  # perhaps by a first try whose answer was lost
                result = await redis.get(result_key)
                return result is not None and _was_cancelled(result, deserializer)
            return None if outcome == b"marked" else True

        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        is_cancelled: bool | None = await queue.server.call(take)
        while is_cancelled is None:
            if result := await queue.server.call(ArqRedis.get, result_key):
                return _was_cancelled(result, deserializer)
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(0.1)
        return is_cancelled

    async def forget_job(self, job_id: str, _queue_name: str | None = None) -> bool:
        """Drop the result that is kept of a job, so that its id can be used again.

        Returns:
            Whether there was one.

        Raises:
            QueueUnavailableError: Redis could not be reached for 5 seconds.
        """
        queue = self._queues.get(_queue_name)
        key = result_key_prefix + with_tag_of(queue.name, job_id)
        return bool(await queue.server.call(ArqRedis.delete, key))


def _keep_ms(settings: type = object) -> int:
    """For how many milliseconds a queue's results are kept: 0 not, -1 for ever."""
    seconds = getattr(settings, "keep_result", 3600)
    if seconds == math.inf or getattr(settings, "keep_result_forever", False):
        return -1
    return to_ms(seconds) or 0


def _cancelled(queue: Queue, job_id: str, content: bytes) -> tuple[bytes, int]:
    """The result of a job that is aborted before it runs; how long to keep it."""
    keep = _keep_ms(*queue.settings_classes[:1])
    now = timestamp_ms()
    try:
        job = queue.serializer.deserialize(content)
    except Exception:
        job = {"f": "?", "a": (), "k": {}, "et": now}
    result = serialize_result(
        function=job["f"],
        args=job["a"],
        kwargs=job["k"],
        job_try=1,
        enqueue_time_ms=job["et"],
        success=False,
        result=asyncio.CancelledError("aborted before it began"),
        start_ms=now,
        finished_ms=now,
        ref=job_id,
        queue_name=queue.name,
        job_id=job_id,
        serializer=queue.serializer.serialize,
    )
    return result or b"", keep if result else 0


def _was_cancelled(result: bytes, deserializer: Any) -> bool:
    try:
        error = deserialize_result(result, deserializer=deserializer).result
    except DeserializationError:
        return False
    return isinstance(error, asyncio.CancelledError)
