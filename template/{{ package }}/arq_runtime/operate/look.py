"""See how the queues do, and find jobs in them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Literal

from arq import ArqRedis
from arq.utils import ms_to_datetime, to_unix_ms

from ..keys import FAILED, PAUSED, QUEUES, hash_tag, with_tag_of
from ..queue import Queue, Queues, instead
from ..scripts import script
from .find import MOST, STEP, running, steps, with_workers
from .history import MOST_MINUTES, Span, read
from .info import (
    ALL,
    ErrorGroup,
    Found,
    JobInfo,
    QueueStats,
    State,
    Which,
    job_info,
    last_runs,
    named_counts,
    shown_id,
    stored_ids,
    worker_info,
)

#: Beyond so many bytes, a list leaves out a job's arguments and result.
_LARGE = 10_000
#: In which order a search goes through them.
_STATES: tuple[State, ...] = ("in_progress", "failed", "queued", "deferred", "complete")


class UnknownNameError(LookupError):
    """There is no such queue or task."""


class Looking:
    """Sees how the queues of a project do.

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

    # --- Queues

    async def list_queues(self) -> list[str]:
        """The project's queues, and others that had a worker in the last days."""
        self._queues.load()
        default = self._queues.default
        found = await default.server.call(
            ArqRedis.zrange, QUEUES + hash_tag(default.name), 0, -1
        )
        known = {queue.name for queue in self._queues.known()}
        return sorted(known | {shown_id(name) for name in found})

    async def check_names(self, queue: str | None, task: str = "") -> None:
        """Is there such a queue, and in it such a task?

        Raises:
            UnknownNameError: No settings class has it, no worker serves it, and there
                is no job in it, or of it.
        """
        it = self._queue(queue)
        if queue is not None and queue != self.default_queue:
            queues = await self.list_queues()
            is_known = queue in queues or queue in self._queues.external
            keys = [queue, queue + FAILED]
            if not is_known and not await it.server.call(ArqRedis.exists, *keys):
                text = f"There is no queue {queue!r}{instead(queue, queues)}"
                raise UnknownNameError(text)
        if not task:
            return
        self._queues.load()
        tasks = set(it.tasks())
        if task not in tasks:
            workers = (await self.queue_stats(queue)).workers
            tasks |= {name for one in workers for name in one.tasks}
        if task not in tasks:
            found = await self.find_jobs(which=Which(task=task), limit=1, queue=queue)
            if not found.jobs:
                text = f"There is no task {task!r}{instead(task, tasks)}"
                raise UnknownNameError(text)

    async def queue_stats(self, queue: str | None = None) -> QueueStats:
        """How a queue does: its jobs by state, and the workers that are alive."""
        it = self._queue(queue)
        found = await with_workers(it, "stats", it.name + PAUSED)
        *counts, oldest, paused, now, records, crons, dropped, lines = found
        names, oldest = ("queued", "deferred", "in_progress", "failed"), int(oldest)
        return QueueStats(
            queue=it.name,
            **dict(zip(names, counts, strict=True)),
            oldest=(now - oldest) / 1000 if oldest else 0,
            oldest_at=ms_to_datetime(oldest) if oldest else None,
            paused=bool(paused),
            workers=[worker_info(record, at, now) for record, at in records],
            last_runs=last_runs(crons),
            dropped=named_counts(dropped),
            waiting=named_counts(lines),
        )

    async def history(
        self,
        minutes: int = MOST_MINUTES,
        *,
        step: int = 1,
        task: str = "",
        queue: str | None = None,
    ) -> list[Span]:
        """What has ended in the last minutes, those first that are longest ago.

        Args:
            minutes: How many; 480 at most are kept.
            step: How many of them make a span.
            task: Only of the task with this name.
        """
        now_ms = to_unix_ms(await self.time(queue))
        minutes = min(minutes, MOST_MINUTES)
        return await read(self._queue(queue), now_ms, minutes, step, task)

    # --- Jobs

    async def get_job(self, job_id: str, *, queue: str | None = None) -> JobInfo | None:
        """All that is known of a job; None when the queue has none, or no longer."""
        it = self._queue(queue)
        jobs = await self._read(it, stored_ids(with_tag_of(it.name, job_id)))
        return jobs[0] if jobs else None

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

        Those that are due first come first, and those that wait for a limit last;
        failed and complete ones, the newest. In long queues only the first 10,000 are
        looked at: see find_jobs.

        Args:
            state: In which they are.
            task: Only the jobs of the task with this name.
            limit: At most so many.
            offset: Leave out the first so many.
        """
        which = Which(task=task or "")
        found = await self.find_jobs(
            state, which=which, limit=limit, offset=offset, queue=queue
        )
        return found.jobs

    async def find_jobs(
        self,
        state: State | None = None,
        *,
        which: Which = ALL,
        limit: int = 50,
        offset: int = 0,
        start: str = "",
        brief: bool = False,
        queue: str | None = None,
    ) -> Found:
        """Look for jobs; says how many it has looked at, and of how many.

        Args:
            state: In which they are; by default in whichever.
            which: What else they must be.
            limit: At most so many.
            offset: Leave out the first so many that fit.
            start: Where to go on: what an earlier look has said as `next`.
            brief: Leave out arguments and results of more than 10 kB, and tracebacks.
        """
        it = self._queue(queue)
        states: list[State] = [state] if state else list(_STATES)
        place, totals = 0, dict.fromkeys(states, 0)
        if start:
            first, place = _place(start, states)
            states = states[states.index(first) :]
        if which != ALL:
            stats = await self.queue_stats(queue)
            totals |= {one: getattr(stats, one, 0) for one in totals}
        elif state in ("queued", "deferred", "failed"):
            place, offset = place + offset, 0  # no need to look at those
        before = sum(totals[one] for one in totals if one not in states)
        jobs: list[JobInfo] = []
        looked_at = 0
        for one in states:
            async for step in steps(it, one, which, place):
                totals[one] = step.total
                skipped = min(offset, len(step.ids))
                ids, offset = step.ids[skipped:], offset - skipped
                while ids and len(jobs) <= limit:
                    count = min(limit + 1 - len(jobs), STEP)
                    some, ids = await self._read(it, ids[:count], brief), ids[count:]
                    # One may have moved on meanwhile, or have the text elsewhere.
                    jobs += [
                        job for job in some if job.state == one and which.fits(job)
                    ]
                looked_at += step.looked_at
                is_last = step.place >= step.total
                if len(jobs) > limit or (looked_at >= MOST and not is_last):
                    return Found(
                        jobs=jobs[:limit],
                        more=len(jobs) > limit,
                        looked_at=before + step.place,
                        total=sum(totals.values()),
                        next=f"{one}:{step.place}" if len(jobs) <= limit else "",
                    )
            before += totals[one]
            place = 0
        return Found(jobs=jobs, more=False, looked_at=before, total=before, next="")

    async def _read(
        self, queue: Queue, ids: Sequence[bytes], brief: bool = False
    ) -> list[JobInfo]:
        """What Redis has on these jobs."""
        keys = [queue.name, queue.name + FAILED]
        values = [_LARGE if brief else 0, *ids]
        now, found = await queue.run(script("read"), keys, values)

        def parse() -> list[JobInfo]:
            read = partial(job_info, queue.serializer, queue.name, float(now))
            jobs = (read([id_, *row]) for id_, row in zip(ids, found, strict=True))
            return [job for job in jobs if job is not None]

        size = sum(len(it) for row in found for it in row if isinstance(it, bytes))
        # what is large must not hold up the event loop, which is an app's, too
        jobs = await asyncio.to_thread(parse) if size > 100_000 else parse()
        return await _with_workers(queue, jobs)

    # --- Failures

    async def error_groups(
        self, which: Which = ALL, *, queue: str | None = None
    ) -> list[ErrorGroup]:
        """The failed jobs by task and kind of error, the most frequent first."""
        it = self._queue(queue)
        groups: dict[tuple[bytes, bytes], ErrorGroup] = {}
        async for step in steps(it, "oldest", which, 0):
            if not step.ids:
                continue
            keys = [it.name, it.name + FAILED]
            for task, error, count, first, last in await it.run(
                script("mask", "groups"), keys, step.ids
            ):
                old = groups.get((task, error))
                groups[task, error] = ErrorGroup(
                    task=shown_id(task),
                    error=shown_id(error),
                    count=count + (old.count if old else 0),
                    first=old.first if old else ms_to_datetime(int(first)),
                    last=ms_to_datetime(int(last)),
                )
        return sorted(groups.values(), key=lambda group: -group.count)

    async def job_ids(
        self,
        states: Sequence[State],
        which: Which = ALL,
        *,
        queue: str | None = None,
    ) -> list[bytes]:
        """The ids of those that fit; of failed ones, the oldest first."""
        it, ids = self._queue(queue), list[bytes]()
        for state in states:
            order: State | Literal["oldest"] = "oldest" if state == "failed" else state
            async for step in steps(it, order, which, 0):
                ids += step.ids
        return ids

    async def time(self, queue: str | None = None) -> datetime:
        """Redis' time."""
        seconds, microseconds = await self._queue(queue).server.call(ArqRedis.time)
        return ms_to_datetime(seconds * 1000 + microseconds // 1000)


async def _with_workers(queue: Queue, jobs: list[JobInfo]) -> list[JobInfo]:
    """The same; of those that run, also where, and since when."""
    if not any(job.state == "in_progress" for job in jobs):
        return jobs
    known = {
        shown_id(job_id): (worker, began)
        for job_id, worker, began in await running(queue)
    }
    result = []
    for job in jobs:
        worker, began = known.get(job.job_id, (b"", b""))
        started = ms_to_datetime(int(began)) if began else job.started
        result.append(replace(job, worker=shown_id(worker), started=started))
    return result


def _place(start: str, states: list[State]) -> tuple[State, int]:
    state, _, number = start.partition(":")
    for one in states:
        if one == state and number.isdecimal():
            return one, int(number)
    raise ValueError(f"start is {start!r}, which is not what an earlier look has said")
