"""Enqueues beside idle workers, all in one event loop, in the project of ours.

idle.py COUNT

Prints how many scripts Redis runs for an enqueue and its job; its CPU time for them, in µs,
less that of as long a time in which nothing is enqueued; then that of such a second, for
each worker.
"""

import asyncio
import json
import logging
import os
import sys

from arq.worker import create_worker
from services import arq
from services.tasks import WorkerSettings

ENQUEUES = 1000
#: Before what is measured, each worker has run so many jobs: so it has its connections.
WARM_UP = 5


async def spent(redis):
    stats, cpu = await redis.info("commandstats"), await redis.info("cpu")
    scripts = sum(
        stats[name]["calls"]
        for name in ("cmdstat_evalsha", "cmdstat_eval")
        if name in stats
    )
    return scripts, cpu["used_cpu_user"] + cpu["used_cpu_sys"]


async def main() -> None:
    logging.disable(logging.INFO)
    count = int(sys.argv[1])
    options = {"handle_signals": False, "poll_delay": 60, "on_shutdown": None}
    workers = [create_worker(WorkerSettings, **options) for _ in range(count)]
    for worker in workers:
        worker.main_task = asyncio.create_task(worker.main())
    redis = await arq.get_pool()
    for _ in range(count * WARM_UP + 10):
        await asyncio.sleep(0.005)
        await (await arq.enqueue("noop")).result(10)

    async def meanwhile(end):
        """For as long as that takes: scripts, CPU time in µs, and seconds."""
        before, start = await spent(redis), asyncio.get_running_loop().time()
        await end()
        seconds = asyncio.get_running_loop().time() - start
        scripts, cpu = (b - a for a, b in zip(before, await spent(redis), strict=True))
        return scripts, cpu * 1e6, seconds

    async def enqueues():
        for _ in range(ENQUEUES):
            await arq.enqueue("noop")
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.5)

    await asyncio.sleep(6)  # until the workers have said what they did
    _, idle_cpu, idle_s = await meanwhile(lambda: asyncio.sleep(6))
    scripts, cpu, seconds = await meanwhile(enqueues)
    cpu -= idle_cpu * seconds / idle_s
    found = scripts / ENQUEUES, cpu / ENQUEUES, idle_cpu / idle_s / count
    print(json.dumps(found), flush=True)
    os._exit(0)  # so many workers would take their time to stop


if __name__ == "__main__":
    asyncio.run(main())
