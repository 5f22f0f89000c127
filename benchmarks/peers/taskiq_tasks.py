"""taskiq with the Redis list broker; JSON is its default."""

import asyncio

from common import URL, done, stamp
from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

broker = ListQueueBroker(URL).with_result_backend(
    RedisAsyncResultBackend(URL, result_ex_time=3600)
)


@broker.task
async def noop() -> None:
    done()


@broker.task
async def latency(sent: float) -> None:
    stamp(sent)


@broker.task
async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)
    done()


TASKS = {"noop": noop, "latency": latency, "sleep": sleep}


async def connect():
    await broker.startup()
    return broker


async def enqueue(broker, name, *args):
    await TASKS[name].kiq(*args)


async def enqueue_many(broker, name, calls):
    await asyncio.gather(*[TASKS[name].kiq(*args) for args in calls])
