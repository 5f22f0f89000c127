"""taskiq with one of its Redis brokers. Batches: none documented.

Its default is JSON for arguments, and pickle for results.
What a worker of ListQueueBroker holds is lost with it; RedisStreamBroker acknowledges.
"""

import asyncio
import os

import taskiq_redis
from common import URL, in_hundreds, record

broker_class = getattr(taskiq_redis, os.environ["BENCH_BROKER"])
results = taskiq_redis.RedisAsyncResultBackend(URL, result_ex_time=3600)
broker = broker_class(URL).with_result_backend(results)


@broker.task
async def noop() -> None:
    record()


@broker.task
async def latency(sent: float) -> None:
    record(sent)


@broker.task
async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)
    record()


TASKS = {"noop": noop, "latency": latency, "sleep": sleep}


async def connect():
    await broker.startup()
    return broker


async def enqueue(broker, name, *args):
    await TASKS[name].kiq(*args)


async def enqueue_many(broker, name, calls):
    await in_hundreds(TASKS[name].kiq, calls)
