"""Worker settings of all kinds that arq takes, see test_users.py."""

import logging
from typing import ClassVar

from arq_runtime.worker.job import Context
from fault_tasks import app
from noting import job, note, plain


async def added(ctx: Context, n: int) -> int:
    note(ctx, "end", n)
    return n


class WorkerSettings:
    """As in arq's own documentation: no base class."""

    functions: ClassVar = [job]
    queue_name = app.queue
    redis_settings = app.redis_settings
    job_serializer = app.serializer.serialize
    job_deserializer = app.serializer.deserialize


as_dict = {
    name: value
    for name, value in vars(WorkerSettings).items()
    if not name.startswith("_")
}


class Named(app.base()):  # type: ignore[misc]
    functions: ClassVar = ["noting.job"]


class Later(app.base()):  # type: ignore[misc]
    functions: ClassVar = [plain]


Later.functions = [*Later.functions, added]


class Logging(app.base()):  # type: ignore[misc]
    """With logging as the project has it."""

    functions: ClassVar = [job]

    def configure_logging(verbose: bool) -> None:
        how = "loud" if verbose else "usual"
        logging.basicConfig(level=logging.INFO, format=f"PROJECT {how} %(message)s")


log_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "own"}},
    "formatters": {"own": {"format": "OWN %(message)s"}},
    "loggers": {"arq": {"handlers": ["out"], "level": "INFO"}},
}
