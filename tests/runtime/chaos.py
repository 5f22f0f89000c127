"""Worker processes and their Redis fail while they run jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from kit import App, until
from noting import note
from processes import Processes, WorkerProcess
from support import OwnRedis

#: How long a test waits for each part of its jobs, on a busy machine too; seconds.
PART_S = 90


async def run_through(
    app: App,
    redis: OwnRedis,
    processes: Processes,
    send: Callable[[], Awaitable[Any]],
    done: Callable[[], float],
    **options: Any,
) -> None:
    """Run jobs to their end: of three workers two are killed, of which one is replaced.

    Their Redis, the application's, is frozen in between, and killed. Who is killed is
    noted as "killed".

    Args:
        send: Enqueues the jobs.
        done: What part of them has ended, up to 1.
        options: Of each worker process, its settings among them.

    Raises:
        AssertionError: They do not end.
    """

    def start() -> asyncio.Task[WorkerProcess]:
        return asyncio.create_task(processes.start(**options))

    def kill(worker: WorkerProcess) -> None:
        worker.kill()
        note({}, "killed", worker.pid)

    async def part(wanted: float) -> None:
        await until(lambda: done() >= wanted, PART_S)

    workers = await asyncio.gather(*(start() for _ in range(3)))
    await send()
    await part(1 / 6)
    kill(workers[0])
    other = start()
    await part(1 / 3)
    redis.freeze()
    await asyncio.sleep(1)
    redis.thaw()
    await part(1 / 2)
    redis.kill()
    redis.start()
    await part(2 / 3)
    kill(workers[1])
    await other
    await part(1)
    await until(lambda: _is_empty(app), PART_S)


async def _is_empty(app: App) -> bool:
    return await app.queued() == 0
