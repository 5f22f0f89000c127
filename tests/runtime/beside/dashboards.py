"""worq-dashboard and z4j-arq see the jobs and the worker."""

import asyncio
import os
from datetime import date
from typing import Any

from kit import QUEUE, App, until
from worq.adapters.arq import ARQAdapter
from z4j_arq.engine import ArqEngineAdapter

Ctx = dict[str, Any]


async def add(ctx: Ctx, a: int, b: int) -> date:
    return date(2026, 1, a + b)


async def fails(ctx: Ctx) -> None:
    raise ValueError("no luck")


async def main() -> None:
    app = App(os.environ["ARQ_REDIS_URL"])
    async with app.worker(add, fails, health_check_interval=0.2, max_tries=1):
        await app.enqueue("add", 1, 2, _job_id="sum")
        await app.enqueue("fails", _job_id="fails")
        await app.enqueue("add", 3, 4, _job_id="later", _defer_by=60)
        for job_id in ("sum", "fails"):
            await app.result_of(job_id)
        await until(lambda: app.redis.exists(f"{QUEUE}:health-check"))
        worq = ARQAdapter(
            app.url,
            queue_names=[QUEUE],
            deserializer=app.serializer.deserialize,
            serializer=app.serializer.serialize,
        )
        assert (await worq.get_worker_health())[0].status == "ALIVE"
        scheduled = await worq.get_scheduled_jobs()
        assert [job.job_id for job in scheduled] == ["later"]
        failed = await worq.get_failed_jobs()
        assert [job.job_id for job in failed] == ["fails"]
        assert (await worq.get_job_detail("sum")).function_name == "add"
        await worq.close()
        pool = (await app.server.pool()).redis
        z4j = ArqEngineAdapter(redis_settings=pool, queue_name=QUEUE)
        found = await z4j.reconcile_task("later")
        assert found.result["engine_state"] == "pending"
    await app.close()


asyncio.run(main())
