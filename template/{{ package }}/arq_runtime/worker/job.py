"""A job that a worker holds, and how a try of it ends."""

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from arq.cron import CronJob
from arq.worker import Function

from ..limits import due_ms

Context = dict[str, Any]
Hook = Callable[[Context], Coroutine[Any, Any, None]]
FailureHook = Callable[[Context, BaseException], Coroutine[Any, Any, None]]


class Relaying(Protocol):
    """Moves the outbox to Redis: in burst mode once, else until cancelled."""

    def __call__(self, is_burst: bool) -> Coroutine[Any, Any, None]: ...


#: How much of an error is kept, and how much is logged, in characters.
ERROR_SIZE, LOGGED_ERROR_SIZE = 10_000, 1_000


@dataclass(slots=True, eq=False)
class ClaimedJob:
    """A job that this worker holds. Times are in milliseconds since 1970."""

    id: bytes
    token: str
    score: bytes
    payload: bytes | None
    job_try: int
    aborted: bool
    last_error: bytes | None
    size: int = 0
    """In bytes, of a payload that is too large to come with the claim; else 0."""
    apart: bool = False
    """Was its worker killed before? Then it runs with no other such job."""
    control: bytes = b""
    """What the stored job says of its limits, for lua/control.lua."""
    lost: bool = False
    """Has Redis lost it?"""
    cancelled: str = ""
    """Why this worker has cancelled it: "stop", "lost" (its lease) or "abort"."""
    function_name: str = "<unknown>"
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    carrier: Any = None
    """What opentelemetry-instrumentation-arq has sent along, if anything."""
    context: dict[str, Any] = field(default_factory=dict)
    has_progress: bool = False
    log: str = ""
    """What its try has logged, where that is kept."""
    is_ending: bool = False
    """Is its end on the way to Redis?"""
    again: "ClaimedJob | None" = None
    """The same job, claimed meanwhile: its next try, or Redis forgot the lease."""
    enqueue_ms: int = 0
    start_ms: int = 0
    function: Function | CronJob | None = None
    job_id: str = ""
    """The id as text, also where it is not UTF-8."""
    due_ms: int = 0
    """When it was due; others can write any score."""

    def __post_init__(self) -> None:
        self.job_id = self.id.decode(errors="backslashreplace")
        score = due_ms(float(self.score))
        self.due_ms = int(score) if abs(score) < 1 << 53 else 0

    def is_same(self, other: "ClaimedJob") -> bool:
        """Is the other a claim of this job, and not of another under its id?"""
        if other.payload is None:  # too large to come with the claim
            return other.size == len(self.payload or b"")
        return other.payload == self.payload

    @property
    def last_failure(self) -> tuple[int, str]:
        """Which try failed last, from 1, and its error; 0 and "" if none is known."""
        try:
            failure = json.loads(self.last_error or b"{}")
            return int(failure["try"]), str(failure["error"])
        except Exception:  # none, or others have written what is there
            return 0, ""

    @property
    def ref(self) -> str:
        """What the job is called in the log."""
        is_cron = isinstance(self.function, CronJob)
        text = self.function_name if is_cron else f"{self.job_id}:{self.function_name}"
        return text if text.isprintable() else one_line(text)


@dataclass(slots=True)
class End:
    """How a try of a job has ended, as lua/finish.lua takes it."""

    action: str
    """complete, failed, retry, release or unknown"""
    outcome: str
    """complete, retried, failed, timeout, aborted, released, ...: as metrics call it"""
    ms: int | bytes = 0
    """until the next try; of "release", when it was due"""
    result: bytes | None = None
    keep_result_ms: str = ""
    """0 for ever, "" not at all"""
    details: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    """Of a job that has failed for good."""


def clean(text: str, size: int) -> str:
    """Text that fits, and that JSON and Redis take."""
    return text[:size].encode(errors="backslashreplace").decode()


def one_line(text: str) -> str:
    """Text in which nothing can forge a line of the log."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
