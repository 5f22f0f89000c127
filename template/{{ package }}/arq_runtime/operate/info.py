"""What there is to see of a queue, and how it is made of what Redis has."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from arq.jobs import (
    DeserializationError,
    JobResult,
    deserialize_job,
    deserialize_result,
)
from arq.utils import ms_to_datetime

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
    """One for each failed try, with "try", "at" (milliseconds since 1970), "error"."""
    progress: dict[str, Any] | None = None
    """What set_progress said last, with "percent", "message", "at"."""


@dataclass(frozen=True, kw_only=True)
class WorkerInfo:
    """A worker, as it described itself within the last half minute or so."""

    id: str
    host: str
    pid: int
    since: datetime
    version: str
    """The code's git commit; empty without git."""
    max_jobs: int
    running: list[str]
    """Ids of the jobs it runs."""
    tasks: list[str]
    cron: dict[str, datetime]
    """Cron jobs, and when each is next due."""


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
    paused: bool
    workers: list[WorkerInfo]
    last_runs: dict[str, LastRun]
    """Of cron jobs, by their names."""
    dropped: dict[str, int]
    """How many failed jobs were dropped to make room, by task, as long as some are."""


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


def worker_info(record: bytes) -> WorkerInfo:
    """A worker, of what it says of itself."""
    about = json.loads(record)
    names = ("id", "host", "pid", "version", "max_jobs", "running", "tasks")
    return WorkerInfo(
        **{name: about[name] for name in names},
        since=ms_to_datetime(about["since"]),
        cron={job["name"]: ms_to_datetime(job["next"]) for job in about["cron"]},
    )


def last_runs(found: list[bytes]) -> dict[str, LastRun]:
    """The last runs of cron jobs, of what Redis has by field and value."""
    runs = {}
    for name, record in zip(found[::2], found[1::2], strict=False):
        if name.endswith(b":last"):
            run = json.loads(record)
            runs[name.removesuffix(b":last").decode()] = LastRun(
                job_id=run["job_id"],
                outcome=run["outcome"],
                started=ms_to_datetime(run["started"]),
                finished=ms_to_datetime(run["finished"]),
            )
    return runs


def named_counts(found: list[bytes]) -> dict[str, int]:
    """Numbers by their names, of what Redis has by field and value."""
    pairs = zip(found[::2], found[1::2], strict=False)
    return {shown_id(name): int(count) for name, count in pairs}


def job_info(
    deserialize: Callable[[bytes], dict[str, Any]],
    now: float,
    job_id: bytes,
    due: float | None,
    job: bytes | None,
    result: bytes | None,
    token: bytes | None,
    tries: bytes | None,
    progress: bytes | None,
    failed: dict[bytes, bytes],
    errors: list[bytes],
) -> JobInfo | None:
    """A job, of all that Redis has on it; None where that is nothing.

    Args:
        deserialize: Of the queue's serializer.
        now: Redis' time, in milliseconds since 1970; exact, as `due` is.
        job_id: Its id.
        due: Its score in the queue.
        job: The stored job.
        result: Its stored result.
        token: Of the worker that runs it.
        tries: How many have begun.
        progress: What set_progress said, JSON.
        failed: What is kept of a failed job.
        errors: Of its failed tries, JSON.
    """
    known: dict[str, Any] = {"errors": [json.loads(error) for error in errors]}
    state: State
    if job:
        waiting: State = "deferred" if (due or 0) > now else "queued"
        state = "in_progress" if token else waiting
        known |= {"tries": int(tries or 0), "due": None if token else _time(due)}
        known["error"] = known["errors"][-1]["error"] if errors else ""
        known |= _content(deserialize, job, None)
    elif failed:
        state = "failed"
        known["tries"] = int(failed[b"tries"])
        known |= _content(deserialize, failed[b"job"], result)
        known |= {"started": _time(failed[b"st"]), "finished": _time(failed[b"ft"])}
        for name in ("error", "reason", "traceback"):
            known[name] = failed[name.encode()].decode(errors="replace")
    elif result:
        state = "complete"
        known |= _content(deserialize, None, result)
    else:
        return None
    known["progress"] = json.loads(progress) if progress else None
    return JobInfo(job_id=shown_id(job_id), state=state, **known)


def _content(
    deserialize: Callable[[bytes], dict[str, Any]],
    job: bytes | None,
    result: bytes | None,
) -> dict[str, Any]:
    """What the stored job, or else its stored result, says."""
    try:
        if job:
            info = deserialize_job(job, deserializer=deserialize)
        elif result:
            info = deserialize_result(result, deserializer=deserialize)
        else:
            return {}
    except DeserializationError as exc:
        return {"error": str(exc)}
    known: dict[str, Any] = {"task": info.function, "enqueued": info.enqueue_time}
    known |= {"args": info.args, "kwargs": info.kwargs}
    if isinstance(info, JobResult):
        known |= {"tries": info.job_try, "success": info.success}
        known |= {"started": info.start_time, "finished": info.finish_time}
        if info.success:
            known["result"] = info.result
        elif isinstance(info.result, BaseException):
            known["error"] = error_text(info.result)
        else:
            known["error"] = str(info.result)
    return known


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
