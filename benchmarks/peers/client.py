"""Enqueues, in the peer's environment; prints CPU time in µs a job, and jobs a second.

client.py MODULE one|batch|spread TASK COUNT [ARGUMENT]
"""

import asyncio
import importlib
import random
import sys
import time

try:  # as in uvicorn[standard]
    from uvloop import run
except ImportError:
    from asyncio import run


async def main() -> None:
    module, how, task, count, *arguments = sys.argv[1:]
    peer, jobs = importlib.import_module(module), range(int(count))
    args = [float(argument) for argument in arguments]
    pool = await peer.connect()
    start, cpu_before = time.perf_counter(), time.process_time()
    if how == "one":
        for _ in jobs:
            await peer.enqueue(pool, task, *args)
    elif how == "batch":
        await peer.enqueue_many(pool, task, [args for _ in jobs])
    else:
        for _ in jobs:
            await asyncio.sleep(random.uniform(0.02, 0.08))
            await peer.enqueue(pool, task, time.monotonic())
    elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_before
    print(cpu * 1e6 / len(jobs))
    print(len(jobs) / elapsed)


if __name__ == "__main__":
    run(main())
