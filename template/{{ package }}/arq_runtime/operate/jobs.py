"""Operate the queues: see how they do, run failed jobs again, pause them.

What Operations does, command.py does for a terminal, and page.py for a browser.
"""

import logging
import time
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Literal

from arq import ArqRedis
from arq.utils import timestamp_ms

from ..keys import DISCARDED, EXPIRES_MS, FAILED, PAUSED, REPLY, WAKE, with_tag_of
from ..queue import Queue
from ..scripts import script
from .find import step
from .info import State, Which, stored_ids
from .look import Looking

logger = logging.getLogger(__name__)

#: So many jobs are acted on at once: Redis does nothing else meanwhile.
_STEP = 500
#: For how long discarded jobs can be had back, in milliseconds, and how many of them.
_KEEP_DISCARDED_MS = 3_600_000
_MOST_DISCARDED = 1000

_Action = Literal["retry", "discard", "undiscard", "run_now", "purge"]


class Operations(Looking):
    """Sees and changes how the queues of a project do; all as Looking.

    Who acts is given as `by`: it is in the log, and stays with jobs that are retried.
    """

    async def retry_job(
        self, job_id: str, *, queue: str | None = None, by: str = ""
    ) -> bool:
        """Run a failed job again, under its id and with all its tries.

        Returns:
            False when it is not among the failed jobs, its arguments are not known any
            more (it expired), or another job has its id by now.
        """
        return await self._act_on("retry", job_id, queue, by)

    async def retry_failed(
        self,
        task: str | None = None,
        *,
        which: Which | None = None,
        queue: str | None = None,
        by: str = "",
    ) -> int:
        """Run all failed jobs again, or a task's, or those that fit; returns how many.

        Args:
            task: Only the jobs of the task with this name.
            which: Instead of that, what they must be.
        """
        which = which or Which(task=task or "")
        ids = await self.job_ids(("failed",), which, queue=queue)
        return await self._act_on_all("retry", ids, queue, by)

    async def discard_job(
        self, job_id: str, *, queue: str | None = None, by: str = "", batch: str = ""
    ) -> bool:
        """Forget a failed job; False when it is not among the failed jobs.

        For an hour, undiscard_job brings it back, if it is among the newest 1,000.
        """
        return await self._act_on("discard", job_id, queue, by, batch)

    async def discard_failed(
        self,
        task: str | None = None,
        *,
        which: Which | None = None,
        queue: str | None = None,
        by: str = "",
        batch: str = "",
    ) -> int:
        """Forget all failed jobs, or a task's, or those that fit; returns how many.

        For an hour, undiscard_jobs brings the newest 1,000 back.

        Args:
            task: Only the jobs of the task with this name.
            which: Instead of that, what they must be.
            batch: A name, to bring back just these.
        """
        which = which or Which(task=task or "")
        ids = await self.job_ids(("failed",), which, queue=queue)
        return await self._act_on_all("discard", ids, queue, by, batch)

    async def undiscard_job(
        self, job_id: str, *, queue: str | None = None, by: str = ""
    ) -> bool:
        """Bring a discarded job back among the failed ones.

        Returns:
            False when it is not kept any more, or another job has its id by now.
        """
        return await self._act_on("undiscard", job_id, queue, by)

    async def undiscard_jobs(
        self, batch: str = "", *, queue: str | None = None, by: str = ""
    ) -> int:
        """Bring all discarded jobs back that are still kept; returns how many.

        Args:
            batch: Only those discarded under this name.
        """
        it = self._queue(queue)
        ids = await it.server.call(ArqRedis.zrange, it.name + DISCARDED, 0, -1)
        return await self._act_on_all("undiscard", ids, queue, by, batch)

    async def run_now(
        self, job_id: str, *, queue: str | None = None, by: str = ""
    ) -> bool:
        """Run a deferred job, or one that waits for its next try, without more delay.

        Returns:
            False when it is not waiting for a later time.
        """
        return await self._act_on("run_now", job_id, queue, by)

    async def purge(
        self,
        which: Which,
        *,
        queue: str | None = None,
        by: str = "",
        state: State | None = None,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> int:
        """Delete the waiting jobs that fit, for good; returns how many.

        Args:
            which: What they must be; `until` is when they were due, at the latest.
            state: In which they are; by default in either.
            progress: Called each second with at how many it has looked, of how many.
        """
        it, count, told_at = self._queue(queue), 0, time.monotonic() + 1
        # What waits for a batch is deferred until that has been deleted.
        states: tuple[State, ...] = (state,) if state else ("deferred", "queued")
        for one in states:
            place = looked_at = 0
            while True:
                found = await step(it, one, which, place)
                done = (
                    await self._act("purge", it, found.ids, by, "") if found.ids else 0
                )
                # the place of what follows is another one then
                count, place = count + done, found.place - done
                looked_at += found.looked_at
                if time.monotonic() > told_at:
                    progress(looked_at, found.total + count)
                    told_at = time.monotonic() + 1
                if found.looked_at == 0 or found.place >= found.total:
                    break
        self.log("purge", it.name, f"{count} jobs", by)
        return count

    async def pause_queue(self, queue: str | None = None, *, by: str = "") -> None:
        """Let workers begin no more jobs of the queue, until resume_queue.

        Running jobs finish, new ones are accepted. It outlives restarts of workers.
        Workers of arq's own do not know of it.
        """
        it = self._queue(queue)
        await it.server.call(ArqRedis.set, it.name + PAUSED, timestamp_ms())
        self.log("pause", it.name, "", by)

    async def resume_queue(self, queue: str | None = None, *, by: str = "") -> None:
        """Let workers go on with the queue, at once."""
        it = self._queue(queue)
        await it.server.call(ArqRedis.delete, it.name + PAUSED)
        await it.server.call(ArqRedis.execute_command, "RPUSH", it.name + WAKE, "", "")
        self.log("resume", it.name, "", by)

    def log(self, action: str, queue: str, what: str, by: str) -> None:
        """Note in the log who has done what."""
        logger.info("%s: %s %s, by %s", queue, action, what, by or "code")

    async def _act_on(
        self,
        action: _Action,
        job_id: str,
        name: str | None,
        by: str,
        batch: str = "",
    ) -> bool:
        queue = self._queue(name)
        for stored in stored_ids(with_tag_of(queue.name, job_id)):
            if await self._act(action, queue, [stored], by, batch):
                self.log(action, queue.name, job_id, by)
                return True
        return False

    async def _act_on_all(
        self,
        action: _Action,
        ids: Sequence[bytes],
        name: str | None,
        by: str,
        batch: str = "",
    ) -> int:
        queue, count = self._queue(name), 0
        for start in range(0, len(ids), _STEP):
            some = ids[start : start + _STEP]
            count += await self._act(action, queue, some, by, batch)
        self.log(action, queue.name, f"{count} jobs", by)
        return count

    async def _act(
        self, action: _Action, queue: Queue, ids: Sequence[bytes], by: str, batch: str
    ) -> int:
        count: int = await queue.run(
            script("control", "wake", "gather", "failed", "act"),
            [
                queue.name,
                queue.name + FAILED,
                queue.name + WAKE,
                REPLY + with_tag_of(queue.name, token_hex(16)),
                queue.name + DISCARDED,
            ],
            [action, EXPIRES_MS, _KEEP_DISCARDED_MS, _MOST_DISCARDED, by, batch, *ids],
        )
        return count
