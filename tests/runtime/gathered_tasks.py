"""Worker settings of processes that run batches, see test_gather_chaos.py."""

import asyncio
import json
import os
import random

from arq_runtime.worker.install import install
from arq_runtime.worker.job import Context
from kit import App
from noting import note


async def member(ctx: Context, batch: int, n: int) -> None:
    """One in five is tried again, and one of those fails for good."""
    await asyncio.sleep(random.uniform(0, 0.02))
    note(ctx, "end", f"{batch} {n}")
    if n == 0 or (ctx["job_try"] == 1 and n % 5 == 0):
        raise ValueError("no")


async def then(ctx: Context, job_ids: list[str], batch: int) -> None:
    # Without Redis it fails here, and is tried again.
    ended = [await ctx["redis"].exists(f"arq:result:{id_}") for id_ in job_ids]
    note(ctx, "start", f"then {batch}")
    if not all(ended):
        note(ctx, "early", f"then {batch}")
    note(ctx, "end", f"then {batch}")


if "OPTIONS" in os.environ:  # in a process of its own
    app = App(os.environ["ARQ_REDIS_URL"])
    options = json.loads(os.environ["OPTIONS"])
    WorkerSettings = app.settings(member, then, **options)
    install()
