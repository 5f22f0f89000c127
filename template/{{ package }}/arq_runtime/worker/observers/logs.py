"""Log lines of a job carry what its caller had bound, its id and its try."""

from contextlib import AbstractContextManager
from typing import Any

from ...context import structlog
from ..job import ClaimedJob
from .observer import Observer


class LogContext(Observer):
    """Binds structlog's context variables, where the project has structlog."""

    def around(self, job: ClaimedJob, queue: str) -> AbstractContextManager[Any] | None:
        """Bind them for a try."""
        if structlog is None:
            return None
        log = job.context.get("log")
        bound = log if isinstance(log, dict) else {}
        own = {"job_id": job.job_id, "job_try": job.job_try}
        context: AbstractContextManager[Any] = structlog.contextvars.bound_contextvars(
            **bound | own
        )
        return context
