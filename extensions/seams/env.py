""".env, .env.example: where Redis is."""

from __future__ import annotations

import re
from dataclasses import replace

from seams import Options, Seam, UnknownShapeError, append, newline_of


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
# ARQ_JOB_TIMEOUT={options.job_timeout}  # seconds
# ARQ_LOG_ARGUMENTS=true  # false: log and jobs page hide arguments and results
# ARQ_SERIALIZER={options.serializer}  # or {other}{port if options.metrics else ""}
# More: {options.package}/arq_settings.py"""


def add(source: bytes, options: Options) -> bytes:
    """ARQ_REDIS_URL is set."""
    if re.search(rb"^\s*(export\s+)?ARQ_REDIS_URL\s*=", source, re.M | re.I):
        return source
    return append(source, lines(options))


def remove(source: bytes, options: Options) -> bytes:
    """The lines as they were added are gone, whatever the answers were then."""
    newline = newline_of(source)
    pattern = b""
    for line in lines(replace(options, metrics=True)).splitlines():
        changing = re.match(r"# ARQ_\w+=|# More|ARQ_REDIS_URL=.*/", line)
        known = re.escape(line.encode())
        if changing:
            known = re.escape(changing[0].encode()) + b".*"
        known += newline
        pattern += b"(" + known + b")?" if "METRICS" in line else known
    found = list(re.finditer(rb"^" + pattern, source, re.M))
    if len(found) != 1:
        if add(source, options) == source:
            raise UnknownShapeError("its ARQ_REDIS_URL has been changed")
        return source
    before, after = source[: found[0].start()], source[found[0].end() :]
    if not after or before.endswith(newline * 2):
        before = before.removesuffix(newline)
    return before + after


def _seam(name: str, *, private: bool = False) -> Seam:
    needs = ("settings.py",)
    return Seam(
        (name,), lines, add, remove, optional=True, private=private, needs=needs
    )


EXAMPLE, ENV = _seam(".env.example"), _seam(".env", private=True)
