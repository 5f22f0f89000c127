"""How tries end: results, failures and retries are recorded, in batches."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any
from uuid import uuid4

from arq import ArqRedis

from ..connection import REDIS_ERRORS
from ..keys import ENDS, FAILED
from ..scripts import BATCH_BYTES, run_script, script
from .job import ClaimedJob, End
from .outages import Outages

logger = logging.getLogger("arq.worker")

#: What lua/finish.lua answers for each end.
LOST, DONE, DROPPED, REFUSED, SEND_AGAIN = range(5)

#: The pause of a job whose task is not known, in milliseconds.
UNKNOWN_PAUSE_MS = 5_000
#: How many failed jobs of a task are kept, and how many bytes of them in a queue.
MAX_FAILED = 10_000
MAX_FAILED_BYTES = 100_000_000
#: How often it is said that some were dropped, in seconds.
DROPS_S = 60
#: How many ends are recorded in one round trip.
BATCH_ENDS = 100
#: How often a result that Redis takes from nobody is sent before it is dropped.
LARGE_TRIES = 3

_FINISH = script("control", "wake", "gather", "failed", "lease", "finish")

#: An end to be recorded; the future has then what lua/finish.lua answers.
_Finished = tuple[asyncio.Future[int], ClaimedJob, End]


class Ends:
    """Records the ends of a worker's jobs.

    Args:
        worker_id: Whose they are.
        queue: The queue's name.
        keep_ms: Milliseconds for which a job is kept that waits for another try.
        keep_failed_s: Seconds for which a failed job is kept; 0 keeps none.
        let_go: Called with each job whose end is recorded.
    """

    def __init__(
        self,
        worker_id: str,
        queue: str,
        *,
        keep_ms: int,
        keep_failed_s: float,
        let_go: Callable[[ClaimedJob], None],
    ) -> None:
        self._queue = queue
        self._key = queue + ENDS + worker_id
        self._keep_ms = keep_ms
        self._keep_failed_s = keep_failed_s
        self._let_go = let_go
        self._finished: list[_Finished] = []  # and not yet recorded
        self._flushing: asyncio.Task[None] | None = None
        self._large = asyncio.Lock()
        self._recording: set[asyncio.Task[None]] = set()
        self._drops: Counter[str] = Counter()  # by task, since that was said last
        self._saying: asyncio.TimerHandle | None = None

    def open(self, redis: ArqRedis, outages: Outages) -> None:
        """Use these connections."""
        self._redis = redis
        self._outages = outages
        self._loop = asyncio.get_running_loop()

    async def finish(self, job: ClaimedJob, end: End) -> int:
        """Record the end of a try, together with those that end at the same time.

        Returns:
            LOST, DONE, DROPPED (its result: there is no room for it) or REFUSED.
        """
        recorded = self.finish_soon(job, end)
        try:
            return await asyncio.shield(recorded)
        except asyncio.CancelledError:
            if job.cancelled:
                raise
            # The task has cancelled itself, and ended without an await.
            return await asyncio.shield(recorded)

    def finish_soon(self, job: ClaimedJob, end: End) -> asyncio.Future[int]:
        """Begin to record the end of a try."""
        recorded: asyncio.Future[int] = self._loop.create_future()
        self._add((recorded, job, end))
        return recorded

    def _add(self, finished: _Finished) -> None:
        if _size(finished) > BATCH_BYTES:
            recording = self._loop.create_task(self._record_large(finished))
            self._recording.add(recording)
            recording.add_done_callback(self._recording.discard)
            return
        self._finished.append(finished)
        if self._flushing is None or self._flushing.done():
            self._flushing = self._loop.create_task(self._flush())

    @property
    def unrecorded(self) -> int:
        """How many ends are not yet recorded."""
        return len(self._finished) + len(self._recording)

    async def recorded(self) -> None:
        """Wait until all that has ended is recorded."""
        while tasks := [
            task
            for task in (*self._recording, self._flushing)
            if task is not None and not task.done()
        ]:
            await asyncio.wait(tasks)

    async def give_back(
        self, jobs: Iterable[ClaimedJob], end_of: Callable[[ClaimedJob], End]
    ) -> None:
        """Give back jobs, and wait until that is recorded."""
        finished = {id(job) for _, job, _ in self._finished}
        for job in jobs:
            if id(job) not in finished:
                self.finish_soon(job, end_of(job))
        await self.recorded()

    async def _flush(self) -> None:
        while self._finished:
            batch, size = 0, 0
            for finished in self._finished[:BATCH_ENDS]:
                size += _size(finished)
                if batch and size > BATCH_BYTES:
                    break
                batch += 1
            await self._record(self._finished[:batch])
            del self._finished[:batch]

    async def _record_large(self, finished: _Finished) -> None:
        """Record an end whose result may be more than Redis, or the network, takes.

        One at a time, and beside the others: it holds up none of them.
        """
        async with self._large:
            for _ in range(LARGE_TRIES):
                try:
                    answers = await self._send(
                        [finished], uuid4().hex, self._key + ":large"
                    )
                except REDIS_ERRORS:
                    # Is it Redis, or the result?
                    await self._wait_out(self._redis.time)
                else:
                    return self._note_recorded([finished], answers)
        recorded, job, end = finished
        logger.warning("Redis does not take the result of %s: it is not kept", job.ref)
        end.result, end.keep_result_ms = None, ""
        await self._record([(recorded, job, end)])

    async def _record(self, batch: list[_Finished]) -> None:
        try:
            answers = await self._wait_out(partial(self._send, batch, uuid4().hex))
        except REDIS_ERRORS as exc:  # in burst mode
            answers = [exc] * len(batch)
        self._note_recorded(batch, answers)

    async def _wait_out(self, step: Callable[[], Awaitable[Any]]) -> Any:
        return await self._outages.wait_out(self._redis, step, is_first=False)

    def _note_recorded(self, batch: list[_Finished], answers: list[Any]) -> None:
        for (recorded, job, end), answer in zip(batch, answers, strict=True):
            if answer == LOST and job.again is not None and job.is_same(job.again):
                # to this worker itself
                job.token, job.job_try = job.again.token, job.again.job_try
                job.again = None
                self._add((recorded, job, end))
                continue
            if answer == SEND_AGAIN and not job.lost:
                job.lost = True
                self._add((recorded, job, end))
                continue
            self._let_go(job)
            if isinstance(answer, BaseException):
                recorded.set_exception(answer)
                continue
            if not recorded.done():
                recorded.set_result(answer)
            if answer == LOST:
                logger.warning("%s was run by another worker, too: dropped", job.ref)
            if answer == DROPPED:
                logger.warning("No room in Redis for the result of %s", job.ref)

    async def _send(self, batch: list[_Finished], token: str, key: str = "") -> Any:
        values: list[Any] = [
            token,
            self._keep_ms,
            int(self._keep_failed_s * 1000),
            MAX_FAILED,
            MAX_FAILED_BYTES,
            UNKNOWN_PAUSE_MS,
        ]
        for _, job, end in batch:
            job.is_ending = True
            details = json.dumps(end.details) if end.details else b""
            lost = job.payload or b"" if job.lost else b""
            values += [job.id, job.token, job.job_try, end.action, end.ms]
            values += [end.result or b"", end.keep_result_ms, details, lost]
            values.append(job.control)
        keys = [self._queue, self._queue + FAILED, key or self._key]
        *answers, drops = await run_script(self._redis, _FINISH, keys, values)
        self._drops.update(json.loads(drops))
        if self._drops and self._saying is None:
            self._say_drops()
        return answers

    def _say_drops(self) -> None:
        self._saying = None
        if self._drops:
            logger.warning(
                "Failed jobs were dropped to make room, the oldest first: %s. %d of a "
                "task are kept, and %d MB of a queue",
                ", ".join(f"{count} of {task}" for task, count in self._drops.items()),
                MAX_FAILED,
                MAX_FAILED_BYTES // 1_000_000,
            )
            self._drops.clear()
            self._saying = self._loop.call_later(DROPS_S, self._say_drops)


def _size(finished: _Finished) -> int:
    _, job, end = finished
    size = len(end.result or b"")
    return size + len(job.payload or b"") if job.lost else size
