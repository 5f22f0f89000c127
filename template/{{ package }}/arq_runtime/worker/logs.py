"""How a worker logs: as the project does, and so that no line of it is lost."""

import io
import logging
import sys
from collections.abc import Callable
from typing import Any

import click

from ..context import structlog


def configure(configure_logging: Callable[[bool], None] | None) -> None:
    """Log as the project does, below arq's command line."""
    options = click.get_current_context().params
    if configure_logging and not options["custom_log_dict"]:
        configure_logging(options["verbose"])
        arq_logger = logging.getLogger("arq")
        arq_logger.handlers.clear()  # of arq's: it would log twice
        arq_logger.setLevel(logging.NOTSET)
    _complete()


def _complete() -> None:
    """Have tracebacks in JSON, and lines on a terminal that is not UTF-8."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for handler in logging.getLogger().handlers:
        _format_tracebacks(handler.formatter)


def _format_tracebacks(formatter: Any) -> None:
    """Of what the standard library logs, where a formatter writes JSON without them."""
    if structlog is None or not isinstance(
        formatter, structlog.stdlib.ProcessorFormatter
    ):
        return
    renders_json = any(
        isinstance(one, structlog.processors.JSONRenderer)
        for one in formatter.processors
    )
    chain = [*(formatter.foreign_pre_chain or ())]
    format_them = structlog.processors.format_exc_info
    if renders_json and format_them not in chain:
        formatter.foreign_pre_chain = [*chain, format_them]
