"""Redis is away, frozen, full, read-only, or another one: workers wait, and go on."""

import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from faults import QUEUE, Faults, Worker
from proxy import Proxy
from support import OwnRedis, free_port, is_master, sentinel, wait_for

pytestmark = pytest.mark.slow


def outages(worker: Worker, reason: str) -> list[str]:
    return [line for line in worker.text.splitlines() if reason in line]


def test_redis_is_killed_and_comes_back(
    own_faults: Faults, own_redis: OwnRedis
) -> None:
    worker = own_faults.start()
    # While the end of the first is tried to be recorded, the others end.
    ends = [own_faults.put("job", f"ends {n}", n) for n in (2.0, 2.5, 4.0)]
    stays = own_faults.put("job", "runs on", 8.0)
    fails = own_faults.put("fail", "fails meanwhile", "ValueError", times=1)
    own_faults.wait_started("runs on")
    own_redis.kill()
    worker.wait_for("Waiting for Redis")
    own_faults.wait(lambda: own_faults.events("ends 4.0", "end"))
    time.sleep(1)  # it keeps failing
    lines = outages(worker, "Waiting for Redis")
    assert len(lines) == 1 and f"127.0.0.1:{own_redis.port}" in lines[0]
    own_redis.start()
    for job_id in ends:
        assert own_faults.wait_result(job_id, 8)["s"]
    after = own_faults.put("job", "after")
    assert own_faults.wait_result(after, 8)["s"]
    assert own_faults.wait_result(fails)["r"] == 2
    assert own_faults.wait_result(stays)["s"]
    for name in ("ends 2.0", "ends 2.5", "ends 4.0", "runs on"):
        assert len(own_faults.events(name, "start")) == 1
    assert "dropped" not in worker.text
    assert worker.text.count("Traceback") == 1  # that of ValueError
    assert worker.stop() == 0


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_an_outage_is_longer_than_the_leases(
    own_faults: Faults, own_redis: OwnRedis, how: str
) -> None:
    """What ended meanwhile, or runs still, is not run again by those who wait."""
    own_faults.start(lease=4)
    ends = [own_faults.put("job", n, n) for n in range(1, 6)]
    runs = own_faults.put("job", "runs on", 11.0)
    fails = own_faults.put("once_slow", "fails", 3.0, error="ValueError")
    for name in ("5", "runs on", "fails"):
        own_faults.wait_started(name)
    own_faults.start(lease=4)
    own_redis.kill() if how == "killed" else own_redis.freeze()
    own_faults.start(lease=4, ready=False)  # it cannot know how long it has been
    own_faults.wait(lambda: own_faults.events("5", "end"))
    time.sleep(2)  # all leases have run out
    own_redis.start() if how == "killed" else own_redis.thaw()
    for job_id in (*ends, runs):
        assert own_faults.wait_result(job_id)["t"] == 1
    assert own_faults.wait_result(fails)["t"] == 2
    starts = [event.name for event in own_faults.events(what="start")]
    assert sorted(starts) == sorted(["runs_on", *"12345", "fails", "fails"])
    for worker in own_faults.workers:
        worker.stop()


def test_an_outage_is_named_again_while_it_lasts(
    own_faults: Faults, own_redis: OwnRedis
) -> None:
    """At start-up: the worker waits, and takes jobs once it can."""
    own_redis.stop()
    url = own_redis.url.replace("//", "//:sekret@")
    worker = own_faults.start(ready=False, url=url, waits={"LOG_OUTAGE_EVERY": 3})
    worker.wait_for("Connection refused", times=2)
    assert f"127.0.0.1:{own_redis.port}" in worker.text
    assert "sekret" not in worker.text
    assert "Traceback" not in worker.text
    own_redis.start()
    own_faults.client.config_set("requirepass", "sekret")
    own_faults.client = redis.Redis.from_url(url)
    job_id = own_faults.put("job", "a")
    assert own_faults.wait_result(job_id, 10)["s"]


def test_silence_of_the_server_and_of_the_network(
    own_faults: Faults, own_redis: OwnRedis
) -> None:
    with Proxy(own_redis.port) as proxy:
        url = own_redis.url.replace(str(own_redis.port), str(proxy.port))
        near = own_faults.start(max_jobs=1)
        far = own_faults.start(url=url, max_jobs=1)
        jobs = [own_faults.put("job", n, 1.0) for n in range(2)]
        own_faults.wait(lambda: len(own_faults.events(what="start")) == 2)
        proxy.hold()
        own_redis.freeze()
        for worker, port in ((near, own_redis.port), (far, proxy.port)):
            worker.wait_for(f"127.0.0.1:{port}: ", 25)
        own_redis.thaw()
        proxy.restore()
        for n, job_id in enumerate(jobs):
            assert own_faults.wait_result(job_id, 10)["s"]
            assert len(own_faults.events(n, "start")) == 1
        later = [own_faults.put("job", f"later-{n}", 1.0) for n in range(2)]
        for job_id in later:
            own_faults.wait_result(job_id, 10)
        pids = {event.pid for event in own_faults.events() if "later" in event.name}
        assert pids == {near.pid, far.pid}
        for worker in (near, far):
            assert "Traceback" not in worker.text
            assert worker.stop() == 0


def test_connections_that_are_half_open(
    own_faults: Faults, own_redis: OwnRedis
) -> None:
    def listeners() -> set[str]:
        clients = own_faults.client.client_list(_type="pubsub")
        return {client["id"] for client in clients}

    with Proxy(own_redis.port) as proxy:
        url = own_redis.url.replace(str(own_redis.port), str(proxy.port))
        worker = own_faults.start(url=url, poll_delay=20, waits={"SILENCE": 3})
        own_faults.wait(listeners)
        before = listeners()
        proxy.half_open()
        own_faults.put("job", "meanwhile")
        own_faults.wait_started("meanwhile", timeout=45)
        own_faults.wait(lambda: listeners() - before, 45)
        own_faults.put("job", "after")
        own_faults.wait_started("after", timeout=5)  # it is heard: poll_delay is 20
        assert worker.lives


def test_dropped_connections(faults: Faults) -> None:
    worker = faults.start()
    faults.put_many([(f"j{n}", "job", (n, 0.1), {}) for n in range(200)])
    for _ in range(10):
        for kind in ("normal", "pubsub"):
            faults.client.execute_command(
                "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"
            )
        time.sleep(0.1)
    faults.wait_drained(30)
    for n in range(200):
        assert faults.result(f"j{n}")["s"]
    starts = [event.name for event in faults.events(what="start")]
    assert len(starts) == len(set(starts))
    assert worker.lives
    assert "Traceback" not in worker.text


def test_a_reconnected_worker_hears_of_new_jobs(
    own_faults: Faults, own_redis: OwnRedis
) -> None:
    own_faults.start(poll_delay=60)
    own_redis.kill()
    own_redis.start()
    own_faults.wait(
        lambda: (
            dict(own_faults.client.pubsub_numsub(f"{QUEUE}:wake"))[
                f"{QUEUE}:wake".encode()
            ]
            == 1
        ),
        15,
    )
    own_faults.put("job", "a")
    own_faults.wait_started("a", timeout=5)


def test_a_read_only_replica(own_faults: Faults, own_redis: OwnRedis) -> None:
    """At start-up and while jobs run: what a failover makes of the old master."""
    own_faults.client.replicaof("127.0.0.1", str(free_port()))
    worker = own_faults.start(ready=False)
    worker.wait_for("read only replica")
    own_faults.client.replicaof("no", "one")
    job_id = own_faults.put("job", "a", 2.0)
    own_faults.wait_started("a")
    own_faults.client.replicaof("127.0.0.1", str(free_port()))
    worker.wait_for("read only replica", times=2)
    own_faults.wait(lambda: own_faults.events("a", "end"))
    own_faults.client.replicaof("no", "one")
    assert own_faults.wait_result(job_id)["s"]
    assert len(own_faults.events("a", "start")) == 1
    assert "Traceback" not in worker.text
    assert worker.stop() == 0


def test_a_full_redis_is_drained(own_faults: Faults, own_redis: OwnRedis) -> None:
    client = own_faults.client
    jobs = [own_faults.put("job", n) for n in range(30)]
    own_faults.put("job", "large", pad="x" * 1000)
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1mb")  # less than an empty server takes
    with pytest.raises(redis.RedisError, match="maxmemory"):
        client.set("any", "x")
    worker = own_faults.start(ready=False)
    own_faults.wait_drained(20)
    assert client.exists(*(f"arq:job:{job_id}" for job_id in jobs)) == 0
    for n in range(30):
        assert len(own_faults.events(n, "start")) == 1
    assert own_faults.events("large", "end")
    assert "Traceback" not in worker.text
    client.config_set("maxmemory", "0")
    after = own_faults.put("job", "after")
    assert own_faults.wait_result(after)["s"]
    assert worker.stop() == 0


def test_a_sentinel_failover(
    own_faults: Faults, own_redis: OwnRedis, tmp_path: Path
) -> None:
    (tmp_path / "replica").mkdir()
    replica = OwnRedis(tmp_path / "replica")
    replica.start("--replicaof", "127.0.0.1", str(own_redis.port))
    second = redis.Redis(port=replica.port, db=1)
    try:
        with sentinel(own_redis, tmp_path, replicas=1) as port:
            wait_for(
                lambda: second.info("replication")["master_link_status"] == "up", 20
            )
            worker = own_faults.start(url=f"sentinel://127.0.0.1:{port}/queue/1")
            running = own_faults.put("job", "running", 6.0)
            own_faults.wait_started("running")
            own_faults.client.wait(1, 1000)
            own_redis.kill()
            wait_for(lambda: is_master(second), 30)
            own_faults.client = second
            after = own_faults.put("job", "after")
            assert own_faults.wait_result(after, 15)["s"]
            assert own_faults.wait_result(running, 20)["s"]
            assert len(own_faults.events("running", "start")) == 1
            assert "Traceback" not in worker.text
            assert worker.stop() == 0
    finally:
        replica.stop()


def test_burst_and_check_do_not_wait(
    own_faults: Faults, own_redis: OwnRedis, full_port: int
) -> None:
    """Within 3 seconds, and what Python needs to start and end."""
    own_redis.freeze()
    ports = {"refused": free_port(), "frozen": own_redis.port, "no route": full_port}
    workers = [
        (port, own_faults.start(option, ready=False, url=f"redis://127.0.0.1:{port}"))
        for port in ports.values()
        for option in ("--burst", "--check")
    ]
    for _, worker in workers[:2]:
        worker.exit_code(30)  # refused: so long takes the start on this machine
    began = time.monotonic()
    for port, worker in workers:
        left = max(began + 4 - time.monotonic(), 0)
        assert worker.exit_code(left) == 1
        lines = [line for line in worker.text.splitlines() if "127.0.0.1" in line]
        assert len(lines) == 1 and f"127.0.0.1:{port}: " in lines[0], worker.text
        assert "Traceback" not in worker.text


@pytest.fixture
def full_port() -> Iterator[int]:
    """A black hole: its queue is full, so that connections are not even refused."""
    with socket.socket() as server, ExitStack() as clients:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


def test_redis_restarts_under_load(own_faults: Faults, own_redis: OwnRedis) -> None:
    workers = [own_faults.start() for _ in range(2)]
    jobs = [(f"j{n}", "job", (n, 0.05), {}) for n in range(600)]
    own_faults.put_many(jobs)
    own_faults.wait(lambda: len(own_faults.events(what="end")) > 100)
    own_redis.kill()
    own_faults.wait(lambda: all("Waiting for" in worker.text for worker in workers))
    own_redis.start()
    own_faults.wait_drained(60)
    assert all(own_faults.result(job_id)["s"] for job_id, *_ in jobs)
    starts = [event.name for event in own_faults.events(what="start")]
    assert len(starts) == len(set(starts)) == 600
    for worker in workers:
        assert worker.stop(signal.SIGTERM) == 0


def test_an_end_whose_answer_is_lost_is_recorded_once(
    own_faults: Faults, own_redis: OwnRedis
) -> None:
    with Proxy(own_redis.port) as proxy:
        url = own_redis.url.replace(str(own_redis.port), str(proxy.port))
        worker = own_faults.start(url=url)
        ends = own_faults.put("job", "ends", 1)
        fails = own_faults.put("once_slow", "fails", 1, error="ValueError")
        own_faults.wait_started("ends")
        own_faults.wait_started("fails")
        proxy.latency = 1
        own_faults.wait_result(ends)
        own_faults.wait(lambda: own_faults.client.exists(f"arq:errors:{fails}"))
        proxy.cut()  # the answers are on their way
        proxy.latency = 0
        proxy.restore()
        own_faults.wait_result(fails)
        assert own_faults.client.llen(f"arq:errors:{fails}") == 1
        assert worker.stop() == 0
    assert "by another worker" not in worker.text
    assert not own_faults.client.keys("*:ends:*")
