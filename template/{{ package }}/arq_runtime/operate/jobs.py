"""Operate the queues: see how they do, run failed jobs again, pause them.

What Operations does, command.py does for a terminal, and page.py for a browser.
"""

from collections.abc import Iterable, Sequence
from secrets import token_hex
from typing import Any, Literal

from arq import ArqRedis
from arq.constants import (
    in_progress_key_prefix,
    job_key_prefix,
    result_key_prefix,
    retry_key_prefix,
)
from arq.utils import timestamp_ms

from ..keys import (
    ERRORS,
    EXPIRES_MS,
    FAILED,
    FAILED_JOB,
    PAUSED,
    PROGRESS,
    QUEUES,
    SENT,
    WAKE,
    WORKER,
    WORKERS,
)
from ..queue import Queue, Queues
from ..scripts import run_script, script
from .info import (
    JobInfo,
    QueueStats,
    State,
    job_info,
    last_runs,
    named_counts,
    stored_ids,
    worker_info,
)

#: Lists end here, and no script looks at more jobs: Redis does nothing else meanwhile.
MOST = 10_000
# So many jobs are acted on at once, for the same reason.
_STEP = 500

# Strings that Redis has on a job, in the order in which job_info takes them.
_STRINGS = tuple(
    prefix.encode()
    for prefix in (
        job_key_prefix,
        result_key_prefix,
        in_progress_key_prefix,
        retry_key_prefix,
        PROGRESS,
    )
)


class Operations:
    """Sees and changes how the queues of a project do.

    All methods raise QueueUnavailableError when Redis has not answered for 5 seconds,
    and redis.exceptions.RedisError when it refuses. A queue is named, or is the default
    one.
    """

    def __init__(self, queues: Queues) -> None:
        self._queues = queues

    @property
    def default_queue(self) -> str:
        """The name of the default queue."""
        return self._queues.default.name

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        await self._queues.close()

    def _queue(self, name: str | None) -> Queue:
        # by its name, too, without an import of the project's tasks
        return self._queues.get(None if name == self.default_queue else name)

    # --- Looking

    async def list_queues(self) -> list[str]:
        """The project's queues, and others that had a worker in the last days."""
        self._queues.load()
        found = await self._queues.default.server.call(ArqRedis.zrange, QUEUES, 0, -1)
        known = {queue.name for queue in self._queues.known()}
        return sorted(known | {name.decode() for name in found})

    async def queue_stats(self, queue: str | None = None) -> QueueStats:
        """How a queue does: its jobs by state, and the workers that are alive."""
        it = self._queue(queue)
        counts = await it.run(
            script("look", "stats"),
            [it.name, it.name + WORKERS, it.name + FAILED, it.name + PAUSED],
            [it.name + WORKER, MOST],
        )
        return QueueStats(
            queue=it.name,
            queued=counts[0],
            deferred=counts[1],
            in_progress=counts[2],
            failed=counts[3],
            oldest=counts[4] / 1000,
            paused=bool(counts[5]),
            workers=[worker_info(record) for record in counts[6]],
            last_runs=last_runs(counts[7]),
            dropped=named_counts(counts[8]),
        )

    async def list_jobs(
        self,
        state: State,
        *,
        task: str | None = None,
        limit: int = 50,
        offset: int = 0,
        queue: str | None = None,
    ) -> list[JobInfo]:
        """The jobs of a queue in one state.

        Those that are due first come first; failed and complete ones, the newest. In
        long queues only the first 10,000 are looked at.

        Args:
            state: In which they are.
            task: Only the jobs of the task with this name.
            limit: At most so many.
            offset: Leave out the first so many.
            queue: Name of the queue.
        """
        it = self._queue(queue)
        stored_name = it.serializer.stored_text("f", task or "")
        if state == "complete":
            ids = await self._complete_ids(it, stored_name)
            ids = ids[offset : offset + limit]
        else:
            ids = await it.run(
                script("look", "list"),
                [it.name, it.name + WORKERS, it.name + FAILED],
                [
                    *(it.name + WORKER, MOST),
                    *(state, offset, limit, task or "", stored_name),
                ],
            )
        jobs = await self._read(it, ids)
        # One may have moved on meanwhile, or have the task's name among its arguments.
        return [job for job in jobs if job.state == state and task in (None, job.task)]

    async def _complete_ids(self, queue: Queue, stored_name: bytes) -> list[bytes]:
        cursor, keys = 0, list[bytes]()
        for _ in range(10):
            pattern = f"{result_key_prefix}*"
            cursor, some = await queue.server.call(ArqRedis.scan, cursor, pattern, MOST)
            keys += some
            if cursor == 0 or len(keys) >= MOST:
                break
        values = [queue.serializer.stored_text("q", queue.name), stored_name]
        ids: list[bytes] = await queue.server.call(
            run_script, script("complete"), keys[:MOST], values
        )
        return ids

    async def get_job(self, job_id: str, *, queue: str | None = None) -> JobInfo | None:
        """All that is known of a job; None when there is none, or no longer."""
        jobs = await self._read(self._queue(queue), stored_ids(job_id))
        return jobs[0] if jobs else None

    async def _read(self, queue: Queue, ids: Sequence[bytes]) -> list[JobInfo]:
        """What Redis has on these jobs, in one round trip."""
        if not ids:
            return []

        async def read(redis: Any) -> Any:  # its types know no bytes as keys
            async with redis.pipeline(transaction=False) as pipe:
                pipe.time()
                pipe.zmscore(queue.name, ids)
                for prefix in _STRINGS:
                    pipe.mget([prefix + job_id for job_id in ids])
                for job_id in ids:
                    pipe.hgetall(FAILED_JOB.encode() + job_id)
                    pipe.lrange(ERRORS.encode() + job_id, -100, -1)
                return await pipe.execute()

        (seconds, microseconds), due, *found = await queue.server.call(read)
        now = seconds * 1000 + microseconds / 1000
        strings, rest = found[: len(_STRINGS)], found[len(_STRINGS) :]
        rows = zip(ids, due, *strings, rest[::2], rest[1::2], strict=True)
        jobs = (job_info(queue.serializer.deserialize, now, *row) for row in rows)
        return [job for job in jobs if job is not None]

    # --- Acting

    async def retry_job(self, job_id: str, *, queue: str | None = None) -> bool:
        """Run a failed job again, under its id and with all its tries.

        Returns:
            False when it is not among the failed jobs, its arguments are not known any
            more (it expired), or another job has its id by now.
        """
        return await self._act_on("retry", job_id, queue)

    async def retry_failed(
        self, task: str | None = None, *, queue: str | None = None
    ) -> int:
        """Run all failed jobs again, or a task's; returns how many there were."""
        return await self._act_on_failed("retry", task, queue)

    async def discard_job(self, job_id: str, *, queue: str | None = None) -> bool:
        """Forget a failed job; False when it is not among the failed jobs."""
        return await self._act_on("discard", job_id, queue)

    async def discard_failed(
        self, task: str | None = None, *, queue: str | None = None
    ) -> int:
        """Forget all failed jobs, or a task's; returns how many there were."""
        return await self._act_on_failed("discard", task, queue)

    async def run_now(self, job_id: str, *, queue: str | None = None) -> bool:
        """Run a deferred job, or one that waits for its next try, without more delay.

        Returns:
            False when it is not waiting for a later time.
        """
        return await self._act_on("run_now", job_id, queue)

    async def pause_queue(self, queue: str | None = None) -> None:
        """Let workers begin no more jobs of the queue, until resume_queue.

        Running jobs finish, new ones are accepted. It outlives restarts of workers.
        Workers of arq's own do not know of it.
        """
        it = self._queue(queue)
        await it.server.call(ArqRedis.set, it.name + PAUSED, timestamp_ms())

    async def resume_queue(self, queue: str | None = None) -> None:
        """Let workers go on with the queue, at once."""
        it = self._queue(queue)
        await it.server.call(ArqRedis.delete, it.name + PAUSED)
        await it.server.call(ArqRedis.execute_command, "RPUSH", it.name + WAKE, "", "")

    async def _act_on(
        self,
        action: Literal["retry", "discard", "run_now"],
        job_id: str,
        name: str | None,
    ) -> bool:
        queue = self._queue(name)
        for stored in stored_ids(job_id):
            if await self._act(action, queue, [stored]):
                return True
        return False

    async def _act_on_failed(
        self, action: Literal["retry", "discard"], task: str | None, name: str | None
    ) -> int:
        queue = self._queue(name)
        ids = await queue.server.call(ArqRedis.zrange, queue.name + FAILED, 0, -1)
        count = 0
        for start in range(0, len(ids), _STEP):
            count += await self._act(action, queue, ids[start : start + _STEP], task)
        return count

    async def _act(
        self, action: str, queue: Queue, ids: Iterable[bytes], task: str | None = None
    ) -> int:
        keys = [queue.name, queue.name + FAILED, queue.name + WAKE]
        count: int = await queue.run(
            script("failed", "wake", "act"),
            [*keys, SENT + token_hex(16)],
            [action, EXPIRES_MS, task or "", *ids],
        )
        return count
