"""Operating the queue, by functions and by the command, with a real server and worker."""

import json
import os
import pty
import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from support import OwnRedis, Shop, free_port, run, wait_for

TASKS = """\
    import asyncio

    from arq import cron, func

    from core.arq import set_progress
    from core.arq_worker import BaseWorkerSettings


    async def fail(ctx, text="no"):
        raise ValueError(text)


    async def fail_again(ctx):
        raise RuntimeError("again")


    async def fine(ctx, seconds=0.0, **ignored):
        await asyncio.sleep(seconds)
        return {"seconds": seconds}


    async def chatty(ctx, lines, seconds=0.0, percent=50.0):
        for line in range(lines):
            await set_progress(ctx, percent, f"line {line} <b>")
        await asyncio.sleep(seconds)


    async def nightly(ctx):
        return None


    class WorkerSettings(BaseWorkerSettings):
        functions = [
            func(fail, max_tries=1),
            func(fail_again, max_tries=2),
            fine,
            chatty,
        ]
        cron_jobs = [cron(nightly, name="nightly", hour=3, minute=0)]
        health_check_interval = 1
        retry_delay = 3600
"""
QUEUE = "arq:queue:shop"
NAMES = (
    "discard_failed, discard_job, get_job, list_jobs, list_queues, pause_queue, "
    "queue_stats, resume_queue, retry_failed, retry_job, run_now"
)


@pytest.fixture(scope="module")
def jobs_shop(shop_with_queue: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A project whose tasks fail, or take their time, as they are told."""
    shop = shop_with_queue.copy_to(tmp_path_factory.mktemp("jobs") / "shop")
    shop.write_tasks(TASKS)
    return shop


@pytest.fixture
def db(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, decode_responses=True)


Do = Callable[..., Any]


@pytest.fixture
def do(jobs_shop: Shop, redis_url: str) -> Do:
    """Runs code that has all functions at hand; what it leaves in `result`."""

    def do(code: str, **env: str) -> Any:
        head = f"from core.arq_jobs import {NAMES}\nfrom dataclasses import asdict\n"
        return jobs_shop.python(head + textwrap.dedent(code), redis_url, env=env)

    return do


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(jobs_shop: Shop, redis_url: str) -> Command:
    """Runs `python -m core.arq_jobs`."""

    def command(
        *arguments: str, url: str = redis_url
    ) -> subprocess.CompletedProcess[str]:
        return run(
            [jobs_shop.env / "bin/python", "-m", "core.arq_jobs", *arguments],
            cwd=jobs_shop.root,
            env=jobs_shop.settings(url),
            check=False,
        )

    return command


def keep_failed(db: redis.Redis, job_id: str, task: str, at: int, **more: str) -> None:
    """A failed job as arq_engine.py keeps it."""
    job = {"t": None, "f": task, "a": [], "k": {}, "et": at}
    record = {"job": json.dumps(job, separators=(",", ":")), "task": task}
    record |= {"error": "ValueError: no", "traceback": "", "tries": "3"}
    record |= {"reason": "failed", "st": str(at), "ft": str(at), **more}
    with db.pipeline() as pipe:
        pipe.hset(f"arq:failed:{job_id}", mapping=record)
        pipe.zadd(f"{QUEUE}:failed", {job_id: at})
        pipe.execute()


# --- Failed jobs --------------------------------------------------------------------


def test_a_failed_job_is_kept_and_can_be_run_again(
    jobs_shop: Shop, redis_url: str, do: Do, db: redis.Redis
) -> None:
    with jobs_shop.worker(redis_url):
        do("result = (await enqueue('fail', text='<b>', _job_id='one')).job_id")
        wait_for(lambda: db.zcard(f"{QUEUE}:failed") == 1, 20)
        listed, shown, stats = do("""
            [job] = await list_jobs("failed")
            shown = await get_job("one")
            result = asdict(job), asdict(shown), asdict(await queue_stats())
        """)
        assert listed == shown
        assert (shown["task"], shown["kwargs"]) == ("fail", {"text": "<b>"})
        assert (shown["tries"], shown["reason"]) == (1, "failed")
        assert shown["error"] == "ValueError: <b>"
        assert "Traceback" in shown["traceback"] and "in fail" in shown["traceback"]
        assert [error["error"] for error in shown["errors"]] == ["ValueError: <b>"]
        assert shown["started"] and shown["finished"] and shown["enqueued"]
        assert stats["failed"] == 1 and stats["queued"] == 0

        first = db.zscore(f"{QUEUE}:failed", "one")
        retried = do("""
            await pause_queue()
            result = await asyncio.gather(*(retry_job("one") for _ in range(5)))
            await resume_queue()
        """)
        assert sorted(retried) == [False] * 4 + [True]
        wait_for(lambda: (db.zscore(f"{QUEUE}:failed", "one") or first) > first, 20)
        again = do("result = asdict(await get_job('one'))")
        assert again["tries"] == 1 and len(again["errors"]) == 1
        assert again["kwargs"] == {"text": "<b>"}


def test_a_discarded_job_leaves_nothing(
    jobs_shop: Shop, redis_url: str, do: Do, db: redis.Redis
) -> None:
    with jobs_shop.worker(redis_url):
        do("result = (await enqueue('fail', _job_id='one')).job_id")
        wait_for(lambda: db.zcard(f"{QUEUE}:failed") == 1, 20)
    assert do("result = await discard_job('one'), await discard_job('one')") == [
        True,
        False,
    ]
    assert [key for key in db.scan_iter() if "one" in key] == []
    assert do("result = (await enqueue('fail', _job_id='one')).job_id") == "one"


def test_all_failed_jobs_or_those_of_a_task(do: Do, db: redis.Redis) -> None:
    for i in range(1200):
        keep_failed(db, f"a{i}", "fail", 1000 + i)
        keep_failed(db, f"b{i}", "fail_again", 1000 + i)
    found = do("""
        pages = [
            await list_jobs("failed", task="fail", limit=500, offset=offset)
            for offset in (0, 500, 1000)
        ]
        retried = await retry_failed("fail"), await retry_failed("fail")
        discarded = await discard_failed("fail_again")
        keys = [job.job_id for page in pages for job in page]
        result = keys, retried, discarded, (await queue_stats()).queued
    """)
    assert found == [[f"a{i}" for i in reversed(range(1200))], [1200, 0], 1200, 1200]
    assert db.keys("arq:failed:*") == []


def test_what_cannot_be_run_again(do: Do, db: redis.Redis) -> None:
    keep_failed(db, "expired", "fail", 1000, job="", reason="expired")
    keep_failed(db, "taken", "fail", 1000)
    found = do("""
        await enqueue("fine", _job_id="taken")
        retried = await retry_job("expired"), await retry_job("taken")
        job = await get_job("taken")
        discarded = await discard_failed()
        result = retried, job.task, discarded, (await get_job("taken")).state
    """)
    assert found == [[False, False], "fine", 2, "queued"]


def test_jobs_whose_record_has_gone_are_not_counted_for_ever(
    do: Do, db: redis.Redis
) -> None:
    keep_failed(db, "here", "fail", 1000)
    db.zadd(f"{QUEUE}:failed", {"gone": 2000})
    found = do("""
        jobs = await list_jobs("failed")
        result = [job.job_id for job in jobs], (await queue_stats()).failed
    """)
    assert found == [["here"], 1]


# --- Progress -----------------------------------------------------------------------


def test_progress_is_shown_and_the_last_one_stays(
    jobs_shop: Shop, redis_url: str, do: Do, db: redis.Redis, command: Command
) -> None:
    def sets() -> int:
        return int(db.info("commandstats").get("cmdstat_set", {"calls": 0})["calls"])

    with jobs_shop.worker(redis_url):
        before = sets()
        do("await enqueue('chatty', 500, seconds=60, _job_id='one')\nresult = None")
        wait_for(lambda: "line 499" in (db.get("arq:progress:one") or ""), 20)
        written = sets() - before
        status, listed = do("""
            [job] = await list_jobs("in_progress")
            result = (await get_job_status("one"))["progress"], job.progress
        """)
        assert status == listed and status["at"] > 1e12
        assert (status["percent"], status["message"]) == (50, "line 499 <b>")
        for arguments in (["list", "in_progress"], ["show", "one"]):
            assert "50 % line 499 <b>" in command(*arguments).stdout
        assert written < 10  # enqueue's and the worker's own among them
        assert do("result = await abort_job('one')")

        # said within the second before the end
        do("await enqueue('chatty', 3, _job_id='two')\nresult = None")
        wait_for(lambda: db.exists("arq:result:two") == 1, 20)
        assert "line 2" in db.get("arq:progress:two")
        assert 0 < db.ttl("arq:progress:two") <= 24 * 3600

        # of another job, then, that has its id
        again = do("""
            await enqueue("chatty", 1, _job_id="two", _again=True, _defer_by=60)
            result = (await get_job_status("two"))["progress"]
        """)
        assert again is None


@pytest.mark.parametrize(
    ("percent", "shown"), [("1e9", 100), ("-1", 0), ("float('nan')", 0), ("2.5", 2.5)]
)
def test_any_percentage(do: Do, percent: str, shown: float) -> None:
    found = do(f"""
        from core.arq_progress import finish_progress
        ctx = {{"redis": await get_pool(), "job_id": "one"}}
        await set_progress(ctx, {percent}, chr(0xD800) + "x" * 2000)
        await finish_progress(ctx)
        await set_progress({{}}, 5)
        text = await ctx["redis"].get("arq:progress:one")
        result = json.loads(text)
    """)
    assert found["percent"] == shown and len(found["message"]) == 1000


def test_a_job_does_not_fail_by_its_progress(
    jobs_shop: Shop, own_redis: OwnRedis
) -> None:
    with (
        jobs_shop.worker(own_redis.url) as worker,
        redis.Redis.from_url(own_redis.url, decode_responses=True) as client,
    ):
        jobs_shop.python(
            "await enqueue('chatty', 2, seconds=3, _job_id='one')\nresult = None",
            own_redis.url,
        )
        worker.wait_for("one:chatty(")
        own_redis.kill()
        worker.wait_for("one:chatty ●", 30)
        own_redis.start()
        wait_for(lambda: client.exists("arq:result:one") == 1, 30, worker.path)
        assert "try=2" not in worker.text


# --- Waiting and running jobs -------------------------------------------------------


def test_the_states(jobs_shop: Shop, redis_url: str, do: Do, db: redis.Redis) -> None:
    with jobs_shop.worker(redis_url):
        do("""
            await enqueue("fine", seconds=60, _job_id="running")
            await enqueue("fine", _job_id="deferred", _defer_by=3600)
            await enqueue("fail_again", _job_id="retried")
            await enqueue("fine", _job_id="done")
            result = None
        """)
        wait_for(lambda: db.exists("arq:result:done", "arq:errors:retried") == 2, 20)
        runs = '"running": ["running"]'
        wait_for(lambda: runs in str(db.mget(db.keys(f"{QUEUE}:worker:*"))), 20)
        found = do("""
            states = {
                state: [job.job_id for job in await list_jobs(state)]
                for state in ("queued", "deferred", "in_progress", "failed", "complete")
            }
            jobs = {name: asdict(await get_job(name)) for name in ("retried", "done")}
            result = states, jobs, asdict(await queue_stats()), await list_queues()
        """)
        states, jobs, stats, queues = found
        assert states["deferred"] in (["deferred", "retried"], ["retried", "deferred"])
        assert states["in_progress"] == ["running"] and states["complete"] == ["done"]
        assert states["queued"] == states["failed"] == []
        assert jobs["retried"]["error"] == "RuntimeError: again"
        assert jobs["retried"]["tries"] == 1
        assert jobs["done"]["result"] == {"seconds": 0.0}
        assert jobs["done"]["success"] is True
        counts = {"queued": 0, "deferred": 2, "in_progress": 1, "failed": 0}
        assert {name: stats[name] for name in counts} == counts
        [worker] = stats["workers"]
        assert worker["running"] == ["running"]
        assert {"fail", "fine"} <= set(worker["tasks"])
        assert list(worker["cron"]) == ["nightly"]
        assert "T03:00" in worker["cron"]["nightly"].replace(" ", "T")
        assert queues == [QUEUE]
        do("result = await abort_job('running')")


def test_run_now(jobs_shop: Shop, redis_url: str, do: Do, db: redis.Redis) -> None:
    with jobs_shop.worker(redis_url):
        do("""
            await enqueue("fine", _job_id="deferred", _defer_by=3600)
            await enqueue("fail_again", _job_id="retried")
            await enqueue("fine", seconds=60, _job_id="running")
            result = None
        """)
        wait_for(
            lambda: db.exists("arq:errors:retried", "arq:in-progress:running") == 2, 20
        )
        assert do("""
            names = "deferred", "retried", "running", "unknown"
            result = [await run_now(name) for name in names]
        """) == [True, True, False, False]
        wait_for(lambda: db.exists("arq:result:deferred") == 1, 20)
        wait_for(lambda: db.zscore(f"{QUEUE}:failed", "retried") is not None, 20)
        do("result = await abort_job('running')")


def test_a_paused_queue(
    jobs_shop: Shop, redis_url: str, do: Do, db: redis.Redis
) -> None:
    with jobs_shop.worker(redis_url):
        do("""
            await enqueue("fine", seconds=1, _job_id="running")
            result = None
        """)
        wait_for(lambda: db.exists("arq:in-progress:running") == 1, 20)
        do("""
            await pause_queue()
            await enqueue("fine", _job_id="waits")
            result = None
        """)
        wait_for(lambda: db.exists("arq:result:running") == 1, 20)
    with jobs_shop.worker(redis_url) as worker:
        worker.wait_for("paused")
        assert do("result = asdict(await queue_stats())")["paused"] is True
        assert db.exists("arq:in-progress:waits", "arq:result:waits") == 0
        do("result = await resume_queue()")
        wait_for(lambda: db.exists("arq:result:waits") == 1, 20)
    assert do("result = asdict(await queue_stats())")["paused"] is False


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_the_jobs_of_one_task(do: Do, serializer: str) -> None:
    found = do(
        """
        for i in range(3):
            await enqueue("fail", _job_id=f"a{i}")
            await enqueue("fail_again", _job_id=f"b{i}")
            await enqueue("fine", f="fail", _job_id=f"c{i}")
            await enqueue("fail", _job_id=f"d{i}", _defer_by=60)
        while (await queue_stats()).queued < 9:  # its clock is Redis'
            pass
        queued = await list_jobs("queued", task="fail", offset=1)
        deferred = await list_jobs("deferred", task="fail", limit=1)
        result = [job.job_id for job in queued], [job.job_id for job in deferred]
        """,
        ARQ_SERIALIZER=serializer,
    )
    assert found == [["a1", "a2"], ["d0"]]


@pytest.mark.parametrize("name", ["größe", "a_task_of_" + 300 * "x"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_the_jobs_of_a_task_with_an_odd_name(
    do: Do, serializer: str, name: str
) -> None:
    found = do(
        f"""
        await enqueue("{name}", _job_id="odd")
        await enqueue("fine", _job_id="other")
        while (await queue_stats()).queued < 2:
            pass
        result = [job.job_id for job in await list_jobs("queued", task="{name}")]
        """,
        ARQ_SERIALIZER=serializer,
    )
    assert found == ["odd"]


def test_failures_of_arqs_own_worker(
    jobs_shop: Shop, redis_url: str, do: Do, db: redis.Redis
) -> None:
    """As in a project that had a queue before: they are seen while they last."""
    do("result = (await enqueue('fail', _job_id='one')).job_id")
    jobs_shop.script(
        """
        from arq.worker import Worker
        from core.arq import get_redis_settings
        from core.arq_serializer import deserialize, serialize

        async def fail(ctx):
            raise ValueError("of arq")

        Worker(
            [fail], queue_name="arq:queue:shop", burst=True, max_tries=1,
            redis_settings=get_redis_settings(),
            job_serializer=serialize, job_deserializer=deserialize,
        ).run()
        """,
        redis_url,
    )
    jobs = do("result = [asdict(job) for job in await list_jobs('complete')]")
    assert [job["job_id"] for job in jobs] == ["one"]
    assert (jobs[0]["success"], jobs[0]["error"]) == (False, "ValueError: of arq")
    assert do("result = await list_jobs('complete', queue='arq:queue')") == []
    assert do("result = await list_jobs('complete', task='fai')") == []


def test_jobs_that_cannot_be_read_hide_no_others(do: Do, db: redis.Redis) -> None:
    do("result = (await enqueue('fine', _job_id='good')).job_id")
    db.set("arq:job:bad", "\\x80?")
    db.zadd(QUEUE, {"bad": 5, "good": 6})
    db.set("arq:job:never", db.get("arq:job:good"))
    db.zadd(QUEUE, {"never": "inf", b"\xff\xfe": 7})
    db.set(b"arq:job:\xff\xfe", "?")
    found = do("""
        queued = {job.job_id: job.task for job in await list_jobs("queued")}
        result = queued, [job.job_id for job in await list_jobs("deferred")]
    """)
    assert found[0]["good"] == "fine" and found[0]["bad"] == ""
    assert found[1] == ["never"]


# --- The command --------------------------------------------------------------------


def test_the_command_shows_and_acts(
    jobs_shop: Shop, redis_url: str, command: Command, do: Do, db: redis.Redis
) -> None:
    with jobs_shop.worker(redis_url):
        do("""
            await enqueue("fail", text="\\x1b[31m" + "x" * 300, _job_id="bad" * 20)
            await enqueue("fine", _job_id="later", _defer_by=3600)
            result = None
        """)
        wait_for(lambda: db.zcard(f"{QUEUE}:failed") == 1, 20)
        wait_for(lambda: db.zcard(f"{QUEUE}:workers") == 1, 20)
        stats = command("stats")
        assert QUEUE in stats.stdout and "1 deferred, 0 in progress, 1 failed" in (
            stats.stdout
        )
        assert "nightly in " in stats.stdout and "pid" not in stats.stderr
        failed = command("list", "failed")
        assert "ValueError:" in failed.stdout
        for line in (stats.stdout + failed.stdout).splitlines():
            assert len(line) <= 80 and line.isprintable(), line
        assert "later" in command("list", "deferred", "--task", "fine").stdout
        assert command("list", "deferred", "--task", "other").stdout == ""
        shown = command("show", "bad" * 20)
        assert "in fail" in shown.stdout and "\x1b" not in shown.stdout
        assert json.loads(command("show", "later", "--json").stdout)["task"] == "fine"

        assert command("run-now", "later").returncode == 0
        wait_for(lambda: db.exists("arq:result:later") == 1, 20)
        assert command("pause").stdout == f"{QUEUE} is paused\n"
        assert command("retry", "bad" * 20).stdout == "retried 1 job\n"
        [paused] = json.loads(command("stats", "--json").stdout)
        assert paused["paused"] is True and paused["queued"] == 1
        assert command("abort", "bad" * 20).stdout == "aborted 1 job\n"
        assert command("resume").stdout == f"{QUEUE} goes on\n"


def test_its_exit_codes(command: Command, db: redis.Redis) -> None:
    for name in ("one", "two", "three"):
        keep_failed(db, name, "fail", 1000)
    some = command("retry", "one", "nope")
    assert (some.returncode, some.stdout) == (1, "retried 1 job\n")
    assert some.stderr == "nope is not known: left alone\n"
    again = command("retry", "one")
    assert (again.returncode, again.stderr) == (1, "one is queued: left alone\n")
    assert command("show", "nope").returncode == 1
    assert command("run-now", "one").returncode == 1
    assert command("discard").returncode == 2
    assert command("discard", "two", "--all").returncode == 2
    assert command("list", "lost").returncode == 2
    assert command("list", "failed", "--limit", "-1").returncode == 2
    assert command("list", "failed", "--offset", "-1").returncode == 2
    odd = command("show", os.fsdecode(b"\xff"))
    assert odd.returncode == 2 and "Traceback" not in odd.stderr
    both = command("discard", "--all", "--json")
    assert (both.returncode, json.loads(both.stdout)) == (0, {"discarded": 2})
    assert command("discard", "--task", "fail").returncode == 0


def test_one_line_when_redis_is_away(command: Command) -> None:
    for arguments in (["stats"], ["list", "failed"], ["retry", "x"], ["pause"]):
        done = command(*arguments, url=f"redis://127.0.0.1:{free_port()}/0")
        assert done.returncode == 3 and done.stdout == ""
        [line] = done.stderr.splitlines()
        assert line.startswith("Redis cannot be used, see ARQ_REDIS_URL: ")


def test_colours_only_on_a_terminal(
    jobs_shop: Shop, redis_url: str, command: Command, db: redis.Redis, tmp_path: Path
) -> None:
    keep_failed(db, "one", "fail", 1000)
    assert "\x1b" not in command("list", "failed").stdout
    control, terminal = pty.openpty()
    with subprocess.Popen(
        [jobs_shop.env / "bin/python", "-m", "core.arq_jobs", "list", "failed"],
        cwd=jobs_shop.root,
        env={**os.environ, **jobs_shop.settings(redis_url)},
        stdout=terminal,
    ) as process:
        assert process.wait(60) == 0
    shown = os.read(control, 10_000).decode()
    os.close(control)
    os.close(terminal)
    assert re.search("\x1b\\[31m  ValueError: no", shown)
