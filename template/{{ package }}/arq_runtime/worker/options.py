"""What can be set for a worker, in tasks.py: the base of BaseWorkerSettings."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, tzinfo
from typing import Any, ClassVar

import arq.worker
from arq.connections import RedisSettings
from arq.constants import health_check_key_suffix
from arq.cron import CronJob

from ..keys import EXPIRES_MS
from ..limits import Limit
from ..queue import Queues, Task
from . import cron
from .checks import check_settings
from .job import FailureHook, Hook, Relaying
from .loop import Loop
from .observers.logs import LogContext
from .observers.observer import Observer
from .observers.progress import Progress
from .observers.sentry import Sentry
from .observers.tracing import Tracing
from .worker import Worker

#: What watches the jobs wherever it is installed.
OBSERVERS: tuple[Observer, ...] = (LogContext(), Sentry(), Tracing(), Progress())


#: What a worker can be given: the arguments of arq's, and those added here.
SETTINGS = {
    name
    for cls in (arq.worker.Worker, Loop, Worker)
    for name, parameter in inspect.signature(cls).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD
} | {"queues", "health_check_key", "processes", "configure_logging"}


def no_retry(*exceptions: type[BaseException]) -> Callable[[Task], Task]:
    """Mark a task to fail at once, without another try, on these exceptions.

    `no_retry(TimeoutError)` is for job_timeout, too. To never retry a task, register
    it as `func(task, max_tries=1)`.
    """

    def mark(task: Task) -> Task:
        task.__dict__["no_retry"] = exceptions
        return task

    return mark


class WorkerOptions:
    """Every argument of arq.Worker can be set; subclasses inherit. Times in seconds.

    Raises:
        TypeError, ValueError: As a class is defined: something in it cannot be.
    """

    #: Tasks: coroutine functions, arq.func(...), or plain functions, which run in
    #: threads. A thread cannot be stopped: neither by job_timeout nor by an abort.
    functions: ClassVar[Sequence[Any]] = ()
    cron_jobs: ClassVar[Sequence[CronJob]] = ()
    #: How many jobs of the queue run at once over all workers, or start in a period.
    limits: ClassVar[Sequence[Limit]] = ()
    #: Whether jobs of the highest priority always come first. Else one in ten is
    #: another, so that none starves.
    strict_priority: ClassVar[bool] = False
    queue_name: ClassVar[str]
    on_startup: ClassVar[Hook | None] = None
    on_shutdown: ClassVar[Hook | None] = None
    #: on_failure(ctx, exc), once a job has failed for good.
    on_failure: ClassVar[FailureHook | None] = None

    #: How many jobs run at the same time.
    max_jobs: ClassVar[int] = 10
    #: How long a job may run before it fails.
    job_timeout: ClassVar[float] = 300
    #: How often a job may fail. Cron jobs have arq's default of 1, unless set there.
    max_tries: ClassVar[int] = 3
    #: Before the second try; doubled for each further one, plus up to a quarter.
    retry_delay: ClassVar[float] = 10
    #: A killed worker's jobs run elsewhere after this time, however long jobs may take.
    lease: ClassVar[float] = 60
    #: On SIGTERM, how long running jobs may take to finish; then they are run again.
    job_completion_wait: ClassVar[int] = 30
    #: How many processes run these settings; one uses one core.
    processes: ClassVar[int] = 1
    #: After how many jobs a process is replaced by a new one, against leaks of memory.
    max_jobs_per_process: ClassVar[int | None] = None
    keep_result: ClassVar[float] = 3600
    #: For how long a job that failed for good can be looked at and tried again.
    keep_failed: ClassVar[float] = 30 * 24 * 3600
    #: For how many hours the history of jobs is kept, 8 at most; 0 keeps none.
    history: ClassVar[float] = 8
    #: How many log lines of a running or failed job are kept with it, 100 at most.
    keep_logs: ClassVar[int] = 0
    allow_abort_jobs: ClassVar[bool] = True
    #: Whether the log shows the arguments of jobs, and what they return.
    log_arguments: ClassVar[bool] = True
    log_results: ClassVar[bool] = True
    #: A cron job's run that no worker was there for is made up for, once, if it is late
    #: by less than this.
    catch_up: ClassVar[float] = 0
    #: Of the cron jobs.
    timezone: ClassVar[tzinfo] = UTC
    health_check_interval: ClassVar[float] = 15
    #: How often to look for aborts, and for jobs that nobody announces, as those of
    #: arq's own client; an idle worker that has met none looks every 3 seconds.
    poll_delay: ClassVar[float] = 0.5
    expires_extra_ms: ClassVar[int] = EXPIRES_MS

    redis_settings: ClassVar[RedisSettings]
    #: Together: what makes bytes of a job, and a job of bytes.
    job_serializer: ClassVar[Any]
    job_deserializer: ClassVar[Any]
    #: `arq --check` looks for it; by default one for each queue and host.
    health_check_key: ClassVar[str]
    #: What watches the jobs: logs, traces, errors, metrics.
    observers: ClassVar[Sequence[Observer]] = OBSERVERS
    #: Moves the outbox to Redis, where the project has one.
    relay: ClassVar[Relaying | None] = None
    configure_logging: ClassVar[Callable[[bool], None] | None] = None

    #: The project's queues; a subclass that has tasks is among them.
    queues: ClassVar[Queues]

    def __init_subclass__(cls) -> None:
        own_key = vars(cls).get("health_check_key")
        if not hasattr(cls, "queue_name"):
            return
        host_key = f"{cls.queue_name}{health_check_key_suffix}:{socket.gethostname()}"
        cls.health_check_key = own_key or host_key
        check_settings(cls, SETTINGS)
        if "cron_jobs" not in vars(cls) and "queue_name" in vars(cls):
            # A cron job belongs to the class that names it: else each queue runs it.
            cls.cron_jobs = ()
        for job in cls.cron_jobs:
            cron.check(job)
        if cls.functions or cls.cron_jobs:
            cls.queues.register(cls)
