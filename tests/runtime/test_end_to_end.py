"""What a client and a worker do together, on a real server."""

import asyncio
import json
import logging
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import arq
import pytest
from arq import func
from arq.jobs import Job as ArqJob
from arq.worker import Worker as ArqWorker
from arq_runtime.values import TaskError
from kit import QUEUE, App, until
from pydantic import BaseModel

Ctx = dict[str, Any]


async def add(ctx: Ctx, a: int, b: int = 0) -> int:
    return a + b


async def names(ctx: Ctx, function: str, queue: str) -> list[str]:
    return [function, queue]


async def echo(ctx: Ctx, value: Any) -> Any:
    return value


async def types(ctx: Ctx, value: Any) -> str:
    return repr(value)


async def slow(ctx: Ctx) -> None:
    await asyncio.sleep(60)


async def once(ctx: Ctx) -> None:
    raise ValueError("never again")


ONCE = func(once, max_tries=1)


# --- Connections ----------------------------------------------------------------------


async def test_first_uses_at_once_share_one_pool(app: App) -> None:
    before = {one["id"] for one in await app.redis.client_list()}
    pools = await asyncio.gather(*[app.server.pool() for _ in range(50)])
    assert len({id(pool) for pool in pools}) == 1
    after = {one["id"] for one in await pools[0].redis.client_list()}
    assert len(after - before) == 1


async def test_a_closed_pool_opens_again(app: App) -> None:
    first = await app.server.pool()
    assert await app.enqueue("add", 1)
    await app.queues.close()
    await app.queues.close()
    assert await app.server.pool() is not first
    assert await app.enqueue("add", 1)


# --- Enqueue --------------------------------------------------------------------------


async def test_enqueue_takes_a_name_or_the_task(app: App) -> None:
    async with app.worker(add, names):
        jobs = [
            await app.enqueue("add", 1, b=2),
            await app.enqueue(add, 1, b=3),
            await app.enqueue("names", function="f", queue="q"),
        ]
        assert [await job.result(25) for job in jobs] == [3, 4, ["f", "q"]]


async def test_a_job_id_that_is_there_already_gives_none(app: App) -> None:
    async def count_new() -> int:
        calls = [app.client.enqueue("add", 1, _job_id="sync-1") for _ in range(20)]
        return sum(job is not None for job in await asyncio.gather(*calls))

    assert await count_new() == 1
    await app.burst(add)
    assert await count_new() == 0  # its result is kept


async def test_deferred_jobs(app: App) -> None:
    async with app.worker(add):
        in_an_hour = datetime.now(UTC) + timedelta(hours=1)
        for options in ({"_defer_by": 3600}, {"_defer_until": in_an_hour}):
            job = await app.enqueue(add, 1, **options)
            status = await app.lookup.get_job_status(job.job_id)
            assert status and status["status"] == "deferred"
        until_then = datetime.now(UTC) + timedelta(seconds=0.5)
        jobs = [
            await app.enqueue(add, 1, _defer_by=0.5),
            await app.enqueue(add, 2, _defer_until=until_then),
        ]
        assert [await job.result(25) for job in jobs] == [1, 2]
        by, at = [await app.result_of(job.job_id) for job in jobs]
        assert by["st"] - by["et"] > 450
        assert at["st"] > until_then.timestamp() * 1000 - 50


async def test_an_expired_job_is_dropped(app: App) -> None:
    job = await app.enqueue(add, 1, _expires=0.05)
    key = f"arq:job:{job.job_id}"

    async def is_gone() -> bool:
        return not await app.redis.exists(key)

    await until(is_gone)
    await app.burst(add)
    status = await app.lookup.get_job_status(job.job_id)
    assert status is not None and status["success"] is False
    assert "job expired" in status["result"]


async def test_enqueue_many(app: App) -> None:
    calls = [{"a": n, "b": 1} for n in range(1100)]
    jobs = await app.client.enqueue_many("add", calls)
    await app.burst(add, max_jobs=100)
    keys = [f"arq:result:{job.job_id}" for job in jobs if job]
    results = [json.loads(found) for found in await app.redis.mget(keys)]
    assert [one["r"] for one in results] == [n + 1 for n in range(1100)]
    same = [{"a": 1, "_job_id": "x"}, {"a": 2, "_job_id": "x"}]
    jobs = await app.client.enqueue_many(add, same)
    assert [job is None for job in jobs] == [False, True]


# --- Beside arq's own client and worker -----------------------------------------------


@pytest.mark.usefixtures("short_waits")
async def test_arqs_own_client_and_our_worker(app: App) -> None:
    pool = await arq.create_pool(
        app.redis_settings,
        job_serializer=app.serializer.serialize,
        job_deserializer=app.serializer.deserialize,
        default_queue_name=QUEUE,
    )
    async with app.worker(add):
        job = await pool.enqueue_job("add", 40, b=2)
        assert job is not None
        assert await pool.enqueue_job("add", 1, _job_id=job.job_id) is None
        assert await job.result(25, poll_delay=0.02) == 42
        info = await job.info()
        assert info is not None and info.function == "add"
    await pool.aclose()


async def test_our_client_and_arqs_own_worker(app: App) -> None:
    job = await app.enqueue("add", 40, b=2)
    worker = ArqWorker(
        [add],
        burst=True,
        handle_signals=False,
        redis_settings=app.redis_settings,
        job_serializer=app.serializer.serialize,
        job_deserializer=app.serializer.deserialize,
        poll_delay=0,
        queue_name=QUEUE,
    )
    assert type(worker).__module__ == "arq.worker"
    await worker.async_run()
    assert worker.jobs_complete == 1
    await worker.close()
    assert await job.result(1) == 42


# --- Status and abort -----------------------------------------------------------------

KEYS = [
    "job_id",
    "status",
    "function",
    "args",
    "kwargs",
    "job_try",
    "enqueue_time",
    "score",
    "success",
    "result",
    "start_time",
    "finish_time",
    "progress",
    "waits_for",
]


async def status_of(app: App, job_id: str) -> dict[str, Any]:
    status = await app.lookup.get_job_status(job_id)
    assert status is not None
    assert list(status) == KEYS
    return status


async def test_status_of_an_unknown_job(app: App) -> None:
    assert await app.lookup.get_job_status("nope") is None


async def test_status_from_queued_to_complete(app: App) -> None:
    await app.enqueue("add", 1, b=2, _job_id="j")
    queued = await status_of(app, "j")
    assert queued["status"] == "queued"
    assert (queued["args"], queued["kwargs"]) == ((1,), {"b": 2})
    assert queued["success"] is None
    async with app.worker(add, slow):
        await app.result_of("j")
        done = await status_of(app, "j")
        assert (done["status"], done["success"]) == ("complete", True)
        assert (done["result"], done["job_try"]) == (3, 1)
        await app.enqueue(slow, _job_id="s")
        await until(lambda: app.redis.exists("arq:in-progress:s"))
        assert (await status_of(app, "s"))["status"] == "in_progress"
        assert await app.lookup.abort_job("s")


async def test_a_failure_is_readable(app: App) -> None:
    job = await app.enqueue("once")
    await app.burst(ONCE)
    status = await status_of(app, job.job_id)
    assert status["success"] is False
    assert status["result"] == "ValueError: never again"
    with pytest.raises(TaskError, match=r"^ValueError: never again$"):
        await job.result(1)


async def test_status_of_what_cannot_be_decoded(app: App) -> None:
    await app.redis.set("arq:result:broken", b"\x80\x04pickle")
    status = await status_of(app, "broken")
    assert status["status"] == "complete"
    assert "unable to deserialize" in status["result"]


async def test_abort(app: App) -> None:
    async with app.worker(add, slow):
        await app.enqueue(slow, _job_id="running")
        await app.enqueue(add, 1, _job_id="waiting", _defer_by=60)
        await until(lambda: app.redis.exists("arq:in-progress:running"))
        names = ("running", "waiting", "unknown")
        aborted = [await app.lookup.abort_job(name) for name in names]
        assert aborted == [True, True, False]
        for name in ("running", "waiting"):
            assert "CancelledError" in (await status_of(app, name))["result"]


async def test_a_job_past_its_timeout_fails(app: App) -> None:
    job = await app.enqueue("slow")
    await app.burst(slow, job_timeout=0.1, max_tries=1)
    assert (await status_of(app, job.job_id))["result"].startswith("TimeoutError")


# --- Queues and chains ----------------------------------------------------------------


async def test_each_queue_has_its_own_worker(app: App) -> None:
    app.settings(add)  # that of the default queue, whose worker does not run
    async with app.worker(add, queue_name="high"):
        normal = await app.enqueue(add, 2)
        high = [await app.enqueue(add, n, _queue_name="high") for n in range(3)]
        assert [await job.result(25) for job in high] == [0, 1, 2]
        assert (await status_of(app, normal.job_id))["status"] == "queued"


async def test_chained_tasks(app: App) -> None:
    async def chained(ctx: Ctx, value: int) -> str:
        return (await app.enqueue(echo, value * 2)).job_id

    async with app.worker(echo, func(chained, name="chained")):
        job_id = await (await app.enqueue("chained", 21)).result(25)
        deserialize = app.serializer.deserialize
        second: ArqJob = ArqJob(job_id, app.redis, QUEUE, deserialize)
        assert await second.result(25, poll_delay=0.02) == 42


# --- Values ---------------------------------------------------------------------------


async def test_values_come_back_as_they_were(app: App) -> None:
    values = [
        *(None, True, 1, 1.5, "ü", [1, [2]], {"a": {"b": 1}}),
        *(datetime(2026, 1, 2, 3, 4, 5, 6, UTC), datetime(2026, 1, 2)),
        *(date(2026, 1, 2), time(1, 2), timedelta(days=1, microseconds=5)),
        *(Decimal("1.10"), uuid4(), b"\x00\xff", {1, 2}, frozenset([3])),
        *({"__arq__": "no such tag"}, {"$date": "2026-01-01"}),
    ]
    jobs = await app.client.enqueue_many("echo", [{"value": one} for one in values])
    await app.burst(echo)
    for job, value in zip(jobs, values, strict=True):
        assert job is not None
        back = await job.result(1)
        assert back == value and type(back) is type(value)


class User(BaseModel):
    id: UUID


@dataclass
class Point:
    x: int


async def test_models_and_dataclasses_come_back_as_dicts(app: App) -> None:
    values = [User(id=UUID(int=1)), Point(1), (1, 2)]
    jobs = await app.client.enqueue_many("types", [{"value": one} for one in values])
    await app.burst(types)
    assert [job and await job.result(1) for job in jobs] == [
        "{'id': UUID('00000000-0000-0000-0000-000000000001')}",
        "{'x': 1}",
        "(1, 2)",
    ]


async def test_pickle(redis_url: str) -> None:
    app = App(redis_url, format="pickle")
    job = await app.enqueue("types", (1, 2j))
    failing = await app.enqueue("once")
    await app.burst(types, ONCE)
    assert await job.result(1) == "(1, 2j)"
    status = await status_of(app, failing.job_id)
    assert status["result"] == "ValueError: never again"
    await app.close()


async def test_no_code_runs_from_what_is_in_redis(app: App, tmp_path: Path) -> None:
    """A pickle that would create a file when it is loaded."""
    mark = tmp_path / "owned"
    await app.redis.set("arq:job:evil", f"cos\nsystem\n(S'touch {mark}'\ntR.")
    await app.redis.zadd(QUEUE, {"evil": 1})
    await app.burst(add)
    assert await app.redis.exists("arq:result:evil")
    assert not mark.exists()


# --- The worker -----------------------------------------------------------------------


async def test_max_burst_jobs(app: App) -> None:
    await app.client.enqueue_many("add", [{"a": n} for n in range(5)])
    worker = app.new_worker(add, burst=True)
    assert await worker.run_check(max_burst_jobs=2) == 2
    assert await app.queued() == 3
    await worker.close()


async def test_log_lines_carry_the_job(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    structlog = pytest.importorskip("structlog")
    structlog.reset_defaults()
    found: list[dict[str, Any]] = []

    async def task(ctx: Ctx) -> None:
        found.append(structlog.contextvars.get_contextvars())

    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        await app.enqueue("task", _job_id="my-job")
    with caplog.at_level(logging.INFO):
        await app.burst(func(task, name="task"))
    assert found == [{"request_id": "r-1", "job_id": "my-job", "job_try": 1}]
    assert structlog.contextvars.get_contextvars() == {}
