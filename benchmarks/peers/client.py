"""Enqueues, in the peer's environment.

client.py MODULE STEP...

A step is HOW:TASK:COUNT[:ARGUMENT]: `one` by one, `together` by 50 callers, as a `batch`,
or `spread` over time. For each, a line of JSON: CPU time in µs a job, and jobs a second.
"""

import asyncio
import importlib
import json
import random
import sys
import time

try:  # as in uvicorn[standard]
    from uvloop import run
except ImportError:
    from asyncio import run

CALLERS = 50


async def step(peer, pool, how, task, count, *arguments):
    jobs, args = range(int(count)), [float(argument) for argument in arguments]

    async def one_by_one(jobs):
        for _ in jobs:
            await peer.enqueue(pool, task, *args)

    if how == "one":
        await one_by_one(jobs)
    elif how == "together":
        await asyncio.gather(
            *[one_by_one(jobs[caller::CALLERS]) for caller in range(CALLERS)]
        )
    elif how == "batch":
        await peer.enqueue_many(pool, task, [args for _ in jobs])
    else:
        for _ in jobs:
            await asyncio.sleep(random.uniform(0.02, 0.08))
            await peer.enqueue(pool, task, time.monotonic())
    return len(jobs)


async def main() -> None:
    module, *steps = sys.argv[1:]
    peer = importlib.import_module(module)
    pool = await peer.connect()
    for one in steps:
        start, cpu_before = time.perf_counter(), time.process_time()
        jobs = await step(peer, pool, *one.split(":"))
        elapsed, cpu = time.perf_counter() - start, time.process_time() - cpu_before
        print(json.dumps([cpu * 1e6 / jobs, jobs / elapsed]))


if __name__ == "__main__":
    run(main())
