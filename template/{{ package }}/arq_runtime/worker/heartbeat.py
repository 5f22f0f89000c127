"""What a worker says of itself: that it lives, and what it does."""

import json
import os
import socket
import subprocess
from typing import Any

from arq import ArqRedis
from redis.asyncio.client import Pipeline

from ..keys import FAILED, GAUGES, PAUSED, QUEUES, WORKER, WORKERS, hash_tag
from ..scripts import run_script, script


def record(
    pipe: Pipeline,
    queue: str,
    about: dict[str, Any],
    *,
    now_ms: int,
    keep_ms: int,
    keep_queue_ms: int,
    keep_failed_s: float,
) -> None:
    """Note a worker, and drop those that have not been noted for long.

    Args:
        pipe: What is added to.
        queue: The queue's name.
        about: What the worker says of itself; its `id` is there.
        now_ms: Redis' time, in milliseconds since 1970.
        keep_ms: After how many milliseconds a worker is no longer listed.
        keep_queue_ms: After how many a queue is not.
        keep_failed_s: After how many seconds failed jobs are gone.
    """
    queues = QUEUES + hash_tag(queue)
    workers, worker_id = queue + WORKERS, about["id"]
    pipe.zadd(workers, {worker_id: now_ms})
    pipe.zremrangebyscore(workers, "-inf", now_ms - keep_ms)
    pipe.pexpire(workers, keep_ms)
    pipe.zadd(queues, {queue: now_ms})
    pipe.zremrangebyscore(queues, "-inf", now_ms - keep_queue_ms)
    pipe.zremrangebyscore(queue + FAILED, "-inf", now_ms - keep_failed_s * 1000)
    pipe.set(queue + WORKER + worker_id, json.dumps(about), px=keep_ms)


async def count(
    redis: ArqRedis, queue: str, worker_id: str, keep_ms: int
) -> dict[str, float] | None:
    """A queue's jobs by state, and for how many seconds the oldest queued one waits.

    None where it is another worker's turn to count them: until it ends, or has not
    counted for keep_ms milliseconds.
    """
    if not await redis.set(queue + GAUGES, worker_id, nx=True, px=keep_ms):
        if await redis.get(queue + GAUGES) != worker_id.encode():
            return None
        await redis.pexpire(queue + GAUGES, keep_ms)
    keys = [queue, queue + FAILED, queue + WORKERS, queue + PAUSED]
    found = await run_script(
        redis, script("workers", "stats"), keys, [queue + WORKER, 1000]
    )
    states = ("queued", "deferred", "in_progress", "failed")
    counts = dict(zip(states, found[:4], strict=True))
    oldest, now_ms = int(found[4]), found[6]
    return counts | {"oldest": (now_ms - oldest) / 1000 if oldest else 0}


async def forget(redis: ArqRedis, queue: str, worker_id: str, *keys: str) -> None:
    """Drop a worker that ends, and these keys."""
    await redis.zrem(queue + WORKERS, worker_id)
    await redis.delete(queue + WORKER + worker_id, *keys)


def host_and_process() -> dict[str, Any]:
    """Where this worker runs."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def git_version() -> str:
    """The commit of the code, for the list of workers; empty outside of git."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
