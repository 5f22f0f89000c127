"""The worker: arq's, with a main loop, a heartbeat and a stop of its own."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from arq.constants import health_check_key_suffix
from arq.utils import to_unix_ms
from redis.exceptions import ResponseError

from ..connection import REDIS_ERRORS
from ..keys import ENDS, GAUGES
from . import heartbeat
from .loop import Loop
from .observers.history import History
from .observers.joblog import JobLogs
from .observers.observer import Observer
from .outages import HopelessError
from .threads import Threads

logger = logging.getLogger("arq.worker")

#: Seconds that a stop waits for Redis: for what is under way, then to give jobs back.
STOP_S = 5
#: How often a worker says that it lives, what it runs and what has ended, in seconds.
SAY_S = 5


class Worker(Loop):
    """What `arq core.tasks.WorkerSettings` runs.

    Args:
        max_jobs_per_process: After which it ends, once those that run have ended.
        history: For how many hours the history is kept, 8 at most; 0 keeps none.
        keep_logs: How many log lines of a job are kept, 100 at most.
        observers: As Loop.
        options: As Loop and arq.Worker.
    """

    #: Of the code, for the list of workers; the command line knows it.
    version = ""

    def __init__(
        self,
        functions: Sequence[Any] = (),
        *,
        max_jobs_per_process: int | None = None,
        history: float = 8,
        keep_logs: int = 0,
        observers: Sequence[Observer] = (),
        **options: Any,
    ) -> None:
        if "WATCHFILES_CHANGES" in os.environ:  # about to start anew, see install.py
            options["job_completion_wait"] = 0
        if not options.get("burst"):
            options["max_burst_jobs"] = -1
            if max_jobs_per_process:  # not all processes of a worker at once
                more = random.randint(0, max_jobs_per_process // 10)
                options["max_burst_jobs"] = max_jobs_per_process + more
        self._history = History(history)
        self._logs = JobLogs(keep_logs)
        observers = (*observers, self._history, *([self._logs] if keep_logs else []))
        super().__init__(functions, observers=observers, **options)
        self._say_at = self._sum_at = 0.0  # by the event loop's clock
        self._counts: dict[str, float] | None = None

    # --- Cron and health

    async def heart_beat(self) -> None:
        """Cron jobs first: what is recorded says when they run next."""
        now = datetime.now(tz=self.timezone)
        await self.run_cron(now, max(self.poll_delay_s, 0.5))
        await self.record_health()

    async def run_cron(self, n: datetime, delay: float, num_windows: int = 2) -> None:
        """Enqueue the cron jobs that are due within some windows of `delay` seconds."""
        window = timedelta(seconds=delay * num_windows)
        state = self.leases.state
        if await self.schedule.run(self.pool, n, window, is_paused=state.is_paused):
            state.is_empty = False  # a burst is not over

    async def record_health(self) -> None:
        """Say that this worker lives and what it does, for `--check` and the like."""
        last = self._last_health_check
        await super().record_health()
        if self.loop.time() >= self._sum_at:
            self._sum_at = self.loop.time() + 1
            await self._logs.write(self.pool)
        if self.loop.time() >= self._say_at:
            await self._say()
        if self._last_health_check == last:
            return
        await self._count_queue()
        usual_key = self.queue_name + health_check_key_suffix
        if self.health_check_key != usual_key:
            said = await self.pool.get(self.health_check_key)
            keep_ms = int((self.health_check_interval + 1) * 1000)
            await self.pool.set(usual_key, said or b"", px=keep_ms)

    async def _count_queue(self) -> None:
        """Have those who show it know how the queue does."""
        if not self.observers.want("counted"):
            return
        keep_ms = int((self.health_check_interval + 1) * 2000)
        with contextlib.suppress(ResponseError):  # of what others have left in Redis
            self._counts = await heartbeat.count(
                self.pool, self.queue_name, self.worker_id, keep_ms
            )
            self.observers.tell("counted", self.queue_name, self._counts)

    async def _say(self) -> None:
        self._say_at = self.loop.time() + min(SAY_S, self.health_check_interval)
        now_ms = self.leases.now_ms()
        async with self.pool.pipeline(transaction=False) as pipe:
            self._history.add(pipe, self.queue_name, now_ms)
            heartbeat.record(
                pipe,
                self.queue_name,
                self._about(),
                now_ms=now_ms,
                # longer than it may be silent: one that was killed is seen to be gone
                keep_ms=max(int((self.health_check_interval + 1) * 2000), 60_000),
                keep_queue_ms=self.expires_extra_ms,
                keep_failed_s=self.keep_failed_s,
            )
            # What others have left under these names is no outage.
            await pipe.execute(raise_on_error=False)

    def _about(self) -> dict[str, Any]:
        held = self.leases.held
        return heartbeat.host_and_process() | {
            "id": self.worker_id,
            "since": self.started_ms,
            "version": self.version,
            "queue": self.queue_name,
            "max_jobs": self.max_jobs,
            "lease": self.leases.lease_s,
            "running": [*self.job_tasks],
            "began": [held[id].start_ms if id in held else 0 for id in self.job_tasks],
            "tasks": list(self.functions),
            "cron": [
                {"name": job.name, "next": to_unix_ms(job.next_run)}
                for job in self.cron_jobs
                if job.next_run
            ],
            "complete": self.jobs_complete,
            "failed": self.jobs_failed,
            "retried": self.jobs_retried,
        }

    # --- Stopping

    def handle_sig(self, signum: signal.Signals) -> None:
        """Cancel what runs; it is run again elsewhere."""
        self.allow_pick_jobs = False
        for job in self.leases.held.values():
            job.cancelled = job.cancelled or "stop"
        super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: signal.Signals) -> None:
        """Let what runs finish; at the second signal, do not."""
        if self.allow_pick_jobs:
            super().handle_sig_wait_for_completion(signum)
        else:
            self.handle_sig(signum)

    def run(self) -> None:
        """Run until stopped; exit with one line where Redis cannot be used."""
        self.main_task = self.loop.create_task(self.main())
        try:
            run_to_its_end(self.loop, self.main_task, self.close)
        except (HopelessError, *REDIS_ERRORS) as exc:
            self.log_end(exc)
            sys.exit(1)
        close_threads([self.threads])

    def log_end(self, exc: Exception) -> None:
        """Say why it cannot go on."""
        if isinstance(exc, HopelessError):
            logger.critical("Redis cannot be used: %s", exc)
        else:
            why = self.outages.reason(exc)
            logger.critical("Redis is not reachable, see ARQ_REDIS_URL: %s", why)

    async def close(self) -> None:
        """Give back what runs still, within 2 * STOP_S, and close the connections."""
        if not self._handle_signals:
            self.handle_sig(signal.SIGUSR1)
        if self._pool:
            await self.leave()
            await self.shut_down()

    async def leave(self) -> None:
        """Give back what runs still, and be listed no longer."""
        if not self.is_open:  # main() was never called
            self._open()
        with contextlib.suppress(*REDIS_ERRORS):
            async with asyncio.timeout(STOP_S):
                await self.leases.claimed()
                ending = list(self.tasks.values())
                if self.main_task and self.main_task.cancelling():
                    ending.append(self.main_task)  # it uses the connections
                if ending:
                    await asyncio.wait(ending)
        with contextlib.suppress(*REDIS_ERRORS):
            async with asyncio.timeout(STOP_S if self.leases.held else 0.5):
                await self.ends.give_back(
                    self.leases.held.values(), self.runner.released
                )
                if not self.leases.is_new:  # else it has reached no Redis
                    await self._say()  # what has ended
                ends = self.queue_name + ENDS + self.worker_id
                keys = [self.health_check_key, ends, f"{ends}:large"]
                keys.append(self.leases.own_wake)
                if self._counts is not None:
                    keys.append(self.queue_name + GAUGES)  # it is another's turn
                await heartbeat.forget(
                    self.pool, self.queue_name, self.worker_id, *keys
                )
        if count := self.ends.unrecorded:
            logger.warning("Without Redis, %d jobs are not recorded: run again", count)

    async def shut_down(self) -> None:
        """Call on_shutdown, and close the connections."""
        try:
            if self.on_shutdown:
                await self.on_shutdown(self.ctx)
        finally:
            with contextlib.suppress(*REDIS_ERRORS):
                await self.pool.connection_pool.disconnect()
            self._pool = None


def run_to_its_end(
    loop: asyncio.AbstractEventLoop,
    main: "asyncio.Task[None]",
    close: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Run a worker's main task, then close it.

    Not even sys.exit() in a task's own task stops it.
    """
    try:
        while not main.done():
            try:
                loop.run_until_complete(main)
            except asyncio.CancelledError:
                break
            except (SystemExit, KeyboardInterrupt, RuntimeError) as exc:
                if main.done():
                    raise
                logger.error("A task tried to end the worker", exc_info=exc)
    finally:
        loop.run_until_complete(close())


def close_threads(threads: Iterable[Threads]) -> None:
    """End the process where some are busy: Python would wait for what is given back."""
    for one in threads:
        one.close()
    if any(one.busy for one in threads):
        logging.shutdown()
        os._exit(0)
