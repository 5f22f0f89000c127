"""The jobs that a worker holds: claimed, and renewed while they run.

Keys and formats in Redis are arq's, so that its clients and workers can share the
queue; what is added is in keys.py. What differs:

- A claim takes as many due jobs as there are free slots, in one round trip.
- A claim is a lease: a worker that is killed has its jobs run elsewhere when it ends.
- A worker that has lost its lease cannot finish the job: its token is no longer there.
- Time is that of Redis, whatever the clocks of workers and clients say.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

from arq import ArqRedis
from arq.constants import job_key_prefix
from arq.utils import to_ms

from ..connection import REDIS_ERRORS
from ..keys import CLAIM, PAUSED, WAKE
from ..limits import control_of
from ..line import Line
from ..scripts import BATCH_BYTES, run_script, script
from .job import ClaimedJob
from .outages import Outages

logger = logging.getLogger("arq.worker")

#: What lua/renew.lua answers for each job.
OTHERS, RENEWED, UNKNOWN = range(3)

#: How long Redis keeps a worker waiting for a job, in seconds, less than it may take to
#: answer: a connection that is half open would wait for ever.
WAIT_S = 3
#: The lease of a job that was handed to a worker that waited, in seconds, until that
#: worker renews it: at once, if it lives.
HANDED_S = 5

#: How long other workers get to renew their leases after an outage, in seconds.
OTHERS_S = 2.5

_CLAIM = script("control", "wake", "claim")
_RENEW = script("control", "lease", "renew")


@dataclass(slots=True)
class QueueState:
    """What the last claim has told of the queue."""

    is_empty: bool = True
    next_due_s: float = 0.0
    """In so many seconds another job is due."""
    abort_marks: int = 0
    is_paused: bool = False
    may_have_more: bool = True
    """Due jobs: as many were claimed as there were free slots."""


class Leases:
    """Claims jobs of a queue, and renews their leases.

    Args:
        worker_id: Who holds them.
        queue: The queue's name.
        lease_s: Seconds after which the jobs of a killed worker run elsewhere.
        keep_ms: Milliseconds for which a job is kept that nobody renews.
        apart_from: From this try on, a job whose worker was killed runs apart.
        is_strict: Does the highest priority always come first?
        on_claimed: Called with each job that is claimed.
        on_lost: Called with each that another worker has by now.
    """

    def __init__(
        self,
        worker_id: str,
        queue: str,
        *,
        lease_s: float,
        keep_ms: int,
        apart_from: int,
        is_strict: bool = False,
        on_claimed: Callable[[ClaimedJob], None],
        on_lost: Callable[[ClaimedJob], None],
    ) -> None:
        self.worker_id = worker_id
        self.queue = queue
        self.lease_s = lease_s
        self.keep_ms = keep_ms
        self.apart_from = apart_from
        self.is_strict = is_strict
        self._on_claimed = on_claimed
        self._on_lost = on_lost
        self.held: dict[str, ClaimedJob] = {}
        self.state = QueueState()
        self._claiming: asyncio.Task[None] | None = None
        self.own_wake = f"{queue}{WAKE}:{worker_id}"
        self._is_waiting = False
        self.must_look = False
        """Do others queue jobs that they do not announce, as arq's own client does?"""
        self._to_begin: list[ClaimedJob] = []
        self._handed: list[ClaimedJob] = []  # and not yet renewed
        self._token = uuid4().hex
        self._offset_ms: int | None = None  # Redis' time when the event loop's is 0
        # By the event loop's clock, in seconds:
        self.answered_at = 0.0
        self.renew_at = 0.0
        self.claim_at = 0.0

    def open(self, redis: ArqRedis, outages: Outages, *, is_burst: bool) -> None:
        """Use these connections; a burst keeps none, since nobody need close it."""
        self._redis = redis
        may_wait = not is_burst and redis.connection_pool.max_connections > 1
        self._line = Line(redis) if may_wait else None
        self._outages = outages
        self._loop = asyncio.get_running_loop()

    # --- Time

    @property
    def is_new(self) -> bool:
        """Has Redis never told its time?"""
        return self._offset_ms is None

    def now_ms(self) -> int:
        """Redis' time, in milliseconds since 1970."""
        return (self._offset_ms or 0) + to_ms(self._loop.time())

    async def ask_time(self) -> None:
        """Ask Redis for its time."""
        seconds, microseconds = await self._redis.time()
        self._note_time(seconds * 1000 + microseconds // 1000)

    def _note_time(self, now_ms: int) -> None:
        jump_ms = 0 if self.is_new else now_ms - self.now_ms()
        self.answered_at = self._loop.time()
        self._offset_ms = now_ms - to_ms(self.answered_at)
        if jump_ms > to_ms(self.lease_s / 4):
            self.renew_first()
        if abs(jump_ms) > 5_000:
            way = "forward" if jump_ms > 0 else "back: what is queued waits for it"
            logger.warning("Redis' clock went %d s %s", abs(jump_ms) // 1000, way)

    def renew_first(self) -> None:
        """Leases may have run out: each worker renews its own before anyone claims."""
        self.claim_at = self._loop.time() + OTHERS_S
        self.renew_at = 0.0

    # --- Claims

    def can_wait(self, seconds: float) -> bool:
        """Can the next claim wait in Redis, for so long or until a job is due?"""
        now = self._loop.time()
        return (
            self._line is not None
            and now >= max(self.claim_at, self._line.refused_at + 1)
            and min(seconds, self.state.next_due_s) > 0.001
        )

    async def claim(self, free: Callable[[], int], wait_s: float = 0.0) -> None:
        """Claim jobs, and learn how the queue does.

        Args:
            free: Up to how many.
            wait_s: Wait in Redis for a job, but not longer than so many seconds, nor
                than until the next one is due.
        """
        self._is_waiting = wait_s > 0
        # Not to be cancelled midway: it would hold jobs that nobody runs.
        self._claiming = self._loop.create_task(self._claim(free, wait_s))
        if self.state.next_due_s < wait_s:
            # Redis itself looks at the time ten times a second.
            await asyncio.wait({self._claiming}, timeout=self.state.next_due_s)
            await self._wait_no_longer()
        await asyncio.shield(self._claiming)

    async def claimed(self) -> None:
        """Wait for a claim that is under way, and have it wait no longer."""
        if self._claiming:
            await self._wait_no_longer()
            await self._claiming

    async def _wait_no_longer(self) -> None:
        if self._is_waiting and self._claiming and not self._claiming.done():
            redis: Any = self._redis
            with suppress(*REDIS_ERRORS):
                await redis.rpush(self.own_wake, "")

    async def _claim(self, may_take: Callable[[], int], wait_s: float = 0.0) -> None:
        wait = ("BLPOP", self.queue + WAKE, self.own_wake, f"{wait_s:.3f}")
        # A worker that runs jobs may be held up by one, and claims when it has woken.
        is_idle = wait_s > 0 and all(job.is_ending for job in self.held.values())
        if wait_s and not is_idle and self._line:
            await self._line.wait(wait)
            wait_s = 0.0
        free = may_take() if self._loop.time() >= self.claim_at else 0
        valid_until_ms = 1 << 53
        if not self.is_new:
            # Until then no lease ends, even if none can be renewed in the meantime.
            valid_until_ms = self.now_ms() + to_ms(self.lease_s / 4 + wait_s)
        keys = [self.queue, self.queue + PAUSED, self.queue + CLAIM + self.worker_id]
        may_apart = not any(job.apart for job in self.held.values())
        lease_s = min(self.lease_s, HANDED_S) if is_idle else self.lease_s
        values = [
            *(self._token, free, to_ms(lease_s), self.keep_ms, valid_until_ms),
            *(BATCH_BYTES, self.apart_from, int(may_apart), int(self.is_strict)),
        ]
        ahead = wait if is_idle else ()
        answer = await self._run(_CLAIM, keys, values, ahead)
        jobs, is_empty, next_due_ms, abort_marks, is_paused, now_ms = answer
        age_ms = self.now_ms() - now_ms
        self._note_time(now_ms)
        if jobs and age_ms > to_ms(lease_s / 2):
            # This worker was stopped meanwhile, and others may run them: with the same
            # token, they are given back.
            return await self._claim(may_take)
        if jobs and is_idle and self._line and not self._line.was_woken:
            self.must_look |= self.state.next_due_s > wait_s
        if is_paused != self.state.is_paused:
            state = "paused" if is_paused else "resumed"
            logger.info("Queue %s is %s", self.queue, state)
        self.state = QueueState(
            bool(is_empty),
            next_due_ms / 1000,
            abort_marks,
            bool(is_paused),
            may_have_more=len(jobs) >= free,
        )
        if jobs:
            token, self._token = self._token, uuid4().hex
            claimed = [self._claimed(token, *job) for job in jobs]
            try:
                if is_idle:  # A job may block the event loop, so this goes before.
                    self._handed = claimed
                    await self.renew(on_sent=self._begin)
            finally:
                self._begin()

    async def _run(self, *call: Any) -> Any:
        """Run a script, as Line.run; each of them in its turn."""
        if self._line is None:
            return await run_script(self._redis, *call[:3])
        return await self._line.run(*call)

    def _claimed(
        self,
        token: str,
        id_: bytes,
        score: bytes,
        payload: bytes | int | None,
        job_try: int,
        aborted: int,
        last_error: bytes | None,
        apart: int,
        end: bytes,
    ) -> ClaimedJob:
        size = payload if isinstance(payload, int) else 0
        content = payload if isinstance(payload, bytes) else None
        job = ClaimedJob(
            id=id_,
            token=token,
            score=score,
            payload=content,
            job_try=job_try,
            aborted=bool(aborted),
            last_error=last_error,
            size=size,
            apart=bool(apart),
            control=control_of(content or end),
        )
        before = self.held.get(job.job_id)
        if before is not None and (before.is_ending or not before.is_same(job)):
            before.again = job
            return job
        if before is not None:
            # Redis has forgotten the lease, after a jump of its clock or a failover,
            # but the job runs here still.
            before.token, before.job_try, before.lost = token, job_try, False
            logger.warning("%s was claimed again while it runs here", before.ref)
            return before
        self.held[job.job_id] = job
        self._to_begin.append(job)
        return job

    def _begin(self) -> None:
        while self._to_begin:
            self._on_claimed(self._to_begin.pop(0))

    async def fetch(self, job: ClaimedJob) -> None:
        """Get the job's content, where it was too large to come with the claim.

        In parts, each of which has as long to arrive as any answer.
        """
        parts = []
        for start in range(0, job.size, BATCH_BYTES):
            part = await self._outages.wait_out(
                self._redis,
                partial(
                    self._redis.getrange,
                    job_key_prefix.encode() + job.id,
                    start,
                    start + BATCH_BYTES - 1,
                ),
                is_first=False,
            )
            parts.append(part)
        job.payload = b"".join(parts)

    def let_go(self, job: ClaimedJob) -> None:
        """Hold a job no longer; begin its next try, if that is claimed already."""
        if self.held.get(job.job_id) is job:
            del self.held[job.job_id]
            if job.again is not None:
                self.held[job.job_id] = job.again
                self._on_claimed(job.again)

    async def renew(self, on_sent: Callable[[], None] | None = None) -> None:
        """Renew the leases that are held, when it is time for that; new ones at once.

        Args:
            on_sent: Called once Redis has been told, before it has answered.
        """
        now = self._loop.time()
        is_time = now >= self.renew_at
        jobs = [job for job in self.held.values() if is_time]
        jobs += [job for job in self._handed if job not in jobs]
        if jobs:
            values: list[Any] = [to_ms(self.lease_s), self.keep_ms]
            for job in jobs:
                values += [job.id, job.token, job.job_try, job.control]
            answers = await self._run(_RENEW, [self.queue], values, (), on_sent)
            self._note_renewed(jobs, answers)
        self._handed = []
        if is_time:
            self.renew_at = now + self.lease_s / 4

    def _note_renewed(self, jobs: list[ClaimedJob], answers: list[int]) -> None:
        lost = 0
        for job, answer in zip(jobs, answers, strict=True):
            if job.is_ending:  # what records that is told
                continue
            if answer == UNKNOWN and not job.lost:
                job.lost = True
                lost += 1
            if answer == OTHERS and self.held.get(job.job_id) is job:
                self._on_lost(job)
        if lost:
            logger.warning(
                "Redis has lost data: %d jobs that run here are no longer known to it; "
                "they go on",
                lost,
            )
