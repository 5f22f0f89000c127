"""Enqueues beside idle workers, all in one event loop, in the project of ours.

idle.py COUNT

Prints how many scripts Redis runs for an enqueue and its job, and its CPU time in µs.
"""

import asyncio
import json
import logging
import os
import sys

from arq.worker import create_worker
from services import arq
from services.tasks import WorkerSettings

ENQUEUES = 300


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
    for _ in range(count + 10):  # each has its connections then
        await asyncio.sleep(0.02)
        await (await arq.enqueue("noop")).result(10)
    await asyncio.sleep(0.5)
    scripts, cpu = await spent(redis)
    for _ in range(ENQUEUES):
        await arq.enqueue("noop")
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.5)
    scripts_after, cpu_after = await spent(redis)
    each = (scripts_after - scripts) / ENQUEUES, (cpu_after - cpu) * 1e6 / ENQUEUES
    print(json.dumps(each), flush=True)
    os._exit(0)  # so many workers would take their time to stop


if __name__ == "__main__":
    asyncio.run(main())
