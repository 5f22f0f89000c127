"""Cron jobs: when each is next due, and that it is enqueued once over all workers."""

import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from uuid import uuid4

from arq import ArqRedis
from arq.constants import default_queue_name
from arq.cron import CronJob, next_cron
from arq.jobs import serialize_job
from arq.utils import ms_to_datetime, timestamp_ms, to_unix_ms

from ..connection import REDIS_ERRORS
from ..keys import CRON, CRONS, with_tag_of
from ..limits import Limit, counted, with_control
from ..scripts import run_script, script

_RANGES = {
    "month": (1, 12),
    "day": (1, 31),
    "weekday": (0, 6),
    "hour": (0, 23),
    "minute": (0, 59),
    "second": (0, 59),
    "microsecond": (0, 999_999),
}
_DAY_MS = 24 * 60 * 60 * 1000
_WEEKDAYS = ("mon", "tues", "wed", "thurs", "fri", "sat", "sun")


def check(job: CronJob) -> None:
    """Is there a time at which it is due?

    Raises:
        TypeError, ValueError: A value cannot be; names it and the cron job.
    """
    values = {name: _values(getattr(job, name)) for name in _RANGES}
    for name, (first, last) in _RANGES.items():
        said = f"cron job {job.name!r}: {name}={getattr(job, name)!r}"
        if not values[name] and getattr(job, name) is not None:
            raise ValueError(f"{said} is never")
        for one in values[name]:
            if name == "weekday" and one in _WEEKDAYS:
                continue
            if isinstance(one, bool) or not isinstance(one, int):
                raise TypeError(f"{said} must be an integer or a set of integers")
            if not first <= one <= last:
                raise ValueError(f"{said} must be from {first} to {last}")
    longest = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}
    months, days = values["month"] or range(1, 13), values["day"]
    if days and min(days) > max(longest.get(month, 31) for month in months):
        raise ValueError(
            f"cron job {job.name!r}: month={job.month!r} never has day={job.day!r}"
        )


def _values(value: Any) -> Collection[Any]:
    if value is None or isinstance(value, set | frozenset | list | tuple):
        return value or ()
    return (value,)


def next_time(job: CronJob, after: datetime, zone: tzinfo) -> datetime:
    """When a cron job is next due, in UTC.

    Where clocks are put back, an hour comes twice: a job of any hour runs in both, one
    of fixed hours in the first. Where they are put forward, one of fixed hours that
    fall into the gap runs as late after the gap as it would have been within it.
    """
    after = after.astimezone(UTC)
    if job.hour is not None:
        naive = _local(after, zone)
        while True:
            naive = _next(job, naive)
            due = naive.replace(tzinfo=zone).astimezone(UTC)
            if due > after:
                return due
    offset = after.astimezone(zone).utcoffset() or timedelta()
    due = (_next(job, _local(after, zone)) - offset).replace(tzinfo=UTC)
    if due.astimezone(zone).utcoffset() == offset:
        return due
    # As many local times again, with the offset that is valid from then on.
    change = _change_between(after, due, zone)
    start = _local(change, zone)
    offset = change.astimezone(zone).utcoffset() or timedelta()
    return (_next(job, start - timedelta(seconds=1)) - offset).replace(tzinfo=UTC)


def _next(job: CronJob, after: datetime) -> datetime:
    due: datetime = next_cron(after, **{name: getattr(job, name) for name in _RANGES})
    return due


def _local(time: datetime, zone: tzinfo) -> datetime:
    return time.astimezone(zone).replace(tzinfo=None, fold=0)


def _change_between(first: datetime, last: datetime, zone: tzinfo) -> datetime:
    """When the clocks of a zone are changed between two times with other offsets."""
    before = first.astimezone(zone).utcoffset()
    while last - first > timedelta(seconds=1):
        middle = first + (last - first) / 2
        if middle.astimezone(zone).utcoffset() == before:
            first = middle
        else:
            last = middle
    return last.replace(microsecond=0)


@dataclass
class Schedule:
    """Enqueues the cron jobs of a worker."""

    jobs: Sequence[CronJob]
    queue: str
    """Its name."""
    zone: tzinfo
    keep_ms: int
    """Milliseconds after which a run that has not started is dropped."""
    catch_up_s: float
    """Seconds by which a run may be late that no worker was there for."""
    serializer: Any
    """arq's job_serializer."""
    limits: Sequence[Limit] = ()
    """Of all jobs of the queue."""
    missed: dict[str, datetime] = field(default_factory=dict)
    """The last runs that came while the queue was paused."""

    async def run(
        self,
        redis: ArqRedis,
        now: datetime,
        window: timedelta,
        *,
        is_paused: bool = False,
    ) -> int:
        """Enqueue the runs that are due soon; of several that were missed, the last.

        Args:
            redis: The connections.
            now: The time.
            window: How soon.
            is_paused: Is the queue? Then none is enqueued.

        Returns:
            How many were enqueued, by whomever.

        Raises:
            redis.exceptions.RedisError, OSError: Redis is unreachable; none is
                skipped.
        """
        count = 0
        for job in self.jobs:
            if job.next_run is None:
                job.next_run = await self._first(redis, job, now)
            missed = None if is_paused else self.missed.pop(job.name, None)
            if missed is not None and (now - missed).total_seconds() < self.catch_up_s:
                await self._enqueue(redis, job, missed)
                count += 1
            while (due := job.next_run) < now + window:
                job.next_run = next_time(job, due, self.zone)
                if is_paused:
                    self.missed[job.name] = due
                elif job.next_run > now - window:
                    try:
                        await self._enqueue(redis, job, due)
                    except REDIS_ERRORS:
                        job.next_run = due
                        raise
                    count += 1
        return count

    def due_in_s(self) -> float:
        """In how many seconds the next run is due; math.inf if there is none."""
        runs = [job.next_run.timestamp() for job in self.jobs if job.next_run]
        return min(runs, default=math.inf) - time.time()

    async def _first(self, redis: ArqRedis, job: CronJob, now: datetime) -> datetime:
        """When a cron job is first due: in the past, if that run was missed."""
        if job.run_at_startup:
            return now
        if self.catch_up_s:
            key, field = self.queue + CRONS, f"{job.name}:since"
            async with redis.pipeline(transaction=False) as pipe:
                pipe.hsetnx(key, field, str(to_unix_ms(now)))
                pipe.hget(key, field)
                _, known_ms = await pipe.execute()
            since = ms_to_datetime(int(known_ms))
            earliest = max(since, now - timedelta(seconds=self.catch_up_s))
            due = next_time(job, earliest, self.zone)
            if due <= now:
                return due
        return next_time(job, now, self.zone)

    async def _enqueue(self, redis: ArqRedis, job: CronJob, due: datetime) -> None:
        due_ms = to_unix_ms(due)
        run = f"{job.job_id or job.name}:{due_ms}"
        # Jobs of all queues share their keys, and arq's queue has plain ids.
        prefix = "" if self.queue == default_queue_name else f"{self.queue}:"
        own_id = job.job_id or (prefix + run if job.unique else uuid4().hex)
        job_id = with_tag_of(self.queue, own_id)
        payload = serialize_job(
            job.name, (), {}, None, timestamp_ms(), serializer=self.serializer
        )
        counts = counted(job.coroutine, job.name, self.queue, self.limits)
        level = getattr(job.coroutine, "priority", 0)
        payload = with_control(payload or b"", counts, level)
        keys = [self.queue, f"{self.queue}{CRON}{run}"]
        keep_mark_ms = _DAY_MS + int(self.catch_up_s * 1000)
        values = [job_id, due_ms, self.keep_ms, payload, job.unique * keep_mark_ms]
        await run_script(redis, script("control", "wake", "cron"), keys, values)
