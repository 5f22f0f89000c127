""".env, .env.example: where Redis is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from seams import Options, Seam, UnknownShapeError

Text = Callable[[Options], str]


def block(name: str, variable: str, lines: Text, text: Text, pattern: Text) -> Seam:
    """A text at the end of a file.

    Args:
        name: The file.
        variable: What the text sets, with what may stand before it: where that is said
            already, all stays.
        lines: What to say by hand.
        text: What is added.
        pattern: A regular expression for that, whatever the answers were then.
    """
    said = re.compile(rf"^{variable}\s*=", re.M | re.I)

    def add(source: str, options: Options) -> str:
        if said.search(source):
            return source
        return source + "\n" * bool(source) + text(options) + "\n"

    def remove(source: str, options: Options) -> str:
        found = [*re.finditer(f"^{pattern(options)}\n", source, re.M)]
        if len(found) != 1:
            if said.search(source):
                raise UnknownShapeError("what it says of the queue has been changed")
            return source
        before, after = source[: found[0].start()], source[found[0].end() :]
        if not after or before.endswith("\n\n"):
            before = before.removesuffix("\n")
        return before + after

    return Seam((name,), lines, add, remove, optional=True, needs_settings=True)


def lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    other = "pickle" if options.serializer == "json" else "json"
    port = "\n# ARQ_METRICS_PORT=9191  # of the worker; 0: no metrics"
    return f"""\
# ARQ task queue
# ARQ_REDIS_PORT=6379  # where that is taken: moves Compose's Redis and the next line
ARQ_REDIS_URL=redis://localhost:${{ARQ_REDIS_PORT:-6379}}/{options.redis_db}
# ARQ_QUEUE_NAME={options.queue_name}
# ARQ_MAX_JOBS={options.max_jobs}  # that one worker runs at the same time
# ARQ_PROCESSES=1  # of one worker
# ARQ_JOB_TIMEOUT={options.job_timeout}  # seconds
# ARQ_LOG_ARGUMENTS=true  # false: log and jobs page hide arguments and results
# ARQ_HISTORY_HOURS=8  # that jobs page and command look back; 0: none
# ARQ_SERIALIZER={options.serializer}  # or {other}{port if options.metrics else ""}
# More: {options.package}/arq_settings.py"""


def _pattern(options: Options) -> str:
    known = re.escape(lines(replace(options, metrics=True)))
    known = re.sub(
        r"(?m)^(\\#\\ (?:ARQ_\w+=|More)|ARQ_REDIS_URL=.*/).*", r"\1.*", known
    )
    return re.sub(r"\n(\\#\\ ARQ_(?:METRICS|PROCESSES|HISTORY).*)", r"(\n\1)?", known)


EXAMPLE, ENV = (
    block(name, r"\s*(export\s+)?ARQ_REDIS_URL", lines, lines, _pattern)
    for name in (".env.example", ".env")
)
