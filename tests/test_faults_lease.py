"""A claim is a lease, the head of the queue is free work, and time is Redis' own."""

import os
import re
import subprocess
import textwrap
from pathlib import Path

import pytest
from faults import QUEUE, Faults
from support import Shop

pytestmark = pytest.mark.slow


def test_a_killed_workers_jobs_run_again_when_its_lease_ends(faults: Faults) -> None:
    first = faults.start(lease=1, job_timeout=3600)
    job_id = faults.put("once_slow", "a")
    faults.wait_started("a")
    first.kill()
    second = faults.start(lease=1, job_timeout=3600)
    assert faults.wait_result(job_id)["r"] == second.pid
    assert [event.pid for event in faults.events("a", "start")] == [
        first.pid,
        second.pid,
    ]
    assert faults.queued() == 0
    assert not faults.client.exists(f"arq:in-progress:{job_id}", f"arq:retry:{job_id}")


def test_a_lease_is_a_minute_and_renewed_while_the_job_runs(faults: Faults) -> None:
    faults.start(job_timeout=3600)
    job_id = faults.put("once_slow", "a")
    faults.wait_started("a")
    assert 50_000 < faults.client.pttl(f"arq:in-progress:{job_id}") <= 60_000
    ends = faults.client.zscore(QUEUE, job_id) - faults.now()
    assert 50_000 < ends <= 60_000
    faults.workers[-1].stop()

    faults.client.flushdb()
    faults.start_many(2, lease=1, max_jobs=1)
    renewed = faults.put("job", "renewed", 3.5)
    assert faults.wait_result(renewed)["s"]
    assert len(faults.events("renewed", "start")) == 1


@pytest.mark.parametrize("how", ["frozen", "blocked"])
def test_who_lost_its_lease_cannot_finish_the_job(faults: Faults, how: str) -> None:
    workers = faults.start_many(2, lease=1, max_jobs=3)
    if how == "frozen":
        jobs = {
            "ends": faults.put("once_slow", "ends", 0.5),
            "fails": faults.put("once_slow", "fails", 0.5, error="ValueError"),
        }
    else:
        jobs = {"blocks": faults.put("block", "blocks", 5)}
    for name in jobs:
        faults.wait_started(name)
    first, second = workers
    if faults.events(next(iter(jobs)))[0].pid != first.pid:
        first, second = second, first
    if how == "frozen":
        first.freeze()
    for job_id in jobs.values():
        assert faults.wait_result(job_id)["r"] == second.pid
    if how == "frozen":
        first.thaw()
    else:
        faults.wait(lambda: len(faults.events("blocks", "end")) == 2)
        first.wait_for("blocked")
        seconds = re.search(r"blocked.*?(\d+(\.\d+)?) ?s", first.text)
        assert seconds and 3.5 < float(seconds[1]) < 30
    assert first.stop() == 0  # it has dealt with its jobs now
    for name, job_id in jobs.items():
        result = faults.result(job_id)
        assert (result["s"], result["r"]) == (True, second.pid)
        assert len(faults.events(name, "start")) == 2
        assert not faults.failed(job_id)
    assert faults.queued() == 0
    assert not faults.client.keys("arq:retry:*")
    assert not faults.client.keys("arq:in-progress:*")


def calls(faults: Faults, *commands: str) -> int:
    """How many of these commands there were, or of all; those in scripts too."""
    stats = faults.client.info("commandstats")
    return sum(
        stat["calls"]
        for name, stat in stats.items()
        if not commands or name.removeprefix("cmdstat_") in commands
    )


@pytest.mark.parametrize("whose", ["of ours", "of arq's"])
def test_running_jobs_are_not_in_the_way(faults: Faults, whose: str) -> None:
    """Counted in Redis' commands, which do not depend on the machine."""
    faults.start(poll_delay=600, health_check_interval=600)

    def cost(name: str) -> int:
        before = calls(faults)
        for n in range(20):
            faults.put("job", f"{name}-{n}")
            faults.wait_started(f"{name}-{n}")
        return calls(faults) - before

    alone = cost("alone")
    total, now = 20_000, faults.now()
    with faults.client.pipeline() as pipe:
        for n in range(total):
            pipe.set(f"arq:job:held-{n}", "{}", px=600_000)
            pipe.set(f"arq:in-progress:held-{n}", "1", px=600_000)
            due = now + 600_000 if whose == "of ours" else now - n
            pipe.zadd(QUEUE, {f"held-{n}": due})
        pipe.execute()
    if whose == "of arq's":  # these are put out of the way once, for some seconds
        faults.put("job", "first")
        faults.wait(lambda: faults.client.zcount(QUEUE, "-inf", faults.now()) == 0)
    assert cost("beside") < 1.5 * alone
    assert not faults.events("held")
    assert faults.queued() == total


EIGHT = """
    import asyncio
    from arq.worker import create_worker
    from core.tasks import WorkerSettings

    async def main():
        options = {"handle_signals": False, "max_jobs": 1, "poll_delay": 600}
        workers = [create_worker(WorkerSettings, **options) for _ in range(8)]
        await asyncio.gather(*(worker.async_run() for worker in workers))

    asyncio.run(main())
"""


def test_an_enqueue_asks_nothing_of_busy_workers(faults: Faults) -> None:
    python = [faults.shop.env / "bin/python", "-c", textwrap.dedent(EIGHT)]
    faults.start(command=python, ready=False)
    for n in range(8):
        faults.put("once_slow", f"busy-{n}")
        faults.wait_started(f"busy-{n}")
    before, scripts = calls(faults), calls(faults, *SCRIPTS)
    jobs = [faults.put("plain", n) for n in range(200)]
    sent = 5 * len(jobs)  # a transaction: MULTI, PSETEX, ZADD, PUBLISH, EXEC; and TIME
    asked = calls(faults) - before - sent - len(jobs)
    assert calls(faults, *SCRIPTS) - scripts < 10
    assert asked < 200, asked
    assert faults.client.zcount(QUEUE, "-inf", faults.now()) == len(jobs)


SCRIPTS = ("eval", "evalsha", "fcall")

STOCK = """
    import asyncio

    import arq.worker
    Worker = arq.worker.Worker  # before ours takes its place
    from core import tasks
    from core.arq_serializer import deserialize, serialize
    from settings import settings
    from core.arq import get_redis_settings

    async def main():
        worker = Worker(
            [tasks.job], queue_name="arq:queue:faults", poll_delay=0.02,
            redis_settings=get_redis_settings(), max_jobs=10,
            job_serializer=serialize, job_deserializer=deserialize,
        )
        assert type(worker).__module__ == "arq.worker"
        await worker.async_run()

    asyncio.run(main())
"""


def test_arqs_own_worker_shares_the_queue(faults: Faults, fault_shop: Shop) -> None:
    total = 1000
    stock = subprocess.Popen(
        [fault_shop.env / "bin/python", "-c", textwrap.dedent(STOCK)],
        cwd=fault_shop.root,
        env={
            **os.environ,
            **fault_shop.settings(faults.url),
            "EVENTS": str(faults.file),
        },
        stdout=subprocess.DEVNULL,
        stderr=(faults.directory / "stock.log").open("w"),
    )
    try:
        ours = faults.start()
        warm = 0
        while not any(event.pid == stock.pid for event in faults.events()):
            faults.put("job", f"warm-{warm}", 0.1)
            faults.wait_started(f"warm-{warm}")
            warm += 1
            assert stock.poll() is None, (faults.directory / "stock.log").read_text()
        faults.put_many([(f"j{n}", "job", (n, 0.02), {}) for n in range(total)])
        faults.wait_drained(60)
        ends = [event for event in faults.events(what="end") if event.name.isdigit()]
        assert sorted(int(event.name) for event in ends) == list(range(total))
        by_stock = sum(event.pid == stock.pid for event in ends)
        assert 0 < by_stock < total
        assert ours.lives
    finally:
        stock.terminate()
        stock.wait(10)


def test_a_job_of_a_killed_arq_worker_is_taken_when_its_claim_ends(
    faults: Faults,
) -> None:
    faults.start()
    faults.client.set("arq:in-progress:a", "1", px=2000)
    faults.put("job", "a", job_id="a")
    faults.put("job", "b", job_id="b")
    faults.wait_result("b")
    assert not faults.events("a")
    assert faults.wait_result("a")["s"]
    assert len(faults.events("a", "start")) == 1


@pytest.mark.parametrize("skew", [-30, 30])
def test_time_is_redis_own(faults: Faults, tmp_path: Path, skew: int) -> None:
    clock = f"""
        import time

        _true, _true_ns = time.time, time.time_ns
        time.time = lambda: _true() + {skew}
        time.time_ns = lambda: _true_ns() + {skew} * 1_000_000_000
    """
    (tmp_path / "clock").mkdir()
    (tmp_path / "clock/sitecustomize.py").write_text(textwrap.dedent(clock))
    path = f"{tmp_path / 'clock'}:{faults.shop.root}"
    # by env, with all that Python does at its start
    arq = ["env", faults.shop.env / "bin/arq", "core.tasks.WorkerSettings"]
    worker = faults.start(env={"PYTHONPATH": path}, command=arq, lease=2)
    faults.put("job", "now", 3)
    faults.wait_started("now", timeout=5)
    started = faults.events("now", "start")[0]
    assert abs(started.at - faults.now() / 1000 - skew) < 5  # the clock is wrong
    due = faults.now() + 1500
    faults.put("job", "later", due_in=1.5)
    faults.wait_started("later", timeout=5)
    assert faults.now() >= due
    faults.put("fail", "again", "ValueError", times=1, job_id="again")
    assert faults.wait_result("again", 5)["r"] == 2
    faults.wait(lambda: faults.events("now", "end"))
    assert len(faults.events("now", "start")) == 1
    assert worker.lives


def test_a_job_that_its_own_worker_claims_anew(faults: Faults) -> None:
    """After a failover to a replica that knew neither the claim nor the try, say."""
    faults.write_module(
        "claimed_anew",
        """
        import asyncio

        from core.tasks import WorkerSettings as Base
        from core.tasks import note


        async def slow_at_first(ctx):
            note("start", "slow")
            ctx["runs"].append("again" if ctx["runs"] else "first")
            if ctx["runs"] == ["first"]:
                await asyncio.sleep(3)
            return ctx["runs"][-1]


        async def startup(ctx):
            ctx["runs"] = []


        class WorkerSettings(Base):
            functions = [slow_at_first]
            on_startup = startup
        """,
    )
    worker = faults.start(module="claimed_anew", max_jobs=2)
    job_id = faults.put("slow_at_first")
    faults.wait_started("slow")
    with faults.client.pipeline() as pipe:
        pipe.delete(f"arq:in-progress:{job_id}", f"arq:retry:{job_id}")
        pipe.zadd(QUEUE, {job_id: faults.now()})
        pipe.publish(f"{QUEUE}:wake", "")
        pipe.execute()
    assert faults.wait_result(job_id)["r"] == "again"
    worker.wait_for("was run by another worker, too")
    assert "Traceback" not in worker.text
    assert len(faults.events("slow", "start")) == 2
