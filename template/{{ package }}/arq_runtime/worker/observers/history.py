"""How many tries end each minute, how long jobs waited, and how long they took."""

import math
from collections import defaultdict
from collections.abc import Sequence

from redis.asyncio.client import Pipeline

from ...keys import HISTORY, HISTORY_PARTS, MINUTE_MS
from ..job import ClaimedJob
from .observer import Observer


class History(Observer):
    """Sums in memory what the worker adds to Redis with its heartbeat.

    Args:
        hours: For how long it is kept, 8 at most; 0 keeps none.
    """

    def __init__(self, hours: float) -> None:
        self._keep_ms = int(hours * 3_600_000)
        # by task, then by what is counted: each job pays for this
        self._counts: dict[str, defaultdict[str | tuple[str, int], int]] = {}
        self._tasks: frozenset[str] = frozenset()

    def started(self, queue: str, tasks: Sequence[str]) -> None:
        """Only these tasks have names there."""
        self._tasks = frozenset(tasks)

    def ended(self, job: ClaimedJob, queue: str, outcome: str, seconds: float) -> None:
        """Count and time a try."""
        if not self._keep_ms or outcome == "released" or outcome == "lost":
            return
        name = job.function_name if job.function_name in self._tasks else "<unknown>"
        counts = self._counts.get(name)
        if counts is None:
            counts = self._counts[name] = defaultdict(int)
        counts["n"] += 1
        if outcome != "complete" and outcome != "aborted":
            counts["f"] += 1
        if job.start_ms:
            counts["w", _part(job.start_ms - job.due_ms)] += 1
            counts["r", _part(seconds * 1000)] += 1

    def add(self, pipe: Pipeline, queue: str, now_ms: int) -> None:
        """Add to the minute that it is by Redis' time what has ended since.

        Should Redis be unreachable when the pipe is executed, that is not counted.
        """
        if not self._counts:
            return
        found, self._counts = self._counts, {}
        key = queue + HISTORY + str(now_ms // MINUTE_MS)
        for name, counts in found.items():
            for kind, count in counts.items():
                text = kind if isinstance(kind, str) else f"{kind[0]}{kind[1]}"
                pipe.hincrby(key, f"{text}:{name}", count)
        pipe.pexpire(key, self._keep_ms + MINUTE_MS)


def _part(ms: float) -> int:
    return int(math.log2(ms) * HISTORY_PARTS) if ms > 1 else 0
