"""streaq, with JSON for the serializer, and its own enqueue_many."""

import asyncio
import json

from common import SLOTS, URL, done, stamp
from streaq import Worker

worker = Worker(
    redis_url=URL,
    concurrency=SLOTS,
    serializer=json.dumps,
    deserializer=json.loads,
)


@worker.task(ttl=3600)
async def noop() -> None:
    done()


@worker.task(ttl=3600)
async def latency(sent: float) -> None:
    stamp(sent)


@worker.task(ttl=3600)
async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)
    done()


TASKS = {"noop": noop, "latency": latency, "sleep": sleep}


async def connect():
    await worker.__aenter__()
    return worker


async def enqueue(worker, name, *args):
    await TASKS[name].enqueue(*args)


async def enqueue_many(worker, name, calls):
    await worker.enqueue_many([TASKS[name].enqueue(*args) for args in calls])
