"""Every failure is tried again, and nothing a task does ends the worker."""

import json
import re
from collections.abc import Iterator

import pytest
from faults import QUEUE, Faults
from support import Shop

pytestmark = pytest.mark.slow

ALWAYS = ["ValueError", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "Odd"]


@pytest.fixture(scope="module")
def ran(
    fault_shop: Shop, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Faults]:
    """One worker that has run all that the tests below look at."""
    faults = Faults(fault_shop, database_url, tmp_path_factory.mktemp("tries"))
    faults.client.flushdb()
    faults.start(max_jobs=50, retry_delay=0.1)

    def put(job_id: str, task: str, *args: object, **kwargs: object) -> None:
        faults.put(task, job_id, *args, job_id=job_id, **kwargs)

    put("neighbour", "job", 3.0)
    put("stubborn", "stubborn")
    put("sleeper", "job", 600)
    for error in ALWAYS:
        put(error, "fail", error)
        put(f"{error} once", "fail", error, times=1)
    put("Mute", "fail", "Mute")
    put("RetryJob", "fail", "RetryJob", times=2)
    put("CancelledError", "fail", "CancelledError", times=1)
    put("timeout", "brief", 60)
    put("single", "single", "ValueError")
    put("picky", "picky")
    put("picky value", "picky", error="ValueError")
    put("picky timeout", "picky_brief", 60)
    put("defer", "defer", 1.0)
    put("large", "fail", "ValueError", size=5_000_000)  # of 10 MB
    for job_id in ("stubborn", "sleeper"):
        faults.wait_started(job_id)
        faults.client.zadd("arq:abort", {job_id: faults.now()})
    faults.wait_drained(30)
    yield faults
    assert faults.workers[0].stop() == 0
    faults.client.flushdb()
    faults.close()


def starts(faults: Faults, job_id: str) -> int:
    return len(faults.events(job_id, "start"))


@pytest.mark.parametrize("error", ALWAYS)
def test_an_error_is_tried_again(ran: Faults, error: str) -> None:
    assert starts(ran, error) == 3
    result, kept = ran.result(error), ran.failed(error)
    assert result["s"] is False
    assert f"{error}: no" in json.dumps(result["r"])
    assert (kept["error"], kept["tries"], kept["reason"]) == (
        f"{error}: no",
        "3",
        "failed",
    )
    assert error in kept["traceback"] and "in fail" in kept["traceback"]
    assert json.loads(kept["job"])["a"] == [error, error]
    assert int(kept["st"]) <= int(kept["ft"]) <= ran.now()
    assert ran.client.zscore(f"{QUEUE}:failed", error) == int(kept["ft"])
    tries = [
        json.loads(text) for text in ran.client.lrange(f"arq:errors:{error}", 0, -1)
    ]
    assert [entry["try"] for entry in tries] in ([1, 2], [1, 2, 3])
    assert {entry["error"] for entry in tries} == {f"{error}: no"}


@pytest.mark.parametrize("error", ALWAYS)
def test_a_try_that_succeeds_ends_it(ran: Faults, error: str) -> None:
    job_id = f"{error} once"
    assert starts(ran, job_id) == 2
    result = ran.result(job_id)
    assert (result["s"], result["r"], result["t"]) == (True, 2, 2)
    assert not ran.failed(job_id)


def test_neighbours_of_a_failure_are_left_alone(ran: Faults) -> None:
    assert starts(ran, "neighbour") == 1
    assert ran.result("neighbour")["s"]
    assert ran.workers[0].lives


def test_an_error_that_cannot_be_printed_is_reported_by_its_type(ran: Faults) -> None:
    assert starts(ran, "Mute") == 3
    assert "Mute" in json.dumps(ran.result("Mute")["r"])
    assert "Mute" in ran.failed("Mute")["error"]


def test_a_large_error_is_cut(ran: Faults) -> None:
    kept = ran.failed("large")
    assert len(kept["error"].encode()) <= 10_100
    assert len(kept["traceback"].encode()) <= 10_100
    assert len(ran.client.get("arq:result:large")) < 12_000
    errors = ran.client.lrange("arq:errors:large", 0, -1)
    assert errors and max(map(len, errors)) < 1_200
    assert max(map(len, ran.workers[0].text.splitlines())) < 5_000
    assert len(ran.workers[0].text) < 300_000  # of all that ran here


def test_a_timeout_is_tried_again(ran: Faults) -> None:
    assert starts(ran, "timeout") == 3
    kept = ran.failed("timeout")
    assert kept["reason"] == "timeout"
    assert kept["error"].startswith("TimeoutError")


def test_the_pause_before_a_retry_doubles(ran: Faults) -> None:
    first, second, third = (event.at for event in ran.events("ValueError", "start"))
    assert second - first >= 0.1
    assert third - second >= 0.2
    pauses = re.findall(
        r"ValueError:fail failed.*again in (\S+)s\)", ran.workers[0].text
    )
    assert [float(pause) for pause in pauses] == [
        pytest.approx(0.1125, abs=0.02),  # 0.1 s, and up to a quarter more
        pytest.approx(0.225, abs=0.03),
    ]


def test_max_tries_of_a_task(ran: Faults) -> None:
    assert starts(ran, "single") == 1
    assert ran.failed("single")["tries"] == "1"


@pytest.mark.parametrize("job_id", ["picky", "picky timeout"])
def test_opting_out_of_retries(ran: Faults, job_id: str) -> None:
    assert starts(ran, job_id) == 1
    assert ran.result(job_id)["s"] is False


def test_opting_out_is_for_what_it_names(ran: Faults) -> None:
    assert starts(ran, "picky value") == 3


def test_arqs_own_retries(ran: Faults) -> None:
    assert starts(ran, "RetryJob") == 3
    assert ran.result("RetryJob")["r"] == 3
    assert ran.result("CancelledError")["r"] == 2
    first, second = ran.events("defer", "start")
    assert second.at - first.at >= 1
    assert ran.result("defer")["r"] == 2


@pytest.mark.parametrize("job_id", ["stubborn", "sleeper"])
def test_an_aborted_job_is_not_run_again(ran: Faults, job_id: str) -> None:
    assert starts(ran, job_id) == 1
    result = ran.result(job_id)
    assert result["s"] is False
    assert "CancelledError" in json.dumps(result["r"])
    assert ran.client.zscore("arq:abort", job_id) is None


def test_nothing_is_left_of_what_ended(ran: Faults) -> None:
    for kind in ("job", "retry", "in-progress"):
        assert not ran.client.keys(f"arq:{kind}:*"), kind


# --- Runs of their own


def test_a_retry_delay_of_days(faults: Faults) -> None:
    worker = faults.start(retry_delay=300_000)
    job_id = faults.put("fail", "a", "ValueError", times=1)
    faults.wait_started("a")
    faults.wait(lambda: not faults.client.exists(f"arq:in-progress:{job_id}"))
    delay = faults.client.zscore(QUEUE, job_id) - faults.now()
    assert 299_000_000 < delay < 376_000_000
    for key in (f"arq:job:{job_id}", f"arq:retry:{job_id}"):
        assert faults.client.pttl(key) > delay
    faults.client.zadd(QUEUE, {job_id: faults.now()})  # the days have passed
    faults.client.publish(f"{QUEUE}:wake", "")
    assert faults.wait_result(job_id)["r"] == 2
    assert worker.lives


def test_a_job_that_kills_its_worker_is_given_up(faults: Faults) -> None:
    job_id = faults.put("deadly", "a")
    for _ in range(2):
        worker = faults.start(lease=1, max_tries=2, ready=False)
        worker.process.wait(20)
    faults.start(lease=1, max_tries=2)
    kept = faults.wait_failed(job_id)
    assert (kept["reason"], kept["tries"]) in (("killed", "2"), ("killed", "3"))
    assert "killed" in kept["error"]
    assert starts(faults, "a") == 2
    assert faults.workers[-1].lives


CRON = """
    import os
    from arq import cron
    from core.tasks import BaseWorkerSettings, note


    async def tick(ctx):
        note("start", f"tick-{ctx['job_try']}")
        raise ValueError("no")


    async def twice(ctx):
        note("start", f"twice-{ctx['job_try']}")
        if ctx["job_try"] < 2:
            raise ValueError("no")
        note("end", "twice")


    async def cut_short(ctx):
        note("start", f"cut-{ctx['job_try']}")
        if "SECOND" not in os.environ:
            import asyncio
            await asyncio.sleep(60)
        note("end", "cut")


    class WorkerSettings(BaseWorkerSettings):
        cron_jobs = [
            cron(tick, month=1, run_at_startup="SECOND" not in os.environ),
            cron(twice, month=1, run_at_startup="SECOND" not in os.environ, max_tries=2),
            cron(cut_short, month=1, run_at_startup="SECOND" not in os.environ),
        ]
        queue_name = "arq:queue:faults"
        retry_delay = 0.2
        job_completion_wait = 0
"""


def test_cron_jobs_are_tried_as_said_and_repeated_after_a_stop(faults: Faults) -> None:
    faults.write_module("tries_cron", CRON)
    first = faults.start(module="tries_cron")
    faults.wait(lambda: faults.events("twice", "end"), 10)
    faults.wait_started("cut-1")
    faults.wait(lambda: faults.queued() == 1)
    assert first.stop() == 0
    second = faults.start(module="tries_cron", env={"SECOND": "1"})
    faults.wait(lambda: faults.events("cut", "end"), 15)
    assert [event.name for event in faults.events() if "cut-" in event.name] == [
        "cut-1",
        "cut-1",  # a stop is no try
    ]
    assert len(faults.events("tick-1")) == 1
    assert not faults.events("tick-2")
    assert second.stop() == 0


HOOKS = """
    from core.tasks import BaseWorkerSettings, fail, job, note


    async def on_job_start(ctx):
        raise ValueError("in on_job_start")


    async def on_job_end(ctx):
        raise ValueError("in on_job_end")


    async def after_job_end(ctx):
        raise ValueError("in after_job_end")


    async def on_failure(ctx, exc):
        note("failure", f"{ctx['job_id']}-{ctx['job_try']}-{type(exc).__name__}")
        raise ValueError("in on_failure")


    class Settings(BaseWorkerSettings):
        functions = [job, fail]
        queue_name = "arq:queue:faults"
        retry_delay = 0.1
        max_tries = 2


    class WorkerSettings(Settings):
        on_job_start = on_job_start
        on_job_end = on_job_end
        after_job_end = after_job_end
        on_failure = on_failure
"""


def test_hooks_that_raise(faults: Faults) -> None:
    faults.write_module("tries_hooks", HOOKS)
    worker = faults.start(module="tries_hooks")
    faults.put("fail", "a", "ValueError", job_id="a")
    faults.put("fail", "b", "SystemExit", times=1, job_id="b")
    faults.put("job", "c", job_id="c")
    faults.wait_drained()
    faults.wait(lambda: faults.events(what="failure"))
    assert faults.result("a")["s"] is False
    assert (faults.result("b")["r"], faults.result("c")["r"]) == (2, "c")
    assert [event.name for event in faults.events(what="failure")] == ["a-2-ValueError"]
    for name in ("on_job_start", "on_job_end", "after_job_end", "on_failure"):
        assert f"in {name}" in worker.text

    def told(job: str) -> int:
        return sum(job in line for line in worker.text.splitlines() if "hook" in line)

    faults.wait(lambda: told("a:fail") >= 3 * 2 + 1)  # the last after the record
    assert (told("c:job"), told("a:fail")) == (3, 3 * 2 + 1)
    assert worker.stop() == 0


@pytest.mark.parametrize("keep", ["forever", "not"])
def test_how_long_results_are_kept(faults: Faults, keep: str) -> None:
    settings = (
        {"keep_result_forever": True} if keep == "forever" else {"keep_result": 0}
    )
    worker = faults.start(max_tries=1, **settings)
    faults.put("job", "ends", job_id="ends")
    faults.put("fail", "fails", "ValueError", job_id="fails")
    faults.put("brief", "times out", 60, job_id="timeout")
    faults.put("job", "aborted", 600, job_id="aborted")
    faults.client.zadd(QUEUE, {"gone": 1})  # its job has expired
    faults.put("nowhere", job_id="unknown")
    faults.client.set("arq:unknown:unknown", faults.now() - 3_700_000, px=7_200_000)
    faults.put("job", job_id="poison", bad=1)
    faults.wait_started("aborted")
    faults.client.zadd("arq:abort", {"aborted": faults.now()})
    faults.wait_drained()
    ids = ["ends", "fails", "timeout", "aborted", "gone", "unknown", "poison"]
    ttls = {job_id: faults.client.ttl(f"arq:result:{job_id}") for job_id in ids}
    assert set(ttls.values()) == {-1 if keep == "forever" else -2}, ttls
    reasons = {job_id: faults.failed(job_id).get("reason") for job_id in ids}
    assert reasons == {
        "ends": None,
        "fails": "failed",
        "timeout": "timeout",
        "aborted": None,
        "gone": "expired",
        "unknown": "unknown",
        "poison": "failed",
    }
    assert worker.stop() == 0


def test_a_plain_function_runs_in_a_thread(faults: Faults) -> None:
    faults.start(max_jobs=3)
    for n in range(3):
        faults.put("sync", n, 1.0, job_id=f"sync-{n}")
    faults.wait(lambda: len(faults.events(what="end")) == 3)
    assert [event.what for event in faults.events()] == ["start"] * 3 + ["end"] * 3
    for n in range(3):
        assert faults.wait_result(f"sync-{n}")["r"] == n


def test_a_worker_waits_for_its_threads(faults: Faults) -> None:
    worker = faults.start()
    job_id = faults.put("sync", "a", 2.0)
    faults.wait_started("a")
    assert worker.stop() == 0
    assert faults.result(job_id)["s"]


# --- Two versions of the code


NEW = """
    from core import arq_engine
    from core.tasks import BaseWorkerSettings, job, note

    arq_engine.UNKNOWN_PAUSE_MS = 500  # of 5,000: the test waits for some


    async def fresh(ctx, n):
        note("end", n)
        return n


    class WorkerSettings(BaseWorkerSettings):
        functions = [job, fresh]
        queue_name = "arq:queue:faults"
        max_jobs = 20


    class OldSettings(WorkerSettings):
        functions = [job]
"""


def test_a_rolling_deploy_loses_no_job(faults: Faults) -> None:
    faults.write_module("tries_new", NEW)
    old = faults.start(module="tries_new", name="OldSettings")
    faults.put_many([(f"j{n}", ("job", "fresh")[n % 2], (n,), {}) for n in range(1000)])
    old.wait_for("'fresh'")
    faults.start(module="tries_new")
    faults.wait_drained(60)
    results = faults.client.mget([f"arq:result:j{n}" for n in range(1000)])
    assert all(json.loads(result)["r"] == n for n, result in enumerate(results))
    ends = [int(event.name) for event in faults.events(what="end")]
    assert sorted(ends) == list(range(1000))
    warnings = [line for line in old.text.splitlines() if "'fresh'" in line]
    assert len(warnings) == 1
    assert not faults.client.keys("arq:unknown:*")


def test_a_task_that_nobody_knows_fails_after_an_hour(faults: Faults) -> None:
    worker = faults.start()
    job_id = faults.put("nowhere", 1)
    worker.wait_for("'nowhere'")
    faults.wait(lambda: not faults.client.exists(f"arq:in-progress:{job_id}"))
    assert faults.client.zscore(QUEUE, job_id) > faults.now()  # put back, with a pause
    assert int(faults.client.get(f"arq:retry:{job_id}") or 0) == 0
    assert faults.result(job_id) is None
    since = int(faults.client.get(f"arq:unknown:{job_id}"))
    faults.client.set(f"arq:unknown:{job_id}", since - 3_700_000, px=7_200_000)
    faults.client.zadd(QUEUE, {job_id: faults.now()})
    kept = faults.wait_failed(job_id)
    assert kept["reason"] == "unknown"
    assert "'nowhere'" in kept["error"]


def test_a_poisoned_payload_fails_alone(faults: Faults) -> None:
    worker = faults.start(max_tries=1)
    for n, payload in enumerate(POISON):
        faults.client.set(f"arq:job:poison-{n}", payload)
        faults.client.zadd(QUEUE, {f"poison-{n}": 1})
    job_id = faults.put("job", "a")
    assert faults.wait_result(job_id)["s"]
    for n, payload in enumerate(POISON):
        result = faults.wait_result(f"poison-{n}")
        assert result["s"] is False, payload
    assert worker.lives
    assert faults.queued() == 0


POISON = [
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
]


def test_pauses_that_redis_cannot_count_are_a_century(faults: Faults) -> None:
    """As of a job that waits for something with Retry, over and over, and then fails."""
    for job_id, tries in (("often", 60), ("very often", 1100)):
        faults.client.set(f"arq:retry:{job_id}", tries)
    faults.start(max_tries=9999)
    for job_id in ("often", "very often"):
        faults.put("fail", job_id, "ValueError", times=9999, job_id=job_id)
    faults.put("defer", "far", 1e17, job_id="far")
    faults.put("defer", "long ago", -1e9, job_id="long ago")
    assert faults.wait_result("long ago")["r"] == 2
    century = 100 * 365 * 24 * 3600 * 1000
    for job_id in ("often", "very often", "far"):
        faults.wait(lambda id_=job_id: faults.client.exists(f"arq:errors:{id_}"))
        due = faults.client.zscore(QUEUE, job_id) - faults.now()
        assert century - 20_000 < due <= century
    assert faults.wait_result(faults.put("job", "other"))["s"]


def test_a_failure_that_cannot_be_told_takes_no_slot(faults: Faults) -> None:
    faults.write_module(
        "odd_failure",
        """
        from core.tasks import WorkerSettings as Base
        from core.tasks import job


        class Odd(Exception):
            @property
            def extra(self):
                raise ValueError("no")


        async def odd(ctx):
            raise Odd


        class WorkerSettings(Base):
            functions = [odd, job]
        """,
    )
    worker = faults.start(module="odd_failure", max_jobs=1, max_tries=2, lease=1)
    odd = faults.put("odd", job_id="odd")
    worker.wait_for("The end of odd:odd was not recorded")
    assert faults.wait_result(faults.put("job", "other"))["s"]
    assert "max 2 retries" in faults.wait_failed(odd)["error"]
