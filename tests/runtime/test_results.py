"""A result comes as soon as there is one; a time without a zone is one of UTC."""

import asyncio
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from arq_runtime.keys import DONE
from arq_runtime.worker.job import Context
from kit import App, until


async def double(ctx: Context, n: int) -> int:
    return 2 * n


async def later(ctx: Context, n: int) -> int:
    await asyncio.sleep(0.2)
    if n < 0:
        raise ValueError(f"{n}")
    return n


async def test_results_do_not_wait_for_a_poll(app: App) -> None:
    async with app.worker(double, later, max_tries=1):
        spent = []
        for n in range(10):
            began = time.monotonic()
            job = await app.enqueue(double, n)
            assert await job.result(25, poll_delay=20) == 2 * n
            spent.append(time.monotonic() - began)
        assert sorted(spent)[5] < 10
        began = time.monotonic()
        jobs = [await app.enqueue(later, n) for n in range(10)]
        assert await asyncio.gather(
            *(job.result(25, poll_delay=20) for job in jobs)
        ) == [*range(10)]
        with pytest.raises(Exception, match="ValueError: -1"):
            await (await app.enqueue(later, -1)).result(25, poll_delay=20)
        assert time.monotonic() - began < 15


async def test_a_result_arrives_without_its_message(app: App) -> None:
    """As of a job that a worker of arq's own has run; or after a lost connection."""
    job = await app.enqueue(later, 7)
    waiting = asyncio.create_task(job.result(25, poll_delay=0.1))
    await until(lambda: app.redis.pubsub_numsub(DONE + job.job_id))
    await app.redis.client_kill_filter(_type="pubsub")
    await asyncio.sleep(0.05)
    async with app.worker(later):
        assert await waiting == 7


async def test_those_who_wait_leave_no_connection(app: App) -> None:
    pool = (await app.queues.default.redis()).connection_pool
    job = await app.enqueue("double", 1, _defer_by=60)
    before = len(pool._in_use_connections)
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await job.result(0.05)
    assert len(pool._in_use_connections) == before
    assert len(pool._available_connections) <= 3


@pytest.mark.parametrize("zone", [None, UTC, timezone(timedelta(hours=5))])
@pytest.mark.parametrize("how", ["enqueue", "many", "job"])
async def test_defer_until_is_utc_where_it_has_no_zone(
    app: App, monkeypatch: pytest.MonkeyPatch, zone: timezone | None, how: str
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    until_ = due.replace(tzinfo=None) if zone is None else due.astimezone(zone)
    options: dict[str, Any] = {"_job_id": "a", "_defer_until": until_}
    if how == "enqueue":
        await app.enqueue("double", 1, **options)
    elif how == "many":
        await app.client.enqueue_many("double", [{"n": 1, **options}])
    else:
        await app.client.job(double, **options)(1)
    assert await app.redis.zscore(app.queue, "a") == due.timestamp() * 1000
    monkeypatch.undo()
    time.tzset()
