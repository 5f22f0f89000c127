"""SAQ: settings as documented; JSON is its default. Batches: none documented."""

import asyncio

from common import SLOTS, URL, done, stamp
from saq import Queue

queue = Queue.from_url(URL)


async def noop(ctx):
    done()


async def latency(ctx, *, sent):
    stamp(sent)


async def sleep(ctx, *, seconds):
    await asyncio.sleep(seconds)
    done()


settings = {"queue": queue, "functions": [noop, latency, sleep], "concurrency": SLOTS}
NAMES = {"noop": [], "latency": ["sent"], "sleep": ["seconds"]}


async def connect():
    await queue.connect()
    return queue


async def enqueue(queue, name, *args):
    arguments = dict(zip(NAMES[name], args, strict=True))
    await queue.enqueue(name, ttl=3600, timeout=300, **arguments)


async def enqueue_many(queue, name, calls):
    await asyncio.gather(*[enqueue(queue, name, *args) for args in calls])
