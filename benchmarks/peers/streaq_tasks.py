"""streaq, with JSON for the serializer, uvloop, and its own enqueue_many."""

import asyncio
import json

from common import SLOTS, URL, record
from streaq import Worker

worker = Worker(
    redis_url=URL,
    concurrency=SLOTS,
    serializer=json.dumps,
    deserializer=json.loads,
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(ttl=3600)
async def noop() -> None:
    record()


@worker.task(ttl=3600)
async def latency(sent: float) -> None:
    record(sent)


@worker.task(ttl=3600)
async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)
    record()


TASKS = {"noop": noop, "latency": latency, "sleep": sleep}


async def connect():
    await worker.__aenter__()
    return worker


async def enqueue(worker, name, *args):
    await TASKS[name].enqueue(*args)


async def enqueue_many(worker, name, calls):
    await worker.enqueue_many([TASKS[name].enqueue(*args) for args in calls])
