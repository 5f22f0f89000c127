"""Several queues in one process: a worker for each of them, in one event loop."""

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, ClassVar

from ..connection import REDIS_ERRORS
from ..context import structlog
from .checks import check_settings
from .options import SETTINGS, WorkerOptions
from .outages import LOG_EVERY, HopelessError
from .pulse import pulse
from .worker import Worker, close_threads, run_to_its_end

logger = logging.getLogger("arq.worker")

_SHARED = {"max_jobs", "processes", "max_jobs_per_process", "configure_logging"}


class MultiQueueOptions:
    """What can be set for a process that serves several queues; subclasses inherit.

    Raises:
        TypeError, ValueError: As a class is defined: something in it cannot be.
    """

    #: The worker settings of the queues, and the weight of each.
    weights: ClassVar[Mapping[type[WorkerOptions], int]]
    #: How many jobs run at the same time. Each queue has its share, by its weight, and
    #: one at least.
    max_jobs: ClassVar[int] = 10
    #: How many processes run these settings; one uses one core.
    processes: ClassVar[int] = 1
    #: After how many jobs of one of its queues a process is replaced by a new one.
    max_jobs_per_process: ClassVar[int | None] = None
    configure_logging: ClassVar[Callable[[bool], None] | None] = None

    def __init_subclass__(cls) -> None:
        check_settings(cls, _SHARED | {"weights"})
        if of_one := vars(cls).keys() & SETTINGS - _SHARED:
            raise TypeError(
                f"{cls.__name__}.{min(of_one)} belongs to one queue: set it in the "
                "classes that weights names"
            )
        if hasattr(cls, "weights"):
            _check_weights(f"{cls.__name__}.weights", cls.weights)


def _check_weights(name: str, weights: Any) -> None:
    if not isinstance(weights, Mapping) or not weights:
        raise TypeError(
            f"{name} must name worker settings and the weight of each, as in "
            f"{{WorkerSettings: 1}}, not {weights!r}"
        )
    names: dict[str, str] = {}
    for cls, weight in weights.items():
        if not (isinstance(cls, type) and issubclass(cls, WorkerOptions)):
            raise TypeError(f"{name} has {cls!r}, which is no worker settings class")
        if not (cls.functions or cls.cron_jobs):
            raise TypeError(f"{name} has {cls.__name__}, which has no tasks")
        if type(weight) is not int or weight < 1:
            raise ValueError(
                f"{name}: the weight of {cls.__name__} must be a whole number of 1 or "
                f"more, not {weight!r}"
            )
        other = names.setdefault(cls.queue_name, cls.__name__)
        if other != cls.__name__:
            raise ValueError(
                f"{name}: {other} and {cls.__name__} have the same queue, "
                f"{cls.queue_name!r}"
            )


def shares(settings: type[MultiQueueOptions]) -> dict[type[WorkerOptions], int]:
    """How many jobs of each queue run at the same time."""
    weights = settings.weights
    found = dict.fromkeys(weights, 1)
    for _ in range(settings.max_jobs - len(found)):
        found[min(found, key=lambda cls: found[cls] / weights[cls])] += 1
    return found


class Member(Worker):
    """The worker of one of the queues. An outage of its Redis stops no other."""

    members: Sequence["Member"] = ()
    is_done = False
    """Is there nothing more to do for now?"""
    _was_over = False
    has_failed = False
    """Can its Redis not be used?"""

    async def main(self) -> None:
        """Run as other workers do, and try again where Redis cannot be used.

        Unless no member can use its own: then all end, as in burst mode.
        """
        if structlog:
            structlog.contextvars.bind_contextvars(arq_queue=self.queue_name)
        self._open()
        while True:
            try:
                return await self._work()
            except (HopelessError, *REDIS_ERRORS) as exc:
                if not (self.burst or isinstance(exc, HopelessError)):
                    raise
                self.log_end(exc)
            self.has_failed = True
            if self.burst or all(one.has_failed for one in self.members):
                return
            await asyncio.sleep(LOG_EVERY)
            self.has_failed = False

    def _is_over(self) -> bool:
        """A burst also waits for the others, whose jobs may add to this queue."""
        is_over = super()._is_over()
        if is_over and not self._was_over:  # the others have to look once more
            for one in self.members:
                one.is_done = False
        self.is_done = self._was_over = is_over
        if not self.burst:
            return is_over
        return all(
            one.is_done or (one.main_task and one.main_task.done())
            for one in self.members
        )

    async def finish(self) -> None:
        """Claim no more, and end when the jobs that run have ended."""
        self.max_burst_jobs = 0
        main = self.main_task
        assert main is not None
        while self.job_tasks and not main.done():
            await asyncio.sleep(0.1)
        main.cancel()


class MultiQueueWorker:
    """What `arq core.tasks.AllSettings` runs.

    Args:
        members: A worker for each queue, in the event loop that is to run.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._loop = members[0].loop
        for one in members:
            one.members = members
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(signum, self._stop, signum)

    def _stop(self, signum: signal.Signals) -> None:
        for one in self._members:
            one.handle_sig_wait_for_completion(signum)

    def run(self) -> None:
        """Run until stopped; exit with 1 where a Redis cannot be used."""
        main = self._loop.create_task(self._main())
        run_to_its_end(self._loop, main, self._close)
        if any(one.has_failed for one in self._members):
            sys.exit(1)
        close_threads([one.threads for one in self._members])

    async def _main(self) -> None:
        mains = [self._loop.create_task(one.main()) for one in self._members]
        for one, main in zip(self._members, mains, strict=True):
            one.main_task = main
        with pulse(*(one.leases for one in self._members)):
            if not self._members[0].burst:
                # It was stopped, has run its jobs, or has failed: so do the others.
                await asyncio.wait(mains, return_when=asyncio.FIRST_COMPLETED)
                if any(map(_error, mains)):
                    for one in self._members:
                        one.handle_sig(signal.SIGTERM)
                await asyncio.gather(*(one.finish() for one in self._members))
            await asyncio.wait(mains)
        if errors := [exc for exc in map(_error, mains) if exc]:
            raise errors[0]

    async def _close(self) -> None:
        """As Worker.close; no on_shutdown before the jobs of all have ended."""
        members = [one for one in self._members if one._pool]
        await asyncio.gather(*(one.leave() for one in members))
        async with AsyncExitStack() as stack:
            for one in members:
                stack.push_async_callback(one.shut_down)


def _error(main: "asyncio.Task[None]") -> BaseException | None:
    return main.exception() if main.done() and not main.cancelled() else None
