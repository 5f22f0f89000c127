"""arq-prometheus reads the health of the queue."""

import asyncio
import os
from datetime import timedelta
from typing import Any

from arq_prometheus import ArqPrometheusMetrics
from kit import QUEUE, App, until

Ctx = dict[str, Any]


async def works(ctx: Ctx) -> int:
    return 1


async def startup(ctx: Ctx) -> None:
    metrics = ArqPrometheusMetrics(
        ctx,
        queue_name=QUEUE,
        delay=timedelta(seconds=0.1),
        enable_webserver=False,
    )
    ctx["metrics"] = await metrics.start()


async def shutdown(ctx: Ctx) -> None:
    await ctx["metrics"].stop()


async def main() -> None:
    app = App(os.environ["ARQ_REDIS_URL"])
    hooks = {"on_startup": startup, "on_shutdown": shutdown}
    async with app.worker(works, health_check_interval=0.2, **hooks) as worker:
        await (await app.enqueue("works")).result(10)
        completed = worker.ctx["metrics"].jobs_completed
        await until(lambda: completed.collect()[0].samples[0].value >= 1)
    await app.close()


asyncio.run(main())
