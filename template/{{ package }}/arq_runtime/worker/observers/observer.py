"""What watches a worker: logs, traces, errors, metrics, progress."""

import logging
from collections.abc import Awaitable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from ..job import ClaimedJob, Context

logger = logging.getLogger("arq.worker")


def texts(carrier: object) -> dict[str, str]:
    """What of it can be used: it comes from Redis, where anyone may have written it."""
    found = carrier if isinstance(carrier, dict) else {}
    return {key: text for key, text in found.items() if isinstance(text, str)}


class Observer:
    """Watches the tries of a worker's jobs. Each method does nothing by default."""

    def started(self, queue: str, tasks: Sequence[str]) -> None:
        """The worker has started."""

    def around(self, job: ClaimedJob, queue: str) -> AbstractContextManager[Any] | None:
        """What surrounds a try, until its end is recorded; None for nothing."""
        return None

    def raised(self, job: ClaimedJob, exc: BaseException) -> None:
        """A try has raised this."""

    def finishing(self, job: ClaimedJob, ctx: Context) -> Awaitable[None] | None:
        """A try is over, and its end not yet recorded: what to wait for first."""
        return None

    def failed(self, job: ClaimedJob, exc: BaseException) -> None:
        """A job has failed for good, and that is recorded."""

    def ended(self, job: ClaimedJob, queue: str, outcome: str, seconds: float) -> None:
        """The end of a try is recorded: complete, retried, failed, timeout, ..."""

    def counted(self, queue: str, counts: dict[str, float] | None) -> None:
        """The queue's jobs, see heartbeat.count; None where another worker has them."""


class Observers:
    """Some of them, each asked only for what it does; their errors are no job's."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._methods = {
            name: [
                getattr(one, name)
                for one in observers
                if getattr(type(one), name) is not method
            ]
            for name, method in vars(Observer).items()
            if not name.startswith("_")
        }

    def want(self, name: str) -> bool:
        """Does any of them have this method?"""
        return bool(self._methods[name])

    def tell(self, name: str, *args: Any) -> list[Any]:
        """Call this method of all that have it; returns what is not None."""
        answers = []
        for method in self._methods[name]:
            try:
                if (answer := method(*args)) is not None:
                    answers.append(answer)
            except Exception:
                logger.exception("An observer failed: %s", method.__qualname__)
        return answers

    def surround(self, stack: ExitStack, job: ClaimedJob, queue: str) -> None:
        """Enter what surrounds a try."""
        for surroundings in self.tell("around", job, queue):
            try:
                stack.enter_context(surroundings)
            except Exception:
                logger.exception("An observer failed at %s", job.ref)
