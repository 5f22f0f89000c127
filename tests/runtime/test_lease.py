"""A claim is a lease, the head of the queue is free work, and time is Redis' own."""

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from arq_runtime.worker.job import End
from arq_runtime.worker.loop import Loop
from kit import QUEUE, App, until
from noting import Notes, block, job, once_slow, plain
from processes import PYTHON, Processes

pytestmark = pytest.mark.slow

#: arq's own worker, also where ours has taken its place.
ArqWorker: Any = Loop.__base__


async def test_a_killed_workers_jobs_run_again_when_its_lease_ends(
    app: App, processes: Processes, notes: Notes
) -> None:
    first = await processes.start(lease=1, job_timeout=3600)
    job_id = (await app.enqueue("once_slow", "a")).job_id
    await notes.started("a")
    first.kill()
    async with app.worker(once_slow, lease=1, job_timeout=3600, ctx={"who": "second"}):
        assert (await app.result_of(job_id))["r"] == "second"
    assert [event.who for event in notes.starts("a")] == [str(first.pid), "second"]
    assert await app.queued() == 0
    assert not await app.redis.exists(
        f"arq:in-progress:{job_id}", f"arq:retry:{job_id}"
    )


async def test_a_lease_is_a_minute(app: App, notes: Notes) -> None:
    async with app.worker(once_slow, job_timeout=3600) as worker:
        before = await app.now() + 60_000
        job_id = (await app.enqueue(once_slow, "a")).job_id
        await notes.started("a")
        await until(lambda: not worker.leases._handed)  # its first lease was shorter
        key = f"arq:in-progress:{job_id}"
        ends = await app.now() + await app.redis.pttl(key)
        assert before - 1 <= ends <= await app.now() + 60_000
        ends = await app.redis.zscore(QUEUE, job_id)
        assert before - 1 <= ends <= await app.now() + 60_000


async def test_a_lease_is_renewed_while_the_job_runs(app: App, notes: Notes) -> None:
    options = {"lease": 3, "max_jobs": 1}  # only the other one could take it
    async with app.worker(job, **options), app.worker(job, **options):
        renewed = await app.enqueue(job, "renewed", 600)
        await notes.started("renewed")
        for _ in range(2):  # one lease after another
            ends = await app.redis.zscore(QUEUE, renewed.job_id)
            await until(partial(_ends_after, app, renewed.job_id, ends + 3000))
        notes.let_go("renewed")
        assert await renewed.result(25) == "renewed"
    assert len(notes.starts("renewed")) == 1


async def _ends_after(app: App, job_id: str, time_ms: float) -> bool:
    return bool(await app.redis.zscore(QUEUE, job_id) > time_ms)


async def test_who_was_frozen_and_lost_its_lease_cannot_finish_the_job(
    app: App, processes: Processes, notes: Notes
) -> None:
    first = await processes.start(lease=0.5)
    jobs = {
        "ends": await app.enqueue("once_slow", "ends"),
        "fails": await app.enqueue("once_slow", "fails", fails=True),
    }
    runs = await app.enqueue("job", "runs", 600)
    for name in (*jobs, "runs"):
        await notes.started(name)
    first.freeze()
    async with app.worker(once_slow, job, ctx={"who": "second"}):
        for running in jobs.values():
            assert (await app.result_of(running.job_id))["r"] == "second"
        await notes.started("runs", 2)
        for name in (*jobs, "runs"):
            notes.let_go(name, first.pid)
        first.thaw()
        assert await first.stop() == 0  # it has dealt with its jobs now
        notes.let_go("runs")
        assert (await app.result_of(runs.job_id))["t"] == 2
    await nothing_of_the_first_is_kept(app, notes, jobs)


async def test_who_was_blocked_and_lost_its_lease_cannot_finish_the_job(
    app: App, processes: Processes, notes: Notes
) -> None:
    first = await processes.start(lease=0.5)
    jobs = {"blocks": await app.enqueue("block", "blocks", 600)}
    [start] = await notes.started("blocks")
    async with app.worker(block, ctx={"who": "second"}):
        assert (await app.result_of(jobs["blocks"].job_id))["r"] == "second"
        await until(lambda: time.time() > start.at + 5)  # long enough to be said
        notes.let_go("blocks")
        await notes.ended("blocks", 2)
        await first.wait_for("blocked")
        seconds = re.search(r"blocked.*?(\d+) s", first.text)
        assert seconds and 2 < int(seconds[1]) < 60
        assert await first.stop() == 0
    await nothing_of_the_first_is_kept(app, notes, jobs)


async def nothing_of_the_first_is_kept(
    app: App, notes: Notes, jobs: dict[str, Any]
) -> None:
    for name, run in jobs.items():
        result = await app.result_of(run.job_id)
        assert (result["s"], result["r"]) == (True, "second")
        assert len(notes.starts(name)) == 2
        assert not await app.failed(run.job_id)
    assert await app.queued() == 0
    assert not await app.redis.keys("arq:retry:*")
    assert not await app.redis.keys("arq:in-progress:*")


async def calls(app: App, *commands: str) -> int:
    """How many of these commands there were, or of all; those in scripts too."""
    stats = await app.redis.info("commandstats")
    return sum(
        stat["calls"]
        for name, stat in stats.items()
        if not commands or name.removeprefix("cmdstat_") in commands
    )


@pytest.mark.parametrize("whose", ["of ours", "of arq's"])
async def test_running_jobs_are_not_in_the_way(
    own_app: App, notes: Notes, whose: str
) -> None:
    """Counted in Redis' commands, which do not depend on the machine."""
    app = own_app

    async def cost(name: str) -> int:
        before = await calls(app)
        for n in range(20):
            await app.enqueue(job, f"{name}-{n}")
            await notes.started(f"{name}-{n}")
        return await calls(app) - before

    async with app.worker(job, poll_delay=600, health_check_interval=600):
        alone = await cost("alone")
        total, now = 5_000, await app.now()
        async with app.redis.pipeline() as pipe:
            for n in range(total):
                pipe.set(f"arq:job:held-{n}", "{}", px=600_000)
                pipe.set(f"arq:in-progress:held-{n}", "1", px=600_000)
                due = now + 600_000 if whose == "of ours" else now - n
                pipe.zadd(QUEUE, {f"held-{n}": due})
            await pipe.execute()
        if whose == "of arq's":  # these are put out of the way once, for some seconds
            await app.enqueue(job, "first")
            await until(lambda: due_jobs_are_gone(app))
        assert await cost("beside") < 1.5 * alone
    assert not notes.events("held")
    assert await app.queued() == total


async def due_jobs_are_gone(app: App) -> bool:
    return not await app.redis.zcount(QUEUE, "-inf", await app.now())


async def test_an_enqueue_asks_nothing_of_busy_workers(
    own_app: App, notes: Notes
) -> None:
    app = own_app
    async with AsyncExitStack() as workers:
        for n in range(8):
            await workers.enter_async_context(
                app.worker(once_slow, plain, max_jobs=1, poll_delay=600)
            )
            await app.enqueue(once_slow, f"busy-{n}")
            await notes.started(f"busy-{n}")
        before = await calls(app), await calls(app, "evalsha")
        for n in range(200):
            await app.enqueue(plain, n)
        asked = await calls(app) - before[0]
        assert await calls(app, "evalsha") - before[1] < 200 + 10
        # of enqueue, its script and what it calls: EVALSHA, TIME, GET, PSETEX, ZADD,
        # SET, PUBLISH
        assert asked < 200 * 7 + 200, asked
        assert await app.redis.zcount(QUEUE, "-inf", await app.now()) == 200


@contextmanager
def arq_worker(app: App, *functions: Any, **options: Any) -> Iterator[Any]:
    """arq's own worker, with the application's queue and serializer."""
    worker = ArqWorker(
        functions,
        queue_name=QUEUE,
        redis_settings=app.redis_settings,
        job_serializer=app.serializer.serialize,
        job_deserializer=app.serializer.deserialize,
        handle_signals=False,
        **options,
    )
    assert type(worker).__module__ == "arq.worker"
    yield worker


@pytest.mark.filterwarnings("ignore:Call to deprecated close")
async def test_arqs_own_worker_shares_the_queue(app: App, notes: Notes) -> None:
    total = 500
    with arq_worker(app, job, poll_delay=0.02, ctx={"who": "arq"}) as stock:
        running = asyncio.create_task(stock.async_run())
        app.settings(job)
        calls = [{"name": n, "wait": 0.05} for n in range(total)]
        await app.client.enqueue_many(job, calls)
        await until(notes.starts)
        async with app.worker(job, ctx={"who": "ours"}):
            await until(lambda: drained(app), 60)
        await stock.close()
        with pytest.raises(asyncio.CancelledError):
            await running
    ends = notes.ends()
    assert sorted(int(event.name) for event in ends) == list(range(total))
    assert {event.who for event in ends} == {"arq", "ours"}


async def drained(app: App) -> bool:
    return await app.queued() == 0


async def test_a_job_of_a_killed_arq_worker_is_taken_when_its_claim_ends(
    app: App, notes: Notes
) -> None:
    async with app.worker(job):
        before = await app.now()
        await app.redis.set("arq:in-progress:a", "1", px=1000)
        await app.enqueue(job, "a", _job_id="a")
        await app.enqueue(job, "b", _job_id="b")
        for name in "ba":
            assert (await app.result_of(name))["s"]
    [start] = notes.starts("a")
    assert start.at * 1000 >= before + 1000


@pytest.mark.parametrize("skew", [-30, 30])
async def test_time_is_redis_own(
    app: App, processes: Processes, notes: Notes, skew: int
) -> None:
    """On a host whose clock is half a minute wrong; see clock/sitecustomize.py."""
    worker = await processes.start(
        paths=[Path(__file__).parent / "clock"],
        env={"SKEW": str(skew)},
        # by env, with all that Python does at its start
        command=["env", PYTHON, "-m", "arq", "fault_tasks.WorkerSettings"],
        lease=1,
    )
    await app.enqueue("job", "now", 2)
    [started] = await notes.started("now")
    assert abs(started.at - await app.now() / 1000 - skew) < 15  # the clock is wrong
    due = await app.now() + 1000
    await app.enqueue("job", "later", _defer_by=1)
    await notes.started("later")
    assert await app.now() >= due
    await app.enqueue("fail", "again", times=1, _job_id="again")
    assert (await app.result_of("again"))["r"] == 2
    await notes.ended("now")
    assert len(notes.starts("now")) == 1
    assert worker.lives


async def test_a_job_that_its_own_worker_claims_anew_runs_once(
    app: App, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    """After a failover to a replica that knew neither the claim nor the try, say."""
    async with app.worker(job, max_jobs=2):
        running = await app.enqueue(job, "a", 600)
        await notes.started("a")
        async with app.redis.pipeline() as pipe:
            pipe.delete(f"arq:in-progress:{running.job_id}")
            pipe.delete(f"arq:retry:{running.job_id}")
            pipe.zadd(QUEUE, {running.job_id: await app.now()})
            pipe.rpush(f"{QUEUE}:wake", "")
            await pipe.execute()
        await until(lambda: "was claimed again while it runs here" in caplog.text)
        assert await app.redis.exists(f"arq:in-progress:{running.job_id}")
        notes.let_go("a")
        assert await running.result(25) == "a"
    assert "Traceback" not in caplog.text
    assert len(notes.starts("a")) == 1
    assert await app.queued() == 0


async def test_a_renewal_that_comes_after_the_end_takes_nothing(app: App) -> None:
    """They go over two connections, so Redis may have them in either order."""
    worker = app.new_worker(job)
    worker._open()
    leases = worker.leases
    leases._on_claimed = lambda job: None
    await app.enqueue(job, "a", _job_id="a")
    await leases.claim(lambda: 1)
    [held] = leases.held.values()
    await worker.ends.finish(held, End("retry", "retried", details={"error": "no"}))
    leases.held["a"], leases.renew_at = held, 0
    await leases.renew()
    assert not await app.redis.exists("arq:in-progress:a")
    assert await app.redis.zscore(QUEUE, "a") <= await app.now()
    leases.held.clear()
    await worker.close()
