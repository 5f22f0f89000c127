"""Worker settings of processes whose jobs are limited, see test_limit_chaos.py."""

import asyncio
import json
import os
import random

from arq_runtime.limits import limit
from arq_runtime.worker.install import install
from arq_runtime.worker.job import Context
from kit import App
from noting import note

#: How many jobs of a key run at once, and how many of all.
OF_KEY, OF_ALL = 2, 12


@limit(concurrency=OF_KEY, key="key")
@limit(concurrency=OF_ALL)
async def limited(ctx: Context, key: int, n: int) -> None:
    """One in ten is tried again."""
    note(ctx, "start", f"{key} {n}")
    await asyncio.sleep(random.uniform(0, 0.02))
    note(ctx, "end", f"{key} {n}")
    if ctx["job_try"] == 1 and n % 10 == 0:
        raise ValueError("no")


if "OPTIONS" in os.environ:  # in a process of its own
    app = App(os.environ["ARQ_REDIS_URL"])
    WorkerSettings = app.settings(limited, **json.loads(os.environ["OPTIONS"]))
    install()
