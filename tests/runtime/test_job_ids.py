"""Job ids of one's own, and aborts by id."""

import asyncio
from typing import Any

from kit import QUEUE, WAIT_S, App, until

Ctx = dict[str, Any]


async def add(ctx: Ctx, a: int, b: int = 0) -> int:
    return a + b


async def wait(ctx: Ctx) -> None:
    await asyncio.sleep(60)


# --- An id again ----------------------------------------------------------------------


async def test_an_id_can_be_used_again_once_its_job_has_ended(app: App) -> None:
    app.settings(add)

    async def take(**options: Any) -> bool:
        return await app.client.enqueue(add, 1, _job_id="own", **options) is not None

    assert [await take(), await take(_defer_by=1), await take()] == [True, False, False]
    await app.burst(add)
    pool: Any = app.redis
    await pool.hset("arq:failed:own", "error", "of last night")
    await pool.zadd(f"{QUEUE}:failed", {"own": 1})
    assert [await take(), await take(_replace=True)] == [False, True]
    assert await app.failed("own") == {}
    assert await app.redis.zcard(f"{QUEUE}:failed") == 0
    await app.burst(add)
    forget = app.lookup.forget_job
    assert [await forget("own"), await forget("own"), await take()] == [
        *(True, False, True)
    ]


async def test_a_job_that_waits_is_replaced(app: App) -> None:
    """It runs once, as it was enqueued last."""
    for n in range(100):
        await app.enqueue(add, n, _job_id="own", _replace=True, _defer_by=0.1)
    assert await app.queued() == 1
    async with app.worker(add):
        assert (await app.result_of("own"))["r"] == 99
    assert await app.queued() == 0


async def test_a_job_that_runs_is_not_replaced(app: App) -> None:
    async with app.worker(wait) as worker:
        job = await app.enqueue(wait, _job_id="own")
        await until(lambda: worker.job_tasks)
        assert await app.client.enqueue(wait, _job_id="own", _replace=True) is None
        assert await app.lookup.abort_job(job.job_id)


async def test_one_of_many_callers_with_the_same_id_queues_it(app: App) -> None:
    calls = [app.client.enqueue(add, n, _job_id="own") for n in range(50)]
    found = await asyncio.gather(*calls)
    assert sum(job is not None for job in found) == 1
    assert await app.queued() == 1


# --- Aborts ---------------------------------------------------------------------------


async def test_an_id_is_never_aborted_for_an_earlier_job(app: App) -> None:
    """Neither unknown nor ended jobs are marked; an old mark goes with a new job."""
    abort = app.lookup.abort_job
    async with app.worker(add):
        assert not await abort("unknown", timeout=0)
        await app.redis.zadd("arq:abort", {"mine": 1, "gone": 1})
        assert not await abort("gone", timeout=0)
        job = await app.enqueue(add, 1, _job_id="mine")
        assert await app.redis.zcard("arq:abort") == 0
        assert await job.result(25) == 1
        assert not await abort("mine", timeout=0)
        assert await app.redis.zcard("arq:abort") == 0


async def test_a_waiting_job_is_aborted_in_whatever_queue_without_a_worker(
    app: App,
) -> None:
    await app.enqueue("x", _job_id="elsewhere", _queue_name="unheard of")
    await app.enqueue("x", _job_id="elsewhere2", _queue_name="unheard of")
    app.settings(add)
    app.settings(add, queue_name="high")
    abort = app.lookup.abort_job
    await app.enqueue(add, 1, _job_id="here")
    await app.enqueue(add, 1, _job_id="there", _queue_name="high")
    assert await abort("here")
    assert await abort("there")
    assert await abort("here")  # as one whose answer was lost is sent again
    assert await abort("elsewhere", _queue_name="unheard of")
    assert not await abort("elsewhere2", timeout=0)  # left to its worker
    status = await app.lookup.get_job_status("there")
    assert status and status["result"] == "CancelledError: aborted before it began"
    assert await app.redis.zrange("arq:abort", 0, -1) == [b"elsewhere2"]
    results = [f"arq:result:{name}" for name in ("elsewhere", "here", "there")]
    keys = sorted(key.decode() for key in await app.redis.keys())
    others = [key for key in keys if "reply" not in key and ":wake" not in key]
    assert others == [*("arq:abort", "arq:job:elsewhere2", *results, "unheard of")]


async def test_a_job_in_a_queue_unknown_here_is_aborted_by_its_worker(
    app: App, redis_url: str
) -> None:
    ran = []

    async def leave_a_trace(ctx: Ctx) -> None:
        ran.append(ctx["job_id"])

    leave_a_trace.__qualname__ = "leave_a_trace"
    for name in ("aborted", "runs"):
        await app.enqueue("leave_a_trace", _job_id=name, _queue_name="others")
    assert not await app.lookup.abort_job("aborted", timeout=0)
    others = App(redis_url, "others")
    await others.burst(leave_a_trace)
    await others.close()
    assert ran == ["runs"]
    for name, is_success in (("aborted", False), ("runs", True)):
        status = await app.lookup.get_job_status(name)
        assert status and status["success"] is is_success
    assert await app.redis.zcard("arq:abort") == 0
    assert await app.lookup.abort_job("aborted")


async def test_whoever_aborts_is_told_at_once_where_no_result_is_kept(app: App) -> None:
    async with app.worker(wait, keep_result=0) as worker:
        job = await app.enqueue(wait)
        await until(lambda: worker.job_tasks)
        abort = app.lookup.abort_job(job.job_id, timeout=600)
        assert await asyncio.wait_for(abort, WAIT_S)
