"""Tasks that fail in all ways, in a worker's process with Sentry."""

import asyncio
import os

from arq import func
from arq_runtime.worker.install import install
from arq_runtime.worker.job import Context
from arq_runtime.worker.options import no_retry
from kit import App


async def works(ctx: Context) -> int:
    return 1


async def fails(ctx: Context) -> None:
    raise ValueError(f"try {ctx['job_try']}")


async def recovers(ctx: Context) -> None:
    if ctx["job_try"] == 1:
        raise ValueError("the first try")


@no_retry(KeyError)
async def picky(ctx: Context) -> None:
    raise KeyError("at once")


async def leaves(ctx: Context) -> None:
    raise SystemExit(3)


async def stubborn(ctx: Context) -> None:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        raise ValueError("not now") from None


async def slow(ctx: Context) -> None:
    await asyncio.sleep(60)


TASKS = (
    *(works, fails, recovers, picky),
    *(func(leaves, name="leaves", max_tries=1), func(slow, name="slow", timeout=0.1)),
    func(stubborn, name="stubborn", timeout=0.1),
)
WorkerSettings = App(os.environ["ARQ_REDIS_URL"]).settings(*TASKS)
install()
