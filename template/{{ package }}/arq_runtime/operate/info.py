"""What there is to see of a queue, and how it is made of what Redis has."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from arq.utils import ms_to_datetime
from pydantic import AwareDatetime, TypeAdapter

from ..limits import due_ms, waits_for
from ..serializer import Serializer
from ..server import QueueUnavailableError
from ..values import error_text

State = Literal["queued", "deferred", "in_progress", "failed", "complete"]


@dataclass(frozen=True, kw_only=True)
class JobInfo:
    """A job, as far as it is known: what is not, is None or empty."""

    job_id: str
    """What is not UTF-8 in it shows as \\xNN, and may be given so."""
    state: State
    task: str = ""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    tries: int = 0
    enqueued: datetime | None = None
    due: datetime | None = None
    """When it was, or will be, due."""
    started: datetime | None = None
    finished: datetime | None = None
    success: bool | None = None
    """Of a complete job: False where a worker of arq's own ran it, and it failed."""
    result: Any = None
    error: str = ""
    """Why it failed, or why its last try did."""
    reason: str = ""
    """"failed", "timeout", "expired" (it did not start in time), "unknown" (no worker
    has its task) or "killed" (its worker was, too often)."""
    traceback: str = ""
    errors: list[dict[str, Any]] = field(default_factory=list)
    """One for each failed try, with "try", "at" (milliseconds since 1970), "error"; and
    for each retry by hand, with "retried_by" and "at"."""
    log: str = ""
    """The newest lines that it has logged, where its worker keeps them."""
    progress: dict[str, Any] | None = None
    """What set_progress said last, with "percent", "message", "at"."""
    worker: str = ""
    """Host and process of the worker that runs it."""
    bytes_left_out: int = 0
    """The size of arguments or a result too large for a list."""
    waits_for: str = ""
    """The limit that a queued job waits for."""


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """A worker, as it described itself within the last minute or so."""

    id: str
    host: str
    pid: int
    since: datetime
    seen: datetime
    """When it has last said that it lives."""
    version: str
    """The code's git commit; empty without git."""
    max_jobs: int
    running: list[str]
    """Ids of the jobs it runs."""
    tasks: list[str]
    cron: dict[str, datetime]
    """Cron jobs, and when each is next due."""
    is_alive: bool
    """False when it has missed two of its signs of life, of one each 5 seconds."""


@dataclass(frozen=True, kw_only=True)
class LastRun:
    """The last run of a cron job that has ended."""

    job_id: str
    outcome: str
    """"complete", "failed", "timeout", "aborted", ..."""
    started: datetime
    finished: datetime


@dataclass(frozen=True, kw_only=True)
class QueueStats:
    """How a queue does."""

    queue: str
    queued: int
    deferred: int
    in_progress: int
    failed: int
    oldest: float
    """Seconds that the oldest of the queued jobs has waited; 0 when there is none."""
    oldest_at: datetime | None
    """When that one was due."""
    paused: bool
    workers: list[WorkerInfo]
    last_runs: dict[str, LastRun]
    """Of cron jobs, by their names."""
    dropped: dict[str, int]
    """How many failed jobs were dropped to make room, by task, as long as some are."""
    waiting: dict[str, int]
    """How many jobs wait for a limit, by its name; of 100 limits at most."""


@dataclass(frozen=True, kw_only=True)
class Which:
    """Which jobs: all conditions must hold, those that are empty do."""

    task: str = ""
    text: str = ""
    """In the id, the task's name, the arguments, the result or the error, in upper or
    lower case."""
    error: str = ""
    """In the error of a failed job, or in what ErrorGroup makes of it."""
    group: str = ""
    """The error of its ErrorGroup."""
    since: AwareDatetime | None = None
    """When it failed, was due or ended, at the earliest."""
    until: AwareDatetime | None = None
    """The same, at the latest."""

    def fits(self, job: "JobInfo") -> bool:
        """What is sure of what only a job's text told before."""
        at = job.finished or job.due
        return (
            self.task in ("", job.task)
            and (self.since is None or at is None or at >= self.since)
            and (self.until is None or at is None or at <= self.until)
        )


ALL = Which()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a look at jobs has found."""

    jobs: list[JobInfo]
    more: bool
    """Are there more than were asked for?"""
    looked_at: int
    total: int
    """At so many jobs it has looked, of so many."""
    next: str
    """Where another look can go on; empty when it has looked at all."""


@dataclass(frozen=True, kw_only=True)
class ErrorGroup:
    """Failed jobs of one task with the same error."""

    task: str
    error: str
    """Its first line, with N for numbers and … for quoted text."""
    count: int
    first: datetime
    last: datetime


def shown_id(job_id: bytes) -> str:
    """A job's id as text."""
    return job_id.decode(errors="backslashreplace")


def stored_ids(job_id: str) -> list[bytes]:
    """The ids that are shown so: nearly always one.

    Raises:
        UnicodeEncodeError: It is half a surrogate pair.
    """
    stored = job_id.encode()
    other = re.sub(rb"\\x([89a-f][0-9a-f])", lambda it: bytes([int(it[1], 16)]), stored)
    return list(dict.fromkeys([stored, other]))


def worker_info(record: bytes, seen: bytes, now: int) -> WorkerInfo:
    """A worker, of what it says of itself, and when; times in ms since 1970."""
    about = json.loads(record)
    names = ("id", "host", "pid", "version", "max_jobs", "running", "tasks")
    return WorkerInfo(
        **{name: about[name] for name in names},
        since=ms_to_datetime(about["since"]),
        seen=ms_to_datetime(int(float(seen))),
        is_alive=now - float(seen) < 11_000,
        cron={job["name"]: ms_to_datetime(job["next"]) for job in about["cron"]},
    )


_LAST_RUN = TypeAdapter(LastRun)


def last_runs(found: list[bytes]) -> dict[str, LastRun]:
    """The last runs of cron jobs, of what Redis has by field and value."""
    runs = {}
    for name, record in zip(found[::2], found[1::2], strict=False):
        if name.endswith(b":last"):
            run = _LAST_RUN.validate_json(record)
            runs[name.removesuffix(b":last").decode()] = run
    return runs


def named_counts(found: list[bytes]) -> dict[str, int]:
    """Numbers by their names, of what Redis has by field and value."""
    pairs = zip(found[::2], found[1::2], strict=False)
    return {shown_id(name): int(count) for name, count in pairs}


#: A job or a result, or the size and beginning of a large one.
Stored = bytes | list[Any] | None


def job_info(
    serializer: Serializer, name: str, now: float, row: Sequence[Any]
) -> JobInfo | None:
    """A job, of all that Redis has on it; None where the queue has none.

    Args:
        serializer: Of the queue.
        name: Of the queue.
        now: Redis' time, in milliseconds since 1970; exact, as the scores are.
        row: Its id, and what lua/read.lua has found.
    """
    job_id, due, failed_at, job, result, running, *rest = row
    tries, progress, failed, kept, errors, log = rest
    known: dict[str, Any] = {"errors": [json.loads(error) for error in errors]}
    state: State
    if job and due is not None:
        if isinstance(job, bytes):
            known["waits_for"] = waits_for(job, float(due))
        due = due_ms(float(due))
        waiting: State = "deferred" if due > now else "queued"
        state = "in_progress" if running else waiting
        known |= {"tries": int(tries or 0), "due": None if running else _time(due)}
        known["error"] = known["errors"][-1]["error"] if errors else ""
        known["log"] = _text(log if running else None)
        known |= _content(serializer, job, None)
    elif failed and failed_at is not None:
        state = "failed"
        task, tries, *texts, started, finished = failed
        known |= {"task": shown_id(task), "tries": int(tries)}
        known |= _content(serializer, kept, result)
        known |= {"started": _time(started), "finished": _time(finished)}
        names = ("error", "reason", "traceback", "log")
        known |= {name: _text(it) for name, it in zip(names, texts, strict=True)}
    elif result and not job:
        state = "complete"
        known |= _content(serializer, None, result)
        if known.pop("queue", name) != name:
            return None
    else:
        return None
    known.pop("queue", None)
    known["progress"] = json.loads(progress) if progress else None
    return JobInfo(job_id=shown_id(job_id), state=state, **known)


def _content(serializer: Serializer, job: Stored, result: Stored) -> dict[str, Any]:
    """What the stored job, or else its stored result, says."""
    stored: Any = job or result
    if not stored:
        return {}
    if isinstance(stored, list):
        size, beginning = stored
        task = serializer.task_of(beginning)
        return {"bytes_left_out": size} | ({"task": task} if task else {})
    try:
        data = serializer.deserialize(stored)
        known = {"task": data["f"], "args": data["a"], "kwargs": data["k"]}
        known["enqueued"] = ms_to_datetime(data["et"])
        if job:
            return known
        known |= {"tries": data["t"], "success": data["s"], "queue": data.get("q")}
        known["started"] = ms_to_datetime(data["st"])
        known["finished"] = ms_to_datetime(data["ft"])
        value = data["r"]
    except Exception:  # others can write anything
        return {"error": "unable to deserialize job"}
    if known["success"]:
        return known | {"result": value}
    text = error_text(value) if isinstance(value, BaseException) else str(value)
    return known | {"error": text}


def _text(stored: bytes | None) -> str:
    return (stored or b"").decode(errors="replace")


def _time(milliseconds: float | bytes | None) -> datetime | None:
    if milliseconds is None:
        return None
    try:
        return ms_to_datetime(int(float(milliseconds)))
    except (OverflowError, ValueError):  # others can write any score
        return None


def trouble(exc: Exception) -> str:
    """Why Redis cannot be used, in a line."""
    if isinstance(exc, QueueUnavailableError):
        return str(exc)
    return f"Redis refuses: {exc}"
