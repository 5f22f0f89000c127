"""How much is asked of Redis, and cron jobs over several workers."""

import os
import subprocess
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
import redis
from faults import Faults
from support import Shop

pytestmark = pytest.mark.slow


@contextmanager
def commands(url: str) -> Iterator[Counter[str]]:
    """Counts what clients send meanwhile, by command: not what scripts call."""
    counts: Counter[str] = Counter()
    done = f"done-{uuid4()}"

    def watch() -> None:
        for seen in monitor.listen():
            if seen["command"] == f"ECHO {done}":
                return
            name = seen["command"].split()[0].upper()
            if seen["client_type"] != "lua" and name not in SETTING_UP:
                counts[name] += 1

    with redis.Redis.from_url(url) as client, client.monitor() as monitor:
        thread = threading.Thread(target=watch)
        thread.start()
        yield counts
        client.echo(done)
        thread.join()


SETTING_UP = {"HELLO", "AUTH", "SELECT", "CLIENT", "INFO", "PING", "DBSIZE"}

STOCK_BURST = """
    import arq.worker
    Worker = arq.worker.Worker  # before ours takes its place
    from core import tasks
    from core.arq import get_redis_settings
    from core.arq_serializer import deserialize, serialize

    worker = Worker(
        [tasks.job], queue_name="arq:queue:faults", burst=True,
        redis_settings=get_redis_settings(), max_jobs=10,
        job_serializer=serialize, job_deserializer=deserialize,
    )
    assert type(worker).__module__ == "arq.worker"
    worker.run()
"""


def test_a_burst_that_waits_is_as_quiet_as_arqs(own_faults: Faults) -> None:
    faults = own_faults
    counts = []
    for ours in (True, False):
        faults.client.flushdb()
        faults.put("job", "deferred", due_in=4)
        faults.client.set("arq:in-progress:foreign", "1", px=4000)
        faults.put("job", "foreign", job_id="foreign")
        with commands(faults.url) as seen:
            if ours:
                assert faults.start("--burst", ready=False).exit_code() == 0
            else:
                stock(faults)
        counts.append(seen)
    assert len(faults.events("deferred", "end")) == 2
    assert len(faults.events("foreign", "end")) == 2
    assert counts[0].total() <= counts[1].total(), counts


def stock(faults: Faults) -> None:
    shop: Shop = faults.shop
    env = {**os.environ, **shop.settings(faults.url), "EVENTS": str(faults.file)}
    subprocess.run(
        [shop.env / "bin/python", "-c", textwrap.dedent(STOCK_BURST)],
        cwd=shop.root,
        env=env,
        check=True,
        timeout=30,
        stderr=subprocess.DEVNULL,
    )


def test_an_idle_worker_asks_twice_a_second(own_faults: Faults) -> None:
    """Its poll_delay is half a second. The CPU it takes: see benchmarks/."""
    own_faults.start(health_check_interval=600)
    job_id = own_faults.put("job", "a")
    own_faults.wait_result(job_id)
    with commands(own_faults.url) as seen:
        own_faults.put("job", "later", due_in=5)
        time.sleep(4)
    assert seen["EVALSHA"] <= 10
    assert seen.total() - seen["EVALSHA"] <= 6, seen  # those of put


CRON = """
    import asyncio

    from arq import cron
    from arq.worker import create_worker
    from core.tasks import BaseWorkerSettings, note


    async def tick(ctx):
        note("start", ctx["job_id"])


    def settings(poll):
        ticks = cron(tick, name=f"tick-{poll}", second=set(range(0, 60, 3)))
        options = {
            "cron_jobs": [ticks],
            "queue_name": f"arq:queue:cron-{poll}",
            "poll_delay": float(poll),
            "handle_signals": False,
        }
        return type("WorkerSettings", (BaseWorkerSettings,), options)


    async def main():
        workers = [create_worker(settings(poll)) for poll in ("0.5", "2", "5")]
        await asyncio.gather(*(worker.async_run() for worker in workers))


    if __name__ == "__main__":
        asyncio.run(main())
"""


def test_each_tick_once_over_three_workers(faults: Faults) -> None:
    """Three processes; each has a worker for each of three values of poll_delay."""
    faults.write_module("quiet_cron", CRON)
    python = [faults.shop.env / "bin/python", "-m", "core.quiet_cron"]
    workers = [faults.start(command=python, ready=False) for _ in range(3)]
    queues = {f"arq:queue:cron-{poll}:wake": poll for poll in ("0.5", "2", "5")}

    def listening() -> bool:
        counts = faults.client.pubsub_numsub(*queues)
        return all(count == len(workers) for _, count in counts)

    faults.wait(listening, 40)

    def ticks(poll: str) -> list[tuple[int, float]]:
        """When each run was due, and its delay, in seconds."""
        return [
            (
                int(due := round(int(event.name.rpartition(":")[2]) / 1000)),
                event.at - due,
            )
            for event in faults.events(what="start")
            if f"tick-{poll}:" in event.name
        ]

    def expected(poll: str) -> set[int]:
        first = began + 2 * float(poll) + 1  # by then, it is enqueued beforehand
        return {due for due in range(began, began + 16) if due % 3 == 0 and due > first}

    began = faults.now() // 1000
    faults.wait(
        lambda: all(
            expected(poll) <= {due for due, _ in ticks(poll)}
            for poll in queues.values()
        ),
        40,
    )
    for poll in queues.values():
        runs = ticks(poll)
        assert expected(poll)
        assert set(Counter(due for due, _ in runs).values()) == {1}, runs
        late = max(delay for _, delay in runs)
        assert late < float(poll) + 1, runs
    assert all(worker.lives for worker in workers)
