"""The worker's main loop. No error of Redis and none of a task ends it.

A job's way: this loop -> Leases.claim -> Runner.run -> the task -> Ends.finish.
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import UTC
from typing import Any
from uuid import uuid4

import arq.worker
from arq.connections import log_redis_info
from arq.typing import SecondsTimedelta
from arq.utils import timestamp_ms, to_seconds
from redis.exceptions import RedisError, ResponseError

from ..connection import connect
from ..limits import Limit
from ..scripts import run_script, script
from .cron import Schedule
from .ends import DONE, DROPPED, LOST, REFUSED, Ends
from .job import ClaimedJob, Context, End, FailureHook, Relaying
from .leases import WAIT_S, Leases
from .observers.observer import Observer, Observers
from .outages import HopelessError, Outages, is_cancelled
from .pulse import beside, pulse
from .runner import Runner, RunOptions
from .threads import Threads

logger = logging.getLogger("arq.worker")

#: How long Redis may take to answer, in seconds.
ANSWER_S = 5


class Loop(arq.worker.Worker):
    """arq's worker with a main loop of its own. Times are in seconds.

    Args:
        lease: After which the jobs of a killed worker run elsewhere.
        keep_failed: For how long a failed job is kept; 0 keeps none.
        retry_delay: Before the second try.
        catch_up: By how much a cron job's run may be late that no worker was there for.
        on_failure: Called as `on_failure(ctx, exc)` once a job has failed for good.
        log_arguments: Whether the log shows the arguments of jobs.
        observers: What watches the jobs.
        relay: Moves the outbox to Redis.
        limits: Of all jobs of the queue; for its cron jobs.
        strict_priority: Does the highest priority always come first?
        options: As arq.Worker.
    """

    def __init__(
        self,
        functions: Sequence[Any] = (),
        *,
        lease: SecondsTimedelta = 60,
        keep_failed: SecondsTimedelta = 30 * 24 * 3600,
        retry_delay: SecondsTimedelta = 10,
        catch_up: SecondsTimedelta = 0,
        on_failure: FailureHook | None = None,
        log_arguments: bool = True,
        observers: Sequence[Observer] = (),
        relay: Relaying | None = None,
        limits: Sequence[Limit] = (),
        strict_priority: bool = False,
        **options: Any,
    ) -> None:
        self.is_open = False
        self._wake, self._wait_s = asyncio.Event(), 0.0
        self.threads = Threads(options.get("max_jobs", 10), self._wake.set)
        tasks = [self.threads.as_coroutine(task) for task in functions]
        super().__init__(tasks, **options)
        self.retry_delay_s = to_seconds(retry_delay) or 0
        self.on_failure = on_failure
        self.log_arguments = log_arguments
        self.observers = Observers(observers)
        self.relay = relay
        self.started_ms = 0
        self.keep_failed_s = to_seconds(keep_failed) or 0
        self.worker_id = uuid4().hex
        self.leases = Leases(
            self.worker_id,
            self.queue_name,
            lease_s=to_seconds(lease) or 0,
            keep_ms=self.expires_extra_ms,
            # The last try of the task here that has the fewest.
            apart_from=min((n for n in self._all_tries() if n > 1), default=2),
            is_strict=strict_priority,
            on_claimed=self._start,
            on_lost=self._lease_is_lost,
        )
        self.ends = Ends(
            self.worker_id,
            self.queue_name,
            keep_ms=self.expires_extra_ms,
            keep_failed_s=self.keep_failed_s,
            let_go=self.leases.let_go,
        )
        self.schedule = Schedule(
            self.cron_jobs,
            self.queue_name,
            self.timezone or UTC,
            self.expires_extra_ms,
            to_seconds(catch_up) or 0,
            self.job_serializer,
            limits,
        )

    def _all_tries(self) -> list[int]:
        """How often each of the tasks may be tried."""
        own = [function.max_tries for function in self.functions.values()]
        return [self.max_tries if tries is None else tries for tries in own]

    def _open(self) -> None:
        """Make what depends on the running event loop, and on the last settings."""
        self.is_open = True
        self.loop = asyncio.get_running_loop()
        if self._pool is None:
            assert self.redis_settings is not None
            self._pool = connect(
                self.redis_settings,
                job_serializer=self.job_serializer,
                job_deserializer=self.job_deserializer,
                socket_timeout=ANSWER_S,
                default_queue_name=self.queue_name,
                expires_extra_ms=self.expires_extra_ms,
            )
        self.outages = Outages(
            self.redis_settings,
            is_patient=not self.burst,
            on_long=self.leases.renew_first,
            long_s=self.leases.lease_s / 2,
        )
        self.leases.open(self.pool, self.outages, is_burst=self.burst)
        self.ends.open(self.pool, self.outages)
        options = RunOptions(
            queue=self.queue_name,
            job_timeout=self.job_timeout_s,
            max_tries=self.max_tries,
            retry_delay=self.retry_delay_s,
            retry_jobs=self.retry_jobs,
            keep_result=self.keep_result_s,
            keep_result_forever=self.keep_result_forever,
            allow_abort=self.allow_abort_jobs,
            log_results=self.log_results,
            log_arguments=self.log_arguments,
            serializer=self.job_serializer,
            deserializer=self.job_deserializer,
            on_job_start=self.on_job_start,
            on_job_end=self.on_job_end,
            is_burst=self.burst,
        )
        self.runner = Runner(self.functions, self.observers, options, self._is_stopping)
        self.job_tasks = self.runner.running

    # --- Main loop

    async def main(self) -> None:
        """Run jobs until cancelled, or until it has run as many as it may.

        In burst mode, until the queue is empty.

        Raises:
            redis.exceptions.RedisError, OSError: In burst mode, Redis is
                unreachable.
        """
        self._open()
        with pulse(self.leases):
            await self._work()

    async def _work(self) -> None:
        names = ", ".join(self.functions)
        logger.info("Starting worker for %d functions: %s", len(self.functions), names)
        async with asyncio.timeout(3 if self.burst else None):
            await self._wait_out(self._greet)
        self.ctx["redis"] = self.pool
        self.observers.tell("started", self.queue_name, [*self.functions])
        if self.on_startup:
            await self.on_startup(self.ctx)
        if self.relay and self.burst:
            await self.relay(True)
        others = [self.relay(False)] if self.relay and not self.burst else []
        async with beside(others):
            while not is_cancelled():
                await self._wait_out(self._poll_iteration)
                if self._is_over():
                    return
                await self._idle()
            raise asyncio.CancelledError

    async def _wait_out(self, step: Any) -> None:
        await self.outages.wait_out(self.pool, step, is_first=self.leases.is_new)

    async def _greet(self) -> None:
        await self.leases.ask_time()
        with contextlib.suppress(ResponseError):
            mode = (await self.pool.info("server")).get("redis_mode")
            if mode == "cluster" and not getattr(
                self.redis_settings, "is_cluster", False
            ):
                text = "it is a cluster: cluster:// goes with that, or another Redis"
                raise HopelessError(self.outages.reason(RedisError(text)))
        self.started_ms = self.leases.now_ms()
        with contextlib.suppress(ResponseError):  # not every server has or allows INFO
            await log_redis_info(self.pool, logger.info)

    def _is_stopping(self) -> bool:
        stopped = self.main_task is not None and self.main_task.cancelling() > 0
        return stopped or not self.allow_pick_jobs

    def _free(self) -> int:
        """How many jobs this worker may claim now."""
        if not self.allow_pick_jobs:
            return 0
        free = self.max_jobs - self.job_counter - self.threads.left
        if self.max_burst_jobs >= 0:
            free = min(free, self.max_burst_jobs - self._jobs_started())
        return max(min(free, self.queue_read_limit), 0)

    async def _poll_iteration(self) -> None:
        """Do all that is to be done now: leases, claims, aborts, cron jobs, health."""
        wait_s, self._wait_s = self._wait_s, 0.0
        await self.leases.renew()
        await self.leases.claim(self._free, wait_s if self._free() else 0.0)
        if self.leases.state.abort_marks and self.allow_abort_jobs and self.job_tasks:
            await self._cancel_aborted_jobs()
        await self.heart_beat()

    async def _idle(self) -> None:
        """Wait for new jobs, a free slot, or the time when there is something to do."""
        leases, seconds = self.leases, self.poll_delay_s
        if leases.held:
            seconds = max(min(seconds, leases.renew_at - self.loop.time()), 0)
        elif not leases.must_look:
            seconds = max(min(WAIT_S, self.schedule.due_in_s() - seconds), seconds)
        longest_s = min(seconds, WAIT_S, leases.lease_s / 4)
        if not leases.state.may_have_more and leases.can_wait(longest_s):
            self._wait_s = longest_s  # with the next claim, in Redis
            return
        seconds = min(seconds, self.poll_delay_s)
        if self._free() > 0:
            seconds = min(seconds, leases.state.next_due_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        self._wake.clear()

    def _is_over(self) -> bool:
        state = self.leases.state
        has_done_all = self.burst and (state.is_empty or state.is_paused)
        is_used_up = 0 <= self.max_burst_jobs <= self._jobs_started()
        return (has_done_all or is_used_up) and not self.tasks

    # --- Jobs

    def _start(self, job: ClaimedJob) -> None:
        job_id = job.job_id
        self.job_counter += 1
        self.tasks[job_id] = task = self.loop.create_task(self._run_and_record(job))

        def done(task: asyncio.Task[None]) -> None:
            if self.tasks.get(job_id) is task:
                del self.tasks[job_id]
            self._wake.set()
            if not task.cancelled() and (exc := task.exception()):
                logger.error("The end of %s was not recorded", job.ref, exc_info=exc)
                self.leases.let_go(job)  # it runs again when its lease ends

        task.add_done_callback(done)

    # Not called run_job: those who replace arq's, as Sentry does, expect another.
    async def _run_and_record(self, job: ClaimedJob) -> None:
        ctx = {**self.ctx, "job_id": job.job_id, "job_try": job.job_try}
        ctx["score"] = job.due_ms
        with contextlib.ExitStack() as stack:
            try:
                if job.size:
                    await self.leases.fetch(job)
                end = self.runner.begin(job, ctx)
                if end is None:
                    self.observers.surround(stack, job, self.queue_name)
                    assert job.function is not None
                    end = await self.runner.run(job, job.function, ctx)
            finally:
                self.job_counter -= 1
                if self.leases.state.may_have_more:
                    self._wake.set()
            self._count(end)
            answer = await self.ends.finish(job, end)
            if answer == REFUSED:
                end = self.runner.not_found(job)
                self._count(end)
                answer = await self.ends.finish(job, end)
            await self._recorded(job, end, answer, ctx)

    async def _recorded(
        self, job: ClaimedJob, end: End, answer: int, ctx: Context
    ) -> None:
        """Tell those who want to know how a try has ended."""
        if end.error is not None and answer in (DONE, DROPPED):
            self.observers.tell("failed", job, end.error)
            await self.runner.call_hook(self.on_failure, job, ctx, end.error)
        outcome = "lost" if answer == LOST else end.outcome
        seconds = (timestamp_ms() - job.start_ms) / 1000
        self.observers.tell("ended", job, self.queue_name, outcome, seconds)
        await self.runner.call_hook(self.after_job_end, job, ctx)

    def _count(self, end: End) -> None:
        if end.action == "complete" and end.outcome == "complete":
            self.jobs_complete += 1
        elif end.action in ("complete", "failed"):
            self.jobs_failed += 1
        elif end.action != "unknown":
            self.jobs_retried += 1

    def _cancel(self, job_id: str, why: str) -> None:
        task, job = self.tasks.get(job_id), self.leases.held.get(job_id)
        if task is not None and job is not None and not job.cancelled:
            job.cancelled = why
            task.cancel()

    def _lease_is_lost(self, job: ClaimedJob) -> None:
        if job.job_id in self.job_tasks:
            logger.warning("%s runs on another worker now: cancelled here", job.ref)
            self._cancel(job.job_id, "lost")

    async def _cancel_aborted_jobs(self) -> None:
        ids = await run_script(self.pool, script("aborts"), [self.queue_name], [])
        for job_id in {id_.decode(errors="backslashreplace") for id_ in ids}:
            if job_id in self.job_tasks:
                self._cancel(job_id, "abort")
