"""Stopping: jobs get their time, nothing is left behind, and the exit code is 0."""

import signal
import threading
import time

import pytest
from faults import QUEUE, Faults
from proxy import Proxy
from support import OwnRedis

pytestmark = pytest.mark.slow

STOPS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("stop", STOPS)
def test_a_stopped_worker_finishes_its_jobs(
    faults: Faults, stop: signal.Signals
) -> None:
    worker = faults.start()
    jobs = [faults.put("job", n, 1.5) for n in range(3)]
    for n in range(3):
        faults.wait_started(n)
    worker.send(stop)
    worker.wait_for(stop.name)
    late = faults.put("job", "late")
    assert worker.exit_code() == 0
    for job_id in jobs:
        assert faults.result(job_id)["s"]
    assert not faults.events("late")
    assert faults.client.zrange(QUEUE, 0, -1) == [late.encode()]
    assert not faults.client.keys("arq:in-progress:*")
    assert "Traceback" not in worker.text


@pytest.mark.parametrize("twice", [False, True])
def test_a_job_beyond_its_time_is_given_back(faults: Faults, twice: bool) -> None:
    """It is free at once, and its try does not count: it has only one."""
    worker = faults.start(job_completion_wait=600 if twice else 1, max_tries=1)
    job_id = faults.put("job", "a", 3.0)
    faults.wait_started("a")
    worker.send(signal.SIGTERM)
    if twice:
        worker.wait_for("SIGTERM")
        worker.send(signal.SIGINT)
    assert worker.exit_code() == 0
    assert "Traceback" not in worker.text
    assert not faults.events("a", "end")
    assert faults.client.zscore(QUEUE, job_id) <= faults.now()
    assert not faults.client.exists(f"arq:in-progress:{job_id}")
    for _ in range(0 if twice else 2):  # deploys in a row
        before = len(faults.events("a", "start"))
        worker = faults.start(job_completion_wait=0, max_tries=1)
        faults.wait_started("a", before + 1)
        assert worker.stop() == 0
    faults.start(max_tries=1)
    assert faults.wait_result(job_id)["s"]


@pytest.mark.parametrize("how", ["refused", "silent"])
def test_a_stop_while_redis_is_away(
    own_faults: Faults, own_redis: OwnRedis, how: str
) -> None:
    worker = own_faults.start(job_completion_wait=2, lease=2)
    own_faults.put("job", "ends", 1.5)
    own_faults.put("job", "does not", 60)
    own_faults.wait_started("does not")
    if how == "refused":
        own_redis.kill()
    else:
        own_redis.freeze()
    worker.send(signal.SIGTERM)
    assert worker.exit_code(20) == 0
    assert own_faults.events("ends", "end")
    assert "Traceback" not in worker.text
    if how == "refused":
        own_redis.start()
    else:
        own_redis.thaw()


def test_a_stop_of_a_worker_that_never_had_redis(
    own_faults: Faults, own_redis: OwnRedis
) -> None:
    own_redis.stop()
    worker = own_faults.start(ready=False)
    worker.wait_for("refused")
    assert worker.stop() == 0
    assert "Traceback" not in worker.text


@pytest.mark.parametrize("wait", [0.0, 0.03, 0.07])
def test_a_stop_in_the_middle_of_a_claim(
    own_faults: Faults, own_redis: OwnRedis, wait: float
) -> None:
    total = 300
    with Proxy(own_redis.port) as proxy:
        url = own_redis.url.replace(str(own_redis.port), str(proxy.port))
        worker = own_faults.start(url=url, max_jobs=50, job_completion_wait=5)
        proxy.latency = 0.05
        own_faults.put_many([(f"j{n}", "job", (n,), {}) for n in range(total)])
        own_faults.wait(lambda: own_faults.events())
        time.sleep(wait)  # to meet the claim at another point each time
        assert worker.stop() == 0
        assert "Traceback" not in worker.text
        ended = {event.name for event in own_faults.events(what="end")}
        assert 0 < len(ended) < total
        client = own_faults.client
        assert not client.keys("arq:in-progress:*")
        assert own_faults.queued() == total - len(ended)
        assert client.zcount(QUEUE, own_faults.now() + 1, "+inf") == 0
        tries = client.mget([f"arq:retry:j{n}" for n in range(total)])
        assert {int(value or 0) for value in tries} == {0}
    own_faults.start(max_jobs=50)
    own_faults.wait_drained()
    starts = [event.name for event in own_faults.events(what="start")]
    assert len(starts) == len(set(starts)) == total


def test_workers_come_and_go_under_load(faults: Faults) -> None:
    """Deploys, while jobs come in: each runs, once."""
    total = 3000
    enqueued = threading.Event()

    def enqueue() -> None:
        for start in range(0, total, 50):
            ids = range(start, start + 50)
            faults.put_many([(f"j{n}", "job", (n, 0.01), {}) for n in ids])
            time.sleep(0.05)
        enqueued.set()

    threading.Thread(target=enqueue, daemon=True).start()
    for _ in range(3):
        workers = [faults.start(max_jobs=20) for _ in range(2)]
        for worker in workers:
            worker.send(signal.SIGTERM)
        for worker in workers:
            assert worker.exit_code() == 0
            assert "Traceback" not in worker.text
    faults.start(max_jobs=50)
    faults.wait(enqueued.is_set)
    faults.wait_drained(60)
    starts = [event.name for event in faults.events(what="start")]
    assert len(starts) == len(set(starts)) == total
