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
    import os
    from arq import cron
    from core.tasks import BaseWorkerSettings, note


    async def tick(ctx):
        note("start", ctx["job_id"])


    class WorkerSettings(BaseWorkerSettings):
        cron_jobs = [
            cron(tick, name=f"tick-{os.environ['POLL']}", second=set(range(0, 60, 3)))
        ]
        queue_name = f"arq:queue:cron-{os.environ['POLL']}"
        poll_delay = float(os.environ["POLL"])
"""


def test_each_tick_once_over_three_workers(faults: Faults) -> None:
    faults.write_module("quiet_cron", CRON)
    polls = ["0.5", "2", "5"]
    workers = [
        faults.start(module="quiet_cron", env={"POLL": poll}, ready=False)
        for poll in polls
        for _ in range(3)
    ]
    for worker in workers:
        worker.wait_for("redis_version=", 40)

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

    began = faults.now() // 1000
    last = began + 16
    faults.wait(lambda: faults.now() / 1000 > last + 5.5, 40)
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        assert worker.exit_code() == 0
    for poll in polls:
        runs = ticks(poll)
        first = began + 2 * float(poll) + 1
        expected = {due for due in range(began, last) if due % 3 == 0 and due > first}
        counts = Counter(due for due, _ in runs)
        assert set(counts.values()) == {1}, counts
        assert expected <= counts.keys()
        late = max(delay for _, delay in runs)
        assert late < float(poll) + 1, runs
