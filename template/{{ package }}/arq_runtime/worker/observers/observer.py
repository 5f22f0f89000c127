"""What watches a worker: logs, traces, errors, metrics, progress."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..job import ClaimedJob, Context


class Observer:
    """Watches the tries of a worker's jobs. Each method does nothing by default."""

    def started(self, queue: str, tasks: Sequence[str]) -> None:
        """The worker has started."""

    def around(self, job: ClaimedJob, queue: str) -> AbstractContextManager[Any] | None:
        """What surrounds a try, until its end is recorded; None for nothing."""
        return None

    def raised(self, job: ClaimedJob, exc: BaseException) -> None:
        """A try has raised this."""

    async def finishing(self, job: ClaimedJob, ctx: Context) -> None:
        """A try is over, and its end not yet recorded."""

    def failed(self, job: ClaimedJob, exc: BaseException) -> None:
        """A job has failed for good, and that is recorded."""

    def ended(self, job: ClaimedJob, outcome: str, seconds: float) -> None:
        """The end of a try is recorded: complete, retried, failed, timeout, ..."""

    def beat(self, queue: str, length: int) -> None:
        """How many jobs are in the queue; with each heartbeat."""


class Observers:
    """Some of them, each asked only for what it does."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        def those(name: str) -> list[Any]:
            return [
                getattr(one, name)
                for one in observers
                if getattr(type(one), name) is not getattr(Observer, name)
            ]

        self.started = those("started")
        self.around = those("around")
        self.raised = those("raised")
        self.finishing = those("finishing")
        self.failed = those("failed")
        self.ended = those("ended")
        self.beat = those("beat")
