"""Worker settings that log as Paxx' configuration does: as JSON, or for people."""

import asyncio
import json
import logging
import os
import sys
from typing import Any

import structlog
from fault_tasks import app
from noting import fail, job

SHARED = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso"),
]


def configure_logging(verbose: bool) -> None:
    """Nothing here formats the exc_info of what the standard library logs."""
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if os.environ["LOGS"] == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=False)
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers.clear()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


async def say(ctx: dict[str, Any], text: str) -> None:
    """It is said, and then nothing more."""
    logging.getLogger("shop").info(text)
    await asyncio.Event().wait()


WorkerSettings = app.settings(
    *(job, fail, say),
    max_tries=1,
    configure_logging=staticmethod(configure_logging),
    log_arguments=os.environ["ARGUMENTS"] == "yes",
    log_results=os.environ["ARGUMENTS"] == "yes",
    **json.loads(os.environ["OPTIONS"]),
)
