"""Worker settings of two queues in one process, see test_multi.py.

The second queue is on another Redis where OTHER_URL names one.
"""

import asyncio
import json
import os
from typing import Any, ClassVar

from arq import cron
from arq_runtime.connection import parse_redis_url
from arq_runtime.worker.install import install
from arq_runtime.worker.job import Context
from arq_runtime.worker.multi import MultiQueueOptions
from fault_tasks import app
from noting import job, note, sync

other_url = os.environ.get("OTHER_URL") or app.url
options = json.loads(os.environ["OPTIONS"])

LOW, HIGH = "arq:queue:low", "arq:queue:high"


async def redis_of(ctx: Context) -> list[Any]:
    """Where its queue is; what its on_startup has left; which tasks it knows."""
    pool = ctx["redis"]
    port = pool.connection_pool.connection_kwargs["port"]
    return [pool.default_queue_name, port, ctx["mine"], ctx["shared"]]


async def pass_on(ctx: Context, hops: int) -> None:
    """Enqueue itself on the other queue, so often."""
    note(ctx, "start", hops)
    await asyncio.sleep(0.1)
    if hops:
        other = LOW if ctx["mine"] == HIGH else HIGH
        await app.enqueue("pass_on", hops - 1, _queue_name=other)


async def tick(ctx: Context) -> None:
    note(ctx, "start", "tick")


def hooks(queue: str) -> dict[str, Any]:
    async def startup(ctx: Context) -> None:
        if queue in os.environ.get("BROKEN", ""):
            raise RuntimeError("no database")
        ctx["mine"] = queue
        note(ctx, "startup", queue)

    async def shutdown(ctx: Context) -> None:
        note(ctx, "shutdown", ctx.get("mine"))

    return {"on_startup": staticmethod(startup), "on_shutdown": staticmethod(shutdown)}


class Base(app.base()):  # type: ignore[misc]
    ctx: ClassVar = {"shared": "by both"}
    functions: ClassVar = [job, sync, redis_of, pass_on]
    job_completion_wait = 30


Low = type("Low", (Base,), {"queue_name": LOW, **hooks(LOW)})
High = type(
    "High",
    (Base,),
    {
        "queue_name": HIGH,
        "redis_settings": parse_redis_url(other_url),
        "cron_jobs": [cron(tick, second={*range(60)})] if "TICKS" in os.environ else [],
        **hooks(HIGH),
    },
)


AllSettings = type(
    "AllSettings", (MultiQueueOptions,), {"weights": {High: 3, Low: 1}, **options}
)
install()
