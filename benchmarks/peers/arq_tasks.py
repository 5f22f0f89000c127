"""arq as its documentation shows it, with JSON for the serializer.

In the same project: it imports what our tasks.py imports, so that memory compares.
"""

import json

import core.logging  # noqa: F401
import db.database  # noqa: F401
from arq import create_pool
from arq.connections import RedisSettings
from common import SLOTS, URL, in_hundreds, latency, noop, sleep


def serialize(data):
    return json.dumps(data).encode()


class WorkerSettings:
    functions = (noop, latency, sleep)
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = SLOTS
    job_serializer = serialize
    job_deserializer = json.loads


async def connect():
    return await create_pool(
        WorkerSettings.redis_settings,
        job_serializer=serialize,
        job_deserializer=json.loads,
    )


async def enqueue(pool, name, *args):
    await pool.enqueue_job(name, *args)


async def enqueue_many(pool, name, calls):
    await in_hundreds(lambda *args: enqueue(pool, name, *args), calls)
