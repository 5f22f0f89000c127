"""The history of a queue: what its workers have summed by the minute."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from arq import ArqRedis
from arq.utils import ms_to_datetime

from ..keys import HISTORY, HISTORY_PARTS, MINUTE_MS
from ..queue import Queue

#: The longest that is kept, in minutes.
MOST_MINUTES = 480
# So many minutes are read at once: Redis does nothing else meanwhile.
_STEP = 60


@dataclass(frozen=True, kw_only=True)
class Span:
    """Some minutes. Times are in seconds, and None where no job has ended."""

    at: datetime
    """When they began."""
    jobs: int
    """How many tries have ended."""
    failed: int
    """How many of them were failures, with those that are tried again."""
    wait_median: float | None
    """How long jobs had waited since they were due."""
    wait_95: float | None
    """The same, of the slowest twentieth at least so long."""
    run_median: float | None
    """How long a try took."""
    run_95: float | None


async def read(
    queue: Queue, now_ms: int, minutes: int, step: int, task: str
) -> list[Span]:
    """As Looking.history; at this time of Redis, in milliseconds since 1970."""
    now = now_ms // MINUTE_MS
    first = now - now % step - (-(-minutes // step) - 1) * step
    spans: list[Span] = []
    found: list[dict[bytes, bytes]] = []
    names = range(first, now + 1)
    for start in range(0, len(names), _STEP):
        some = names[start : start + _STEP]
        keys = [f"{queue.name}{HISTORY}{minute}" for minute in some]
        found += await queue.server.call(_hashes, keys)
    for start in range(0, len(names), step):
        sums: Counter[str] = Counter()
        for fields in found[start : start + step]:
            for field, count in fields.items():
                kind, _, name = field.decode(errors="replace").partition(":")
                if task in ("", name):
                    sums[kind] += int(count)
        span = Span(
            at=ms_to_datetime(names[start] * MINUTE_MS),
            jobs=sums["n"],
            failed=sums["f"],
            wait_median=_quantile(sums, "w", 0.5),
            wait_95=_quantile(sums, "w", 0.95),
            run_median=_quantile(sums, "r", 0.5),
            run_95=_quantile(sums, "r", 0.95),
        )
        spans.append(span)
    return spans


async def _hashes(redis: ArqRedis, keys: Iterable[str]) -> list[dict[bytes, bytes]]:
    async with redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.hgetall(key)
        found = await pipe.execute(raise_on_error=False)
    # What others have left under these names is an error, and none of ours.
    return [one if isinstance(one, dict) else {} for one in found]


def _quantile(sums: Counter[str], kind: str, share: float) -> float | None:
    """A time in seconds that this share of them took at most, within a tenth."""
    parts = sorted((int(one[1:]), sums[one]) for one in sums if one[:1] == kind)
    left = share * sum(count for _, count in parts)
    for part, count in parts:
        left -= count
        if left <= 0:
            return float(2 ** ((part + 0.5) / HISTORY_PARTS) / 1000 if part else 0.001)
    return None
