"""As in a project's own tests: fakeredis takes the place of a server."""

from datetime import date
from typing import Any

from arq import ArqRedis
from arq.worker import create_worker
from arq_runtime.worker.install import install
from fakeredis.aioredis import FakeRedis
from kit import App

Ctx = dict[str, Any]


async def add(ctx: Ctx, a: int, b: int) -> date:
    return date(2026, 1, a + b)


async def fails(ctx: Ctx) -> None:
    raise ValueError("no luck")


async def test_fakeredis_takes_the_place_of_a_server() -> None:
    install()
    app = App("redis://localhost:1")
    await app.server.set_pool(ArqRedis(FakeRedis().connection_pool))
    await app.enqueue(add, 1, 2, _job_id="sum")
    await app.enqueue(fails, _job_id="fails")
    await app.enqueue(add, 1, 2, _job_id="later", _defer_by=60)
    worker = create_worker(
        app.settings(add, fails, max_tries=1),  # type: ignore[arg-type]
        redis_pool=(await app.server.pool()).redis,
        burst=True,
        handle_signals=False,
    )
    worker.max_burst_jobs = 2
    await worker.main()
    found = [await app.lookup.get_job_status(job_id) for job_id in ("sum", "fails")]
    results = [one and one["result"] for one in found]
    assert results == [date(2026, 1, 3), "ValueError: no luck"]
    stats = await app.operations.queue_stats()
    assert (stats.deferred, stats.failed) == (1, 1)
    assert await app.operations.run_now("later")
    assert await app.operations.retry_job("fails")
    [failed] = await app.operations.list_jobs("queued", task="fails")
    assert failed.job_id == "fails"
    await app.close()
