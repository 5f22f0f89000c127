"""SAQ: settings as documented; JSON is its default. Batches: none documented."""

import asyncio

import uvloop
from common import SLOTS, URL, in_hundreds, record
from saq import Queue

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
queue = Queue.from_url(URL)


async def noop(ctx):
    record()


async def latency(ctx, *, sent):
    record(sent)


async def sleep(ctx, *, seconds):
    await asyncio.sleep(seconds)
    record()


settings = {"queue": queue, "functions": [noop, latency, sleep], "concurrency": SLOTS}
NAMES = {"noop": [], "latency": ["sent"], "sleep": ["seconds"]}


async def connect():
    await queue.connect()
    return queue


async def enqueue(queue, name, *args):
    arguments = dict(zip(NAMES[name], args, strict=True))
    await queue.enqueue(name, ttl=3600, timeout=300, **arguments)


async def enqueue_many(queue, name, calls):
    await in_hundreds(lambda *args: enqueue(queue, name, *args), calls)
