"""What a worker adds to the project's logging, so that no line of it is lost."""

import io
import logging
import sys
from typing import Any

from ..context import structlog


def complete() -> None:
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
