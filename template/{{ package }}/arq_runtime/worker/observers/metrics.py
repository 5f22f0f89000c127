"""Prometheus metrics of the worker, on a port of its host."""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, start_http_server

from ..job import ClaimedJob
from ..processes import number
from .observer import Observer

logger = logging.getLogger("arq.worker")

JOBS = Counter(
    "arq_jobs_total",
    "Ends of tries: complete; retried, failed or timeout; aborted; expired, killed or "
    "unknown (its task); released (by a stop), lost (to another worker)",
    ["queue", "task", "outcome"],
)
DURATION = Histogram(
    "arq_job_duration_seconds", "How long a try took", ["queue", "task"]
)
RUNNING = Gauge("arq_jobs_running", "Jobs that run in this worker", ["queue"])
# Of these, one worker of a queue shows what Redis has: a sum counts no job twice.
QUEUE = Gauge(
    "arq_queue_jobs",
    "Jobs by state: queued (they are due), deferred, in_progress, failed",
    ["queue", "state"],
)
OLDEST = Gauge(
    "arq_queue_oldest_seconds", "How long the oldest queued job has waited", ["queue"]
)


class Metrics(Observer):
    """Counts and times what the workers of this process do.

    Args:
        port: Where they are served; 0 serves none. Of several processes, the second
            one's are on the next port.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: dict[str, Sequence[str]] = {}
        self._shown: dict[str, set[str]] = {}

    def started(self, queue: str, tasks: Sequence[str]) -> None:
        """Serve the metrics, once, unless the port is taken."""
        is_first = not self._tasks
        self._tasks[queue] = tasks
        if self._port and is_first:
            port = self._port + number()
            try:
                start_http_server(port)
            except OSError as exc:
                logger.warning("No metrics on port %d: %s", port, exc)

    def around(self, job: ClaimedJob, queue: str) -> AbstractContextManager[Any]:
        """One more runs."""
        return RUNNING.labels(queue).track_inprogress()

    def ended(self, job: ClaimedJob, queue: str, outcome: str, seconds: float) -> None:
        """Count and time a try."""
        is_known = job.function_name in self._tasks[queue]
        name = job.function_name if is_known else "<unknown>"
        JOBS.labels(queue, name, outcome).inc()
        DURATION.labels(queue, name).observe(seconds)

    def counted(self, queue: str, counts: dict[str, float] | None) -> None:
        """Show the queue's jobs, unless another worker does."""
        if counts is not None:
            self._shown[queue] = counts.keys() - {"oldest"}
            OLDEST.labels(queue).set(counts["oldest"])
            for state in self._shown[queue]:
                QUEUE.labels(queue, state).set(counts[state])
        elif states := self._shown.pop(queue, None):
            OLDEST.remove(queue)
            for state in states:
                QUEUE.remove(queue, state)
