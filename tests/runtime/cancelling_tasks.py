"""Tasks whose libraries cancel them and do not take it back; in an environment of its
own, with old versions of these.
"""

import asyncio
import json
import os

import aiohttp
import anyio
import async_timeout
from arq_runtime.worker.install import install
from arq_runtime.worker.job import Context
from kit import App
from noting import note


async def with_aiohttp(ctx: Context, port: int) -> None:
    limit = aiohttp.ClientTimeout(total=0.1)
    async with aiohttp.ClientSession(timeout=limit) as session:
        await session.get(f"http://127.0.0.1:{port}")


async def with_async_timeout(ctx: Context, port: int) -> None:
    async with async_timeout.timeout(0.1):
        await asyncio.sleep(60)


async def with_anyio(ctx: Context, port: int) -> None:
    with anyio.fail_after(0.1):
        await anyio.sleep(60)


TASKS = {task.__name__: task for task in (with_aiohttp, with_async_timeout, with_anyio)}


async def use(ctx: Context, library: str, port: int, caught: bool = False) -> int:
    """It lets the library's time-out happen; and goes on, or not."""
    note(ctx, "start", library)
    try:
        await TASKS[library](ctx, port)
    except TimeoutError:
        task = asyncio.current_task()
        assert task is not None
        note(ctx, f"cancelling {task.cancelling()}", library)
        if not caught:
            raise
    await asyncio.sleep(0)
    return int(ctx["job_try"])


async def use_and_wait(ctx: Context, library: str, port: int) -> None:
    """It is still running when the worker is told to stop."""
    await use(ctx, library, port, caught=True)
    note(ctx, "waits", library)
    await asyncio.sleep(60 if ctx["job_try"] == 1 else 0)


if "ARQ_REDIS_URL" in os.environ:
    app = App(os.environ["ARQ_REDIS_URL"])
    WorkerSettings = app.settings(
        use, use_and_wait, **json.loads(os.environ["OPTIONS"])
    )
    install()
