"""Limits of tasks, how many jobs of a key run at once or start in a period; priorities.

What a job has of them is said when it is enqueued, at the end of the stored job, where
nobody but lua/control.lua reads it: workers and clients of arq's own pass it over.
"""

import inspect
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from .keys import MOST_LIMITS, MOST_PRIORITY, PARKED, STEP_MS

Key = str | Callable[[dict[str, Any]], object]
T = TypeVar("T", bound=Callable[..., Any])

#: So much of a stored job's end lua/control.lua reads, in bytes.
CONTROL_BYTES = 4096
_BEGIN = b',"l":'
_LONGEST_NAME = 200
_LONGEST_S = 366 * 24 * 3600


class Count(NamedTuple):
    """What is counted for the jobs of one key, as lua/control.lua takes it."""

    name: str
    most: int
    per_ms: int
    """0 where it is how many run at once."""


@dataclass(frozen=True)
class Limit:
    """What `limit` returns: a decorator, or one of the `limits` of worker settings."""

    concurrency: int | None
    rate: int | None
    per_s: float
    key: Key | None

    @property
    def label(self) -> str:
        """What the key is called."""
        if self.key is None or isinstance(self.key, str):
            return self.key or ""
        return getattr(self.key, "__name__", "key")

    def __call__(self, task: T) -> T:
        """Limit a task.

        Raises:
            TypeError: It has no such parameter, or this limit twice.
        """
        names = [*inspect.signature(task).parameters][1:]
        if isinstance(self.key, str) and self.key not in names:
            raise TypeError(
                f"{task.__qualname__}: limit's key {self.key!r} is no parameter; there "
                f"is {', '.join(names) or 'none'}"
            )
        others: tuple[Limit, ...] = getattr(task, "limits", ())
        kinds = [kind for one in (*others, self) for kind in one._kinds()]
        if len(kinds) > len({*kinds}):
            raise TypeError(
                f"{task.__qualname__}: two limits of the same kind and key; functions "
                "that are keys need names of their own"
            )
        task.__dict__["limits"] = (*others, self)
        return task

    def _kinds(self) -> Iterator[tuple[str, float]]:
        if self.concurrency:
            yield self.label, 0
        if self.rate:
            yield self.label, self.per_s

    def counts(self, owner: str, arguments: dict[str, Any]) -> Iterator[Count]:
        """What a call is counted as.

        Args:
            owner: The task, or the queue, whose limit it is.
            arguments: Of the call.

        Raises:
            TypeError: The key's value is of a type whose text may not tell two apart.
        """
        if self.key is None:
            name = owner
        else:
            if isinstance(self.key, str):
                value = arguments.get(self.key)
            else:
                value = self.key(arguments)
            if value is None:
                return
            if not isinstance(value, str | int | UUID | Enum):
                raise TypeError(
                    f"{owner}: limit's key {self.label!r} must be a text, an integer, "
                    f"a UUID, an enum or None, not {value!r:.100}"
                )
            name = f"{owner}({self.label}={value})"
        if len(json.dumps(name)) > _LONGEST_NAME:
            digest = sha256(name.encode(errors="surrogatepass")).hexdigest()[:32]
            name = f"{name.encode('ascii', 'replace').decode()[:100]}... {digest}"
        if self.concurrency:
            yield Count(name, self.concurrency, 0)
        if self.rate:
            yield Count(f"{name} in {self.per_s:g} s", self.rate, self.per_ms)

    @property
    def per_ms(self) -> int:
        """The period, in milliseconds."""
        return round(self.per_s * 1000)


def limit(
    *,
    concurrency: int | None = None,
    rate: int | None = None,
    per: float | timedelta | None = None,
    key: Key | None = None,
) -> Limit:
    """Limit how many jobs of a task run at once, or start in a period.

        @limit(concurrency=1, key="customer_id")
        @limit(rate=100, per=60)
        async def sync_customer(ctx: Context, customer_id: int) -> None: ...

    It holds over all workers of the queue. A job that has to wait takes no slot of a
    worker and none of its tries; jobs of one key start in their order. With `limits` in
    worker settings, all jobs of the queue are counted together.

    Args:
        concurrency: How many run at once.
        rate: How many start within any `per` seconds; they may all start at once.
        per: Seconds, or a timedelta; to the millisecond.
        key: Those with the same value of this parameter are counted together; or a
            function that is given all arguments as a dict, and returns such a value.
            With None, a job is not limited. Without a key, all jobs are counted
            together.

    Raises:
        TypeError, ValueError: It would limit nothing, or everything.
    """
    if concurrency is None and rate is None:
        raise TypeError("limit what? Say concurrency=..., or rate=... and per=...")
    if (rate is None) != (per is None):
        raise TypeError("rate and per go together, as in limit(rate=100, per=60)")
    for name, value in (("concurrency", concurrency), ("rate", rate)):
        if value is not None and (type(value) is not int or not 0 < value < 1 << 31):
            raise ValueError(f"limit's {name} must be 1 or more, not {value!r}")
    seconds = per.total_seconds() if isinstance(per, timedelta) else per
    if seconds is not None and not (
        isinstance(seconds, int | float)
        and math.isfinite(seconds)
        and 0.001 <= seconds <= _LONGEST_S
    ):
        raise ValueError(f"limit's per is from 0.001 s to a year, not {per!r}")
    if not (key is None or isinstance(key, str) or callable(key)):
        raise TypeError(f"limit's key is a parameter's name or a function, not {key!r}")
    return Limit(concurrency, rate, seconds or 0, key)


def priority(level: int) -> Callable[[T], T]:
    """Have a task's jobs start before those of a lower priority, in the same queue.

    Args:
        level: From 0, which is that of all others, to 9; `_priority` at the call comes
            first.

    Raises:
        ValueError: It is another.
    """
    check_priority(level)

    def mark(task: T) -> T:
        task.__dict__["priority"] = level
        return task

    return mark


def check_priority(level: int) -> None:
    """May it be one?

    Raises:
        ValueError: No.
    """
    if type(level) is not int or not 0 <= level <= MOST_PRIORITY:
        raise ValueError(f"a priority is from 0 to {MOST_PRIORITY}, not {level!r}")


@lru_cache(maxsize=1024)
def _signature(task: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(task)


def counted(
    task: Callable[..., Any] | None,
    name: str,
    queue: str,
    of_queue: Sequence[Limit],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
) -> list[Count]:
    """What a call is counted as, by its task's limits and its queue's.

    Raises:
        TypeError: As Limit.counts.
    """
    own = getattr(task, "limits", ())
    if not own and not of_queue:
        return []
    limits = [*((name, one) for one in own), *((queue, one) for one in of_queue)]
    limits.sort(key=lambda one: one[1].key is None)  # see park in lua/claim.lua
    arguments: dict[str, Any] = {}
    if task is not None and any(one.key is not None for _, one in limits):
        bound = _signature(task).bind_partial(None, *args, **kwargs or {})
        bound.apply_defaults()
        arguments = dict([*bound.arguments.items()][1:])
    return [count for owner, one in limits for count in one.counts(owner, arguments)]


# --- In the stored job ----------------------------------------------------------------


def with_control(content: bytes, counts: list[Count], priority: int) -> bytes:
    """The job's bytes, JSON or pickle, and at their end its limits and priority.

    Raises:
        ValueError: There are too many limits.
    """
    if not counts and not priority:
        return content
    text = json.dumps([counts, priority], separators=(",", ":"))
    control = _BEGIN + text.encode() + b"}"
    if len(counts) > MOST_LIMITS:
        raise ValueError(f"a job has at most {MOST_LIMITS} limits, not {len(counts)}")
    # One key more in JSON; pickle does not read on behind its end.
    return content.removesuffix(b"}") + control


def control_of(content: bytes | None) -> bytes:
    """The part of a stored job that lua/control.lua reads; empty if there is none."""
    if content is None or not content.endswith(b"]}"):
        return b""
    start = content.rfind(_BEGIN, -CONTROL_BYTES)
    return content[start:] if start >= 0 else b""


def waits_for(content: bytes, score: float) -> str:
    """The limit that a job with this score in the queue waits for, or an empty text."""
    place = int(score // PARKED) if score < math.inf else 0
    if not 1 <= place <= MOST_LIMITS:
        return ""
    try:
        return str(json.loads(control_of(content)[len(_BEGIN) : -1])[0][place - 1][0])
    except (ValueError, LookupError, TypeError):
        return ""


def due_ms(score: float) -> float:
    """When a job with this score in the queue was, or will be, due."""
    if PARKED <= score < PARKED * (MOST_LIMITS + 1):
        return score % PARKED
    if not 0 <= score < PARKED:
        return score
    steps = round((time.time() * 1000 - score) / STEP_MS)
    return score + steps * STEP_MS if 0 < steps <= MOST_PRIORITY else score
