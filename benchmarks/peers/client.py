"""Enqueues, in the peer's environment: client.py MODULE ACTION COUNT [SECONDS]."""

import asyncio
import importlib
import random
import sys
import time

from common import report


async def main() -> None:
    module, action, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    peer = importlib.import_module(module)
    pool = await peer.connect()
    start = time.perf_counter()
    if action == "one":
        for _ in range(count):
            await peer.enqueue(pool, "noop")
    elif action == "many":
        await peer.enqueue_many(pool, "noop", [()] * count)
    elif action == "sleep":
        await peer.enqueue_many(pool, "sleep", [(float(sys.argv[4]),)] * count)
    else:
        for _ in range(count):
            await asyncio.sleep(random.uniform(0.02, 0.08))
            await peer.enqueue(pool, "latency", time.time())
        await asyncio.sleep(1.5)
    report(rate=count / (time.perf_counter() - start))


if __name__ == "__main__":
    asyncio.run(main())
