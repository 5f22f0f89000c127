"""One try of one job: what is run, and how it ends. Log lines and results are arq's."""

import asyncio
import logging
import math
import pickle
import random
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from arq.constants import keep_cronjob_progress
from arq.cron import CronJob
from arq.jobs import DeserializationError, serialize_result
from arq.utils import args_to_string, ms_to_datetime, timestamp_ms, truncate
from arq.worker import Function, JobExecutionFailed, Retry, RetryJob

from ..models import Parameters
from ..values import error_text
from .job import (
    ERROR_SIZE,
    LOGGED_ERROR_SIZE,
    ClaimedJob,
    Context,
    End,
    clean,
    one_line,
)
from .observers.observer import Observers

logger = logging.getLogger("arq.worker")

#: A job whose task is not known is left to other workers for an hour.
UNKNOWN_LIMIT_MS = 3_600_000
#: The longest pause before another try, in seconds: 100 years, which Redis can count.
LONGEST_PAUSE_S = 100 * 365 * 24 * 3600
#: For how long at least an abort is known to who waits for it, in milliseconds.
ABORTED_MS = 5_000
#: Seconds after which a hook of the user's is given up.
HOOK_S = 60


class ArgumentError(TypeError):
    """A job's arguments are not what the task is annotated with: no try can succeed."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What is set for all tasks of a worker. Times are in seconds."""

    queue: str
    job_timeout: float | None
    max_tries: int
    retry_delay: float
    retry_jobs: bool
    keep_result: float
    keep_result_forever: bool
    allow_abort: bool
    log_results: bool
    log_arguments: bool
    serializer: Callable[[dict[str, Any]], bytes] | None
    deserializer: Callable[[bytes], dict[str, Any]] | None
    on_job_start: Any
    on_job_end: Any
    is_burst: bool


class Runner:
    """Runs jobs.

    Args:
        functions: The tasks, by name.
        observers: What watches them.
        options: What is set for all of them.
        is_stopping: Was the worker told to stop?
    """

    def __init__(
        self,
        functions: Mapping[str, Function | CronJob],
        observers: Observers,
        options: RunOptions,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.running: dict[str, asyncio.Task[Any]] = {}
        self._functions = functions
        self._observers = observers
        self._options = options
        self._is_stopping = is_stopping
        self._parameters = {
            name: parameters
            for name, function in functions.items()
            if (parameters := _parameters(function.coroutine)).adapters
        }
        self._log_unknown_at: dict[str, int] = {}

    def max_tries_of(self, function: Function | CronJob) -> int:
        """How often a task may be tried."""
        own = function.max_tries
        return self._options.max_tries if own is None else own

    # --- Before

    def begin(self, job: ClaimedJob, ctx: Context) -> End | None:
        """Read a job; returns its end where there is nothing to run."""
        job.start_ms = timestamp_ms()
        if self._is_stopping():  # since it was claimed
            return self.released(job)
        if job.payload is None:
            logger.warning("job %s expired", one_line(job.job_id))
            return self.failed(job, JobExecutionFailed("job expired"), "expired")
        try:
            self._load(job)
        except DeserializationError as exc:
            logger.exception("deserializing job %s failed", one_line(job.job_id))
            return self.failed(job, exc, "failed")
        ctx["job_try"] = job.job_try
        ctx["enqueue_time"] = ms_to_datetime(job.enqueue_ms)
        job.function = function = self._functions.get(job.function_name)
        waited = (job.start_ms - job.enqueue_ms) / 1000
        if job.aborted and self._options.allow_abort:
            logger.info("%6.2fs ⊘ %s aborted before start", waited, job.ref)
            return self._aborted(job)
        if function is None:
            return self._unknown(job)
        max_tries = self.max_tries_of(function)
        if job.job_try <= max_tries:
            return None
        text = f"max {max_tries} retries exceeded"
        killed = job.last_failure[0] < job.job_try - 1
        if killed:
            text += ": its worker was killed, or cut off from Redis, while it ran"
        logger.warning(
            "%6.2fs ! %s max retries %d exceeded", waited, job.ref, max_tries
        )
        reason = "killed" if killed else "failed"
        return self.failed(job, JobExecutionFailed(text), reason)

    def _load(self, job: ClaimedJob) -> None:
        deserializer = self._options.deserializer or pickle.loads
        try:
            data = deserializer(job.payload or b"")
            job.function_name, job.args, job.kwargs = data["f"], data["a"], data["k"]
            job.enqueue_ms, context = data["et"], data.get("c")
            job.context = context if isinstance(context, dict) else {}
            job.job_try = max(job.job_try, data["t"] or 0)
            ms_to_datetime(job.enqueue_ms)
            if not isinstance(job.function_name, str):
                raise TypeError("the name of the function is not a string")
            job.carrier = job.kwargs.pop("_carrier", None)
        except Exception as exc:
            raise DeserializationError("unable to deserialize job") from exc

    def _unknown(self, job: ClaimedJob) -> End:
        """Leave a job to workers that know its task: those of a newer version, say."""
        name = job.function_name
        if not self._options.is_burst and job.start_ms >= self._log_unknown_at.get(
            name, 0
        ):
            self._log_unknown_at[name] = job.start_ms + 60_000
            logger.warning("Task %r is not known here: left to other workers", name)
        # In burst mode, as in tests, there are no others.
        ms = 0 if self._options.is_burst else UNKNOWN_LIMIT_MS
        return End("unknown", "unknown", ms=ms)

    def not_found(self, job: ClaimedJob) -> End:
        """The end of a job whose task no worker has known for too long."""
        text = f"function {job.function_name!r} not found"
        logger.warning("job %s, %s", one_line(job.job_id), text)
        return self.failed(job, JobExecutionFailed(text), "unknown")

    # --- The try

    async def run(
        self, job: ClaimedJob, function: Function | CronJob, ctx: Context
    ) -> End:
        """Run a job; whatever its task raises, SystemExit included, is its failure."""
        job_id, ref = job.job_id, job.ref
        task = asyncio.current_task()
        assert task is not None
        self.running[job_id] = task
        await self.call_hook(self._options.on_job_start, job, ctx)
        job.start_ms = timestamp_ms()
        self._log_start(job)
        own = function.timeout_s
        limit = asyncio.timeout(self._options.job_timeout if own is None else own)
        try:
            try:
                async with limit:
                    if job.cancelled:  # while on_job_start ran
                        raise asyncio.CancelledError
                    result = await self._call(job, function, ctx)
            finally:
                if self.running.get(job_id) is task:
                    del self.running[job_id]
        except BaseException as exc:
            error: BaseException = exc
            if limit.expired() and not isinstance(exc, TimeoutError):
                error = TimeoutError()
                error.__cause__ = exc
            end = self._unsuccessful(job, error, is_timeout=limit.expired())
        else:
            seconds = (timestamp_ms() - job.start_ms) / 1000
            shown = result is not None and self._options.log_results
            text = _shown(lambda: truncate(repr(result))) if shown else ""
            logger.info("%6.2fs ← %s ● %s", seconds, ref, text)
            end = self._end(job, "complete", "complete", result)
        for rest in self._observers.tell("finishing", job, ctx):
            await self.call_hook(lambda rest=rest: rest, job)
        if job.has_progress:
            end.details["progress"] = True
        if job.log and end.action == "failed":
            end.details["log"] = job.log
        await self.call_hook(self._options.on_job_end, job, ctx)
        return end

    async def _call(
        self, job: ClaimedJob, function: Function | CronJob, ctx: Context
    ) -> Any:
        """Run the task, given the models and dataclasses that its annotations name."""
        args, kwargs = job.args, job.kwargs
        if parameters := self._parameters.get(job.function_name):
            try:
                args, kwargs = parameters.convert(args, kwargs)
            except TypeError as exc:
                raise ArgumentError(str(exc)) from None
        # As an attribute, opentelemetry-instrumentation-arq would give it a span more.
        return await vars(function)["coroutine"](ctx, *args, **kwargs)

    def _log_start(self, job: ClaimedJob) -> None:
        late = job.start_ms - job.due_ms
        logger.info(
            "%6.2fs → %s(%s)%s%s",
            (job.start_ms - job.enqueue_ms) / 1000,
            job.ref,
            self._shown_arguments(job),
            f" try={job.job_try}" if job.job_try > 1 else "",
            f" delayed={late / 1000:0.2f}s" if late > 1200 else "",
        )

    def _shown_arguments(self, job: ClaimedJob) -> str:
        if not self._options.log_arguments:
            return "..."
        return str(_shown(lambda: args_to_string(job.args, job.kwargs)))

    def _unsuccessful(
        self, job: ClaimedJob, exc: BaseException, *, is_timeout: bool
    ) -> End:
        seconds, ref = (timestamp_ms() - job.start_ms) / 1000, job.ref
        if job.cancelled == "abort":
            logger.info("%6.2fs ⊘ %s aborted", seconds, ref)
            return self._aborted(job)
        # Libraries that cancel a task and do not take it back, and tasks that cancel
        # themselves, are no stop.
        is_cancelled = isinstance(exc, asyncio.CancelledError)
        if job.cancelled or (is_cancelled and self._is_stopping()):
            logger.info("%6.2fs ↻ %s cancelled, will be run again", seconds, ref)
            return self.released(job)
        self._observers.tell("raised", job, exc)
        delay: float | None
        if self._options.retry_jobs and isinstance(exc, Retry):
            delay = min(max(exc.defer_score or 0, 0) / 1000, LONGEST_PAUSE_S)
            logger.info("%6.2fs ↻ %s retrying job in %0.2fs", seconds, ref, delay)
        elif self._options.retry_jobs and isinstance(exc, RetryJob):
            delay = 0
            logger.info("%6.2fs ↻ %s cancelled, will be run again", seconds, ref)
        else:
            delay = self._retry_after(job, exc) if self._options.retry_jobs else None
            _log_failure(job, exc, seconds, delay)
        if delay is None:
            return self.failed(job, exc, "timeout" if is_timeout else "failed")
        text = clean(error_text(exc), LOGGED_ERROR_SIZE)
        outcome = "timeout" if is_timeout else "retried"
        return End("retry", outcome, ms=int(delay * 1000), details={"error": text})

    def _retry_after(self, job: ClaimedJob, exc: BaseException) -> float | None:
        """Any failure is tried again, but for those that the task's no_retry names."""
        assert job.function is not None
        fatal = getattr(job.function.coroutine, "no_retry", ())
        is_last = job.job_try >= self.max_tries_of(job.function)
        if is_last or isinstance(exc, (*fatal, ArgumentError)):
            return None
        doubled = self._options.retry_delay * 2.0 ** min(job.job_try - 1, 64)
        return min(doubled * random.uniform(1, 1.25), LONGEST_PAUSE_S)

    async def call_hook(self, hook: Any, job: ClaimedJob, *args: Any) -> None:
        """Call what the user has set; its errors are logged, and no job's."""
        if hook is None:
            return
        try:
            async with asyncio.timeout(HOOK_S):
                await hook(*args)
        except BaseException as exc:
            logger.error("A hook failed, at %s", job.ref, exc_info=exc)

    # --- Ends

    def released(self, job: ClaimedJob) -> End:
        """The end of a try that is none: a stop cut it short."""
        return End("release", "released", ms=job.score)

    def _aborted(self, job: ClaimedJob) -> End:
        end = self._end(job, "complete", "aborted", asyncio.CancelledError())
        if end.result is None:
            end.result = self._result(job, asyncio.CancelledError(), is_success=False)
            end.keep_result_ms = str(ABORTED_MS)
        return end

    def failed(self, job: ClaimedJob, exc: BaseException, reason: str) -> End:
        """The end of a job that has failed for good."""
        text = clean(error_text(exc), ERROR_SIZE)
        # A cancellation would cancel who waits for the result.
        is_plain = len(text) < ERROR_SIZE and isinstance(exc, Exception)
        result = exc if is_plain else JobExecutionFailed(text)
        end = self._end(job, "failed", reason, result)
        end.error = exc
        end.details |= {
            "task": clean(job.function_name, ERROR_SIZE),
            "error": text,
            "traceback": clean("".join(traceback.format_exception(exc)), ERROR_SIZE),
            "reason": reason,
            "st": job.start_ms,
        }
        return end

    def _end(self, job: ClaimedJob, action: str, outcome: str, result: Any) -> End:
        """An end with a result, which is kept as the task or the worker says."""
        function = job.function
        end = End(action, outcome)
        forever, seconds = self._options.keep_result_forever, self._options.keep_result
        if function and function.keep_result_forever is not None:
            forever = function.keep_result_forever
        if function and function.keep_result_s is not None:
            seconds = function.keep_result_s
        forever = forever or seconds == math.inf
        if forever or seconds > 0:
            is_success = outcome == "complete"
            end.result = self._result(job, result, is_success=is_success)
            end.keep_result_ms = "0" if forever else str(max(1, int(seconds * 1000)))
        if isinstance(function, CronJob):
            about = {"cron": function.name, "outcome": outcome, "st": job.start_ms}
            if not function.job_id:
                # arq's own workers may enqueue this run of it once more.
                about["hold"] = keep_cronjob_progress * 1000
            end.details |= about
        return end

    def _result(
        self, job: ClaimedJob, result: Any, *, is_success: bool
    ) -> bytes | None:
        return serialize_result(
            function=job.function_name,
            args=job.args,
            kwargs=job.kwargs,
            job_try=job.job_try,
            enqueue_time_ms=job.enqueue_ms,
            success=is_success,
            result=result,
            start_ms=job.start_ms,
            finished_ms=timestamp_ms(),
            ref=job.ref,
            queue_name=self._options.queue,
            job_id=job.job_id,
            serializer=self._options.serializer,
        )


def _parameters(task: Callable[..., Any]) -> Parameters:
    try:
        return Parameters(task)
    except (TypeError, ValueError):  # it has no signature
        return Parameters(lambda ctx: None)


def _log_failure(
    job: ClaimedJob, exc: BaseException, seconds: float, delay: float | None
) -> None:
    text = clean(error_text(exc), LOGGED_ERROR_SIZE)
    whole = "".join(traceback.format_exception(exc))
    extra = getattr(exc, "extra", None)
    logger.log(
        logging.ERROR if delay is None else logging.WARNING,
        "%6.2fs ! %s failed, %s%s%s",
        seconds,
        job.ref,
        text,
        "" if delay is None else f" (try {job.job_try}, again in {delay:.2f}s)",
        "" if len(whole) <= ERROR_SIZE else "\n" + clean(whole, LOGGED_ERROR_SIZE),
        exc_info=exc if len(whole) <= ERROR_SIZE else None,
        extra={"extra": _shown(extra) if callable(extra) else extra},
    )


def _shown(show: Callable[[], Any]) -> Any:
    """What it returns; a repr() that raises is no failure of the job."""
    try:
        return show()
    except Exception as exc:
        return f"<{type(exc).__name__}>"
