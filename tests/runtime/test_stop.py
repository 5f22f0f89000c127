"""Stopping: jobs get their time, nothing is left behind, and the exit code is 0."""

import asyncio
import signal
from collections import Counter

import pytest
from kit import QUEUE, App, until
from noting import Notes, job
from processes import Processes
from proxy import Proxy
from support import OwnRedis

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_worker_finishes_its_jobs(
    app: App, processes: Processes, notes: Notes, stop: signal.Signals
) -> None:
    worker = await processes.start()
    jobs = [await app.enqueue("job", n, 0.7) for n in range(3)]
    for n in range(3):
        await notes.started(n)
    worker.send(stop)
    await worker.wait_for(stop.name)
    late = await app.enqueue("job", "late")
    assert await worker.exit_code() == 0
    for ended in jobs:
        assert (await app.result_of(ended.job_id))["s"]
    assert not notes.events("late")
    assert await app.redis.zrange(QUEUE, 0, -1) == [late.job_id.encode()]
    assert not await app.redis.keys("arq:in-progress:*")
    assert "Traceback" not in worker.text


@pytest.mark.parametrize("twice", [False, True])
async def test_a_job_beyond_its_time_is_given_back(
    app: App, processes: Processes, notes: Notes, twice: bool
) -> None:
    """It is free at once, and its try does not count: it has only one."""
    worker = await processes.start(job_completion_wait=600 if twice else 1, max_tries=1)
    job_id = (await app.enqueue("job", "a", 600)).job_id
    await notes.started("a")
    worker.send(signal.SIGTERM)
    if twice:
        await worker.wait_for("SIGTERM")
        worker.send(signal.SIGINT)
    assert await worker.exit_code() == 0
    assert "Traceback" not in worker.text
    assert not notes.ends("a")
    assert await app.redis.zscore(QUEUE, job_id) <= await app.now()
    assert not await app.redis.exists(f"arq:in-progress:{job_id}")
    for _ in range(0 if twice else 2):  # deploys in a row
        before = len(notes.starts("a"))
        worker = await processes.start(job_completion_wait=0, max_tries=1)
        await notes.started("a", before + 1)
        assert await worker.stop() == 0
    notes.let_go("a")
    async with app.worker(job, max_tries=1):
        assert (await app.result_of(job_id))["s"]


@pytest.mark.parametrize("how", ["refused", "silent"])
async def test_a_stop_while_redis_is_away(
    own_app: App,
    own_processes: Processes,
    own_redis: OwnRedis,
    notes: Notes,
    how: str,
) -> None:
    worker = await own_processes.start(
        job_completion_wait=1,
        lease=2,
        constants={"arq_runtime.worker.worker.STOP_S": 0.7},
    )
    await own_app.enqueue("job", "ends", 0.5)
    await own_app.enqueue("job", "does not", 60)
    await notes.started("does not")
    own_redis.kill() if how == "refused" else own_redis.freeze()
    worker.send(signal.SIGTERM)
    assert await worker.exit_code() == 0
    assert notes.ends("ends")
    assert "Traceback" not in worker.text


async def test_a_stop_of_a_worker_that_never_had_redis(
    own_processes: Processes, own_redis: OwnRedis
) -> None:
    own_redis.stop()
    worker = await own_processes.start(ready=False)
    await worker.wait_for("refused")
    assert await worker.stop() == 0
    assert "Traceback" not in worker.text


@pytest.mark.parametrize("wait", [0.0, 0.03, 0.07])
async def test_a_stop_in_the_middle_of_a_claim(
    own_app: App,
    own_processes: Processes,
    own_redis: OwnRedis,
    notes: Notes,
    wait: float,
) -> None:
    total, app = 2000, own_app
    with Proxy(own_redis.port) as proxy:
        url = own_redis.url.replace(str(own_redis.port), str(proxy.port))
        worker = await own_processes.start(url=url, max_jobs=50)
        proxy.latency = 0.05
        calls = [{"name": n, "_job_id": f"j{n}"} for n in range(total)]
        await app.client.enqueue_many("job", calls)
        await until(notes.events)
        await asyncio.sleep(wait)  # to meet the claim at another point each time
        assert await worker.stop() == 0
        assert "Traceback" not in worker.text
    ended = {event.name for event in notes.ends()}
    assert 0 < len(ended) < total
    assert not await app.redis.keys("arq:in-progress:*")
    assert await app.queued() == total - len(ended)
    assert await app.redis.zcount(QUEUE, await app.now() + 1, "+inf") == 0
    tries = await app.redis.mget([f"arq:retry:j{n}" for n in range(total)])
    assert {int(value or 0) for value in tries} == {0}
    await app.burst(job, max_jobs=50)
    starts = Counter(event.name for event in notes.starts())
    assert len(starts) == total and set(starts.values()) == {1}


async def test_a_stop_while_the_answer_to_a_claim_is_on_its_way(
    own_app: App, own_redis: OwnRedis, notes: Notes
) -> None:
    app = own_app
    with Proxy(own_redis.port) as proxy:
        behind = App(own_redis.url.replace(str(own_redis.port), str(proxy.port)))
        async with behind.worker(job):
            proxy.latency = 1.0
            await app.enqueue("job", "a", _job_id="a")
            await until(lambda: app.redis.exists("arq:in-progress:a"))
        await behind.close()
    assert not notes.events()
    assert not await app.redis.exists("arq:in-progress:a")
    assert await app.redis.get("arq:retry:a") == b"0"
    assert await app.redis.zscore(QUEUE, "a") <= await app.now()


async def test_workers_come_and_go_under_load(
    app: App, processes: Processes, notes: Notes
) -> None:
    """Deploys, while jobs come in: each runs, once."""
    total = 1000

    async def enqueue() -> None:
        for start in range(0, total, 50):
            names = range(start, start + 50)
            await app.client.enqueue_many(
                "job", [{"name": name, "wait": 0.01} for name in names]
            )
            await asyncio.sleep(0.05)

    enqueueing = asyncio.create_task(enqueue())
    for _ in range(2):
        starting = [processes.start(max_jobs=20) for _ in range(2)]
        workers = await asyncio.gather(*starting)
        await until(notes.starts)
        for worker in workers:
            worker.send(signal.SIGTERM)
        for worker in workers:
            assert await worker.exit_code() == 0
            assert "Traceback" not in worker.text
    await enqueueing
    await app.burst(job, max_jobs=50)
    starts = Counter(event.name for event in notes.starts())
    assert len(starts) == total and set(starts.values()) == {1}
    assert len({event.who for event in notes.starts()}) > 1
