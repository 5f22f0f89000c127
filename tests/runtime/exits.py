"""Worker settings of a process that says when it ends as Python does."""

import asyncio
import atexit

import fault_tasks
from arq_runtime.worker.job import Context
from noting import note

atexit.register(print, "at exit")


async def stop_loop(ctx: Context, name: str) -> str:
    note(ctx, "start", name)
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    return name


async def exit_in_a_task(ctx: Context, name: str) -> str:
    async def leave() -> None:
        raise SystemExit(3)

    note(ctx, "start", name)
    task = asyncio.create_task(leave())
    await asyncio.wait([task])
    return name


class WorkerSettings(fault_tasks.WorkerSettings):  # type: ignore[name-defined,misc]
    functions = (*fault_tasks.WorkerSettings.functions, stop_loop, exit_in_a_task)
