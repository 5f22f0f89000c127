"""How arq's command line comes to run this worker: the one place that patches arq."""

import asyncio
import gc
import logging
import os
import shlex
import signal
import sys
from typing import Any

import arq.cli
import arq.worker
import click
from arq.connections import RedisSettings
from arq.constants import default_queue_name, health_check_key_suffix

from ..connection import REDIS_ERRORS, address, connect
from ..values import error_text
from . import heartbeat, logs
from .multi import Member, MultiQueueOptions, MultiQueueWorker, shares
from .options import SETTINGS, WorkerOptions
from .processes import NUMBER, Processes
from .worker import Worker

try:
    from uvloop import new_event_loop
except ImportError:
    new_event_loop = asyncio.new_event_loop  # type: ignore[assignment]

logger = logging.getLogger("arq.worker")

_PARAMETERS = SETTINGS - {"queues", "processes", "configure_logging"}


def get_kwargs(settings_cls: Any) -> dict[str, Any]:
    """arq's, which looks into the class alone, and finds nothing that is inherited."""
    if isinstance(settings_cls, dict):
        found = settings_cls
    elif isinstance(settings_cls, type) and issubclass(settings_cls, WorkerOptions):
        names = _PARAMETERS & {*dir(settings_cls)}
        found = {name: getattr(settings_cls, name) for name in names}
    else:
        found = vars(settings_cls)
    return {name: value for name, value in found.items() if name in _PARAMETERS}


def _is_multi(settings_cls: Any) -> bool:
    return isinstance(settings_cls, type) and issubclass(
        settings_cls, MultiQueueOptions
    )


def check_health(settings_cls: Any) -> int:
    """`arq --check`: 0 if the worker lives, 1 if not, or no Redis answers for 3 s."""
    if _is_multi(settings_cls):
        return max([check_health(one) for one in settings_cls.weights])
    options = get_kwargs(settings_cls)
    redis_settings = options.get("redis_settings") or RedisSettings()
    queue = options.get("queue_name") or default_queue_name
    key = options.get("health_check_key") or queue + health_check_key_suffix

    async def said() -> bytes | None:
        async with (
            asyncio.timeout(3),
            connect(redis_settings, default_queue_name=queue) as redis,
        ):
            found: bytes | None = await redis.get(key)
            return found

    try:
        health = asyncio.run(said())
    except REDIS_ERRORS as exc:
        why = f"{address(redis_settings)}: {error_text(exc)}"
        logger.error("Health check failed, see ARQ_REDIS_URL: %s (%s)", why, queue)
        return 1
    if health is None:
        why = "no health check sentinel value found"
        logger.warning("Health check failed: %s (%s)", why, queue)
        return 1
    logger.info("Health check successful: %s (%s)", health, queue)
    return 0


def _command() -> list[str]:
    """This worker's command, without what is not for each process of it."""
    options = click.get_current_context().params
    command = [sys.executable, "-m", "arq", options["worker_settings"]]
    if options["verbose"]:
        command.append("--verbose")
    if options["custom_log_dict"]:
        command += ["--custom-log-dict", options["custom_log_dict"]]
    return command


def _setting(settings_cls: Any, name: str) -> Any:
    if isinstance(settings_cls, dict):
        return settings_cls.get(name)
    return getattr(settings_cls, name, None)


def run_worker(settings_cls: Any, **options: Any) -> Any:
    """arq's, in several processes where the settings say so; a burst in one."""
    logs.configure(_setting(settings_cls, "configure_logging"))
    count = _setting(settings_cls, "processes") or 1
    is_several = count > 1 or _setting(settings_cls, "max_jobs_per_process")
    if is_several and not options.get("burst") and NUMBER not in os.environ:
        sys.exit(Processes(count, _command()).run())
    asyncio.set_event_loop(new_event_loop())
    # All that is imported stays; to look through it for garbage, over and over, took a
    # tenth of the time.
    gc.freeze()
    Worker.version = heartbeat.git_version()
    if not _is_multi(settings_cls):
        return arq.worker.run_worker(settings_cls, **options)
    options["max_jobs_per_process"] = settings_cls.max_jobs_per_process
    members = []
    for cls, max_jobs in shares(settings_cls).items():
        own = get_kwargs(cls) | options | {"max_jobs": max_jobs}
        own["ctx"] = {**(own.get("ctx") or {})}  # each puts its Redis there
        members.append(Member(**own))
    worker = MultiQueueWorker(members)
    worker.run()
    return worker


async def watch_reload(path: str, settings_cls: Any) -> None:
    """`arq --watch`: a process of its own that starts anew when a .py file changes.

    Its running jobs are given back, and run again. With an error in a file it does not
    start, until the next change.
    """
    from watchfiles import PythonFilter, run_process

    # Not arun_process: on a signal it leaves the process behind. And the handler that
    # asyncio.run has set would keep Ctrl-C from this one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_process(
        path,
        target=shlex.join(_command()),
        target_type="command",
        watch_filter=PythonFilter(),
    )


def install() -> None:
    """Have arq's command line, and its create_worker, use this worker."""
    arq.worker.Worker = Worker  # type: ignore[misc]
    arq.worker.get_kwargs = get_kwargs
    vars(arq.cli).update(
        check_health=check_health, run_worker=run_worker, watch_reload=watch_reload
    )
