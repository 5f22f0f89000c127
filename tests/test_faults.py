"""What is promised when something breaks: a real server, workers as processes."""

import os
import signal
import subprocess
import textwrap
import threading
import time
from pathlib import Path

import pytest
import redis
from support import QUEUE, OwnRedis, Shop, wait_for

pytestmark = pytest.mark.slow

TASKS = """
    import asyncio

    from core.arq_worker import BaseWorkerSettings


    async def job(ctx, n, wait=0.0):
        await ctx["redis"].incr(f"started:{n}")
        await asyncio.sleep(wait)
        await ctx["redis"].incr(f"ran:{n}")
        return n


    class WorkerSettings(BaseWorkerSettings):
        functions = [job]
        log_results = False
"""


@pytest.fixture
def fault_shop(own_shop_with_queue: Shop) -> Shop:
    own_shop_with_queue.write_tasks(TASKS)
    return own_shop_with_queue


def counts(client: "redis.Redis[bytes]", name: str, ids: range) -> list[int]:
    return [int(value or 0) for value in client.mget([f"{name}:{n}" for n in ids])]


def test_a_killed_workers_job_runs_again(
    fault_shop: Shop, redis_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "first.log"
    with redis.Redis.from_url(redis_url) as client:
        own_lease = fault_shop / "core/tasks.py"
        own_lease.write_text(own_lease.read_text() + "    lease = 2\n")
        first = fault_shop.start_worker(redis_url, log)
        fault_shop.python(
            "result = (await enqueue('job', 1, wait=1.5)).job_id", redis_url
        )
        wait_for(lambda: client.get("started:1") == b"1", 10, log)
        first.kill()
        first.wait()
        assert client.get("ran:1") is None
        with fault_shop.worker(redis_url) as second:
            wait_for(lambda: client.get("ran:1") == b"1", 20, second.path)
        assert client.get("started:1") == b"2"
        assert client.zcard(QUEUE) == 0


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_finishes_its_jobs(
    fault_shop: Shop, redis_url: str, tmp_path: Path, stop: signal.Signals
) -> None:
    log = tmp_path / "worker.log"
    worker = fault_shop.start_worker(redis_url, log)
    fault_shop.python(
        "jobs = await enqueue_many('job', [{'n': n, 'wait': 2} for n in range(3)])\n"
        "result = None",
        redis_url,
    )
    with redis.Redis.from_url(redis_url) as client:
        wait_for(lambda: sum(counts(client, "started", range(3))) == 3, 10, log)
        worker.send_signal(stop)
        fault_shop.python("result = (await enqueue('job', 3)).job_id", redis_url)
        worker.wait(10)
        assert counts(client, "ran", range(4)) == [1, 1, 1, 0]
        assert client.zcard(QUEUE) == 1  # the one that came after the signal
    assert "Traceback" not in log.read_text()


def test_a_job_beyond_the_grace_period_runs_again(
    fault_shop: Shop, redis_url: str, tmp_path: Path
) -> None:
    tasks = fault_shop / "core/tasks.py"
    tasks.write_text(tasks.read_text() + "    job_completion_wait = 1\n")
    log = tmp_path / "worker.log"
    worker = fault_shop.start_worker(redis_url, log)
    fault_shop.python("result = (await enqueue('job', 1, wait=4)).job_id", redis_url)
    with redis.Redis.from_url(redis_url) as client:
        wait_for(lambda: client.get("started:1") == b"1", 10, log)
        worker.terminate()
        worker.wait(10)
        assert client.get("ran:1") is None
        with fault_shop.worker(redis_url) as second:
            wait_for(lambda: client.get("ran:1") == b"1", 10, second.path)


def test_redis_restarts_under_load(fault_shop: Shop, own_redis: OwnRedis) -> None:
    total = 600
    ids = range(total)
    with fault_shop.worker(own_redis.url) as worker:
        outcome: list[object] = []
        producer = threading.Thread(
            target=lambda: outcome.append(
                fault_shop.python(
                    "queued = 0\n"
                    f"for n in range({total}):\n"
                    "    await enqueue('job', n, wait=0.05, _job_id=f'j{n}')\n"
                    "    queued += 1\n"
                    "    await asyncio.sleep(0.005)\n"
                    "result = queued",
                    own_redis.url,
                )
            )
        )
        producer.start()
        with redis.Redis(port=own_redis.port, db=1) as client:
            wait_for(lambda: client.exists("arq:result:j100"), 20, worker.path)
        own_redis.stop()
        time.sleep(0.3)  # calls ride out as much
        own_redis.start()
        producer.join(60)
        assert outcome == [total]
        with redis.Redis(port=own_redis.port, db=1) as client:
            wait_for(lambda: client.zcard(QUEUE) == 0, 60, worker.path)
            results = client.mget([f"arq:result:j{n}" for n in ids])
            assert all(b'"s":true' in result for result in results)
            assert min(counts(client, "ran", ids)) >= 1
        assert worker.process.poll() is None


def test_dropped_connections(fault_shop: Shop, redis_url: str) -> None:
    with (
        fault_shop.worker(redis_url) as worker,
        redis.Redis.from_url(redis_url) as client,
    ):
        fault_shop.python(
            "jobs = await enqueue_many('job',\n"
            "    [{'n': n, 'wait': 0.1} for n in range(300)])\nresult = 0",
            redis_url,
        )
        for _ in range(10):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            time.sleep(0.2)
        wait_for(lambda: client.zcard(QUEUE) == 0, 30, worker.path)
        assert min(counts(client, "ran", range(300))) >= 1
        assert worker.process.poll() is None


def test_an_enqueue_wakes_the_worker_also_after_redis_was_away(
    fault_shop: Shop, own_redis: OwnRedis
) -> None:
    tasks = fault_shop / "core/tasks.py"
    tasks.write_text(tasks.read_text() + "    poll_delay = 30\n")
    with fault_shop.worker(own_redis.url) as worker:
        own_redis.stop()
        own_redis.start()
        time.sleep(2)  # it listens again
        fault_shop.python("result = (await enqueue('job', 1)).job_id", own_redis.url)
        with redis.Redis(port=own_redis.port, db=1) as client:
            wait_for(lambda: client.get("ran:1") == b"1", 10, worker.path)


def test_10000_jobs_over_two_workers_each_run_once(
    fault_shop: Shop, redis_url: str, tmp_path: Path
) -> None:
    total = 10_000
    log = tmp_path / "second.log"
    second = fault_shop.start_worker(redis_url, log)
    try:
        with (
            fault_shop.worker(redis_url, ARQ_MAX_JOBS="50") as first,
            redis.Redis.from_url(redis_url) as client,
        ):
            fault_shop.python(
                f"await enqueue_many('job', [{{'n': n}} for n in range({total})])\n"
                "result = 0",
                redis_url,
            )
            wait_for(lambda: client.zcard(QUEUE) == 0, 120, first.path)
            assert counts(client, "ran", range(total)) == [1] * total
    finally:
        second.terminate()
        second.wait(20)


STOCK = """
    import asyncio
    from arq import Worker
    from core.arq import get_redis_settings
    from core.arq_serializer import deserialize, serialize

    async def job(ctx, n, wait=0.0):
        await ctx["redis"].incr(f"ran:{n}")
        await ctx["redis"].incr("stock")

    async def main():
        worker = Worker(
            [job], redis_settings=get_redis_settings(), poll_delay=0.02,
            queue_name="arq:queue:shop",
            job_serializer=serialize, job_deserializer=deserialize,
        )
        assert type(worker).__module__ == "arq.worker"
        await worker.async_run()

    asyncio.run(main())
"""


def test_arqs_own_worker_shares_the_queue(fault_shop: Shop, redis_url: str) -> None:
    total = 3000
    stock = subprocess.Popen(
        [fault_shop.env / "bin/python", "-c", textwrap.dedent(STOCK)],
        cwd=fault_shop.root,
        env={**os.environ, **fault_shop.settings(redis_url)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with (
            fault_shop.worker(redis_url) as ours,
            redis.Redis.from_url(redis_url) as client,
        ):
            time.sleep(2)
            fault_shop.python(
                f"calls = [{{'n': n, 'wait': 0.005}} for n in range({total})]\n"
                "await enqueue_many('job', calls)\nresult = 0",
                redis_url,
            )
            wait_for(lambda: client.zcard(QUEUE) == 0, 60, ours.path)
            assert counts(client, "ran", range(total)) == [1] * total
            assert 0 < int(client.get("stock")) < total
    finally:
        stock.terminate()
        stock.wait(10)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x80\x04\x95\x1a\x00\x00\x00\x00\x00\x00\x00}\x94.",
        b'{"t":null,"f":"job","a":[1',
        b'{"t":null,"f":["job"],"a":[],"k":{},"et":1}',
        b'{"t":null,"f":"job","a":[],"k":{"__arq__":"UUID","value":"x"},"et":1}',
        b'{"t":null,"f":"job","a":7,"k":{},"et":1}',
        b'{"t":"x","f":"job","a":[1],"k":{},"et":1}',
        b'{"t":null,"f":"job","a":[1],"k":{},"et":"x"}',
        b'{"t":null,"f":"job","a":[1],"k":{},"et":1e99}',
        b'{"t":null,"f":"job","a":[],"k":{"no_such_argument":1},"et":1}',
        b"[]",
        b"null",
        b"",
    ],
)
def test_a_poisoned_payload_fails_alone(
    fault_shop: Shop, redis_url: str, payload: bytes
) -> None:
    tasks = fault_shop / "core/tasks.py"
    tasks.write_text(tasks.read_text() + "    max_tries = 1\n")
    with (
        fault_shop.worker(redis_url) as worker,
        redis.Redis.from_url(redis_url) as client,
    ):
        client.set("arq:job:poison", payload)
        client.zadd(QUEUE, {"poison": 1})
        fault_shop.python("result = (await enqueue('job', 5)).job_id", redis_url)
        wait_for(lambda: client.get("ran:5") == b"1", 10, worker.path)
        wait_for(lambda: client.zcard(QUEUE) == 0, 10, worker.path)
        status = fault_shop.python("result = await get_job_status('poison')", redis_url)
        assert status["success"] is False
        assert worker.process.poll() is None
