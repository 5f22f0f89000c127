"""The generated client and worker, on a real server."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from support import OwnRedis, Shop, WorkerLog, free_port, run, sentinel, wait_for
from tasks import TASKS


@pytest.fixture(scope="module")
def tasks_shop(shop_with_queue: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A project with these tasks. Not to be changed."""
    shop = shop_with_queue.copy_to(tmp_path_factory.mktemp("tasks") / "shop")
    shop.write_tasks(TASKS)
    return shop


@pytest.fixture(scope="module")
def running(tasks_shop: Shop, database_url: str) -> Iterator[WorkerLog]:
    with tasks_shop.worker(database_url) as worker:
        yield worker


@pytest.fixture
def worker(running: WorkerLog) -> Iterator[WorkerLog]:
    """A worker of these tasks that many tests share, on an empty database."""
    with redis.Redis.from_url(running.url) as client:
        client.flushdb()
    yield running
    assert running.process.poll() is None, running.text


def result_of(shop: Shop, url: str, call: str, **env: str) -> Any:
    """Enqueue, and wait for the job's status to be complete."""
    code = f"""
        job = await {call}
        for _ in range(400):
            result = await get_job_status(job.job_id)
            if result["status"] == "complete":
                break
            await asyncio.sleep(0.02)
    """
    return shop.python(code, url, env=env)


# --- Connection ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", {"host": "localhost", "port": 6379, "database": 0}),
        ("redis://h:7000/3", {"host": "h", "port": 7000, "database": 3}),
        ("redis://h/3/", {"database": 3}),
        ("redis://h:1?db=4", {"database": 4}),
        ("redis://u:p%40s%2Fs%23@h", {"username": "u", "password": "p@s/s#"}),
        ("redis://:p@h", {"username": None, "password": "p"}),
        ("redis://[::1]:6380/2", {"host": "::1", "port": 6380, "database": 2}),
        ("unix:///tmp/r.sock?db=2", {"unix_socket_path": "/tmp/r.sock", "database": 2}),
        (
            "unix://u:p@/tmp/r.sock",
            {"unix_socket_path": "/tmp/r.sock", "username": "u"},
        ),
        ("rediss://h:1", {"ssl": True, "ssl_check_hostname": True}),
        (
            "rediss://h?ssl_cert_reqs=none",
            {"ssl_cert_reqs": "none", "ssl_check_hostname": False},
        ),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            {"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
        ),
        (
            "sentinel://u:p@a:26379,b:26380/mymaster/2",
            {
                "host": [("a", 26379), ("b", 26380)],
                "sentinel": True,
                "sentinel_master": "mymaster",
                "username": "u",
                "password": "p",
                "database": 2,
            },
        ),
        ("sentinel://a:1/main", {"host": [("a", 1)], "database": 0, "password": None}),
    ],
)
def test_redis_urls(shop_with_queue: Shop, url: str, expected: dict) -> None:
    found = shop_with_queue.python(
        f"""
        from core.arq_connection import parse_redis_url
        settings = parse_redis_url({url!r})
        result = {{name: getattr(settings, name) for name in {list(expected)!r}}}
        """
    )
    assert found == json.loads(json.dumps(expected))  # without tuples


@pytest.mark.parametrize(
    "url",
    [
        "http://u:secret@h",
        "redis://u:secret@h:port",
        "redis://u:sec#ret@h:1",
        "redis://u:secret@h/abc",
        "redis://u:secret@h?db=x",
        "redis://u:secret@h?unknown_option=1",
        "sentinel://u:secret@h/master",
        "",
    ],
)
def test_a_bad_url_is_an_error_at_start_up_without_the_password(
    shop_with_queue: Shop, url: str
) -> None:
    env = {**shop_with_queue.settings(""), "ARQ_REDIS_URL": url}
    output = shop_with_queue.run(
        "python", "-c", "import settings", env=env, check=False
    )
    error = output[output.index("ValidationError") :]
    assert "ARQ_REDIS_URL must be redis://" in error
    assert "sec" not in error.replace("SecretStr", "")
    assert "ret@h" not in error


@pytest.mark.parametrize("name", ["ARQ_JOB_TIMEOUT", "ARQ_MAX_JOBS"])
def test_a_zero_is_an_error_that_names_the_setting(
    shop_with_queue: Shop, name: str
) -> None:
    output = shop_with_queue.script("import settings", env={name: "0"}, check=False)
    assert name.lower() in output and "greater than or equal to 1" in output


@pytest.mark.slow
def test_acl_user_percent_encoded_password_and_unix_socket(
    tasks_shop: Shop, own_redis: OwnRedis
) -> None:
    own_redis.stop()
    sock = own_redis.directory / "r.sock"
    own_redis.start("--unixsocket", str(sock))
    with redis.Redis(port=own_redis.port) as client:
        client.acl_setuser(
            "queue",
            enabled=True,
            passwords=["+p@ss/w#rd"],
            keys=["*"],
            categories=["+@all"],
            reset=True,
        )
        client.acl_setuser("default", enabled=False)
    login = "queue:p%40ss%2Fw%23rd@"
    tcp = f"redis://{login}127.0.0.1:{own_redis.port}/3"
    with tasks_shop.worker(tcp):
        status = result_of(
            tasks_shop, f"unix://{login}{sock}?db=3", "enqueue('add', 2)"
        )
        assert status["result"] == 2


def test_unreachable_redis_is_one_line_in_burst_mode(shop_with_queue: Shop) -> None:
    port = free_port()
    output = shop_with_queue.run(
        *("arq", "core.tasks.WorkerSettings", "--burst"),
        env=shop_with_queue.settings(f"redis://127.0.0.1:{port}/1"),
        check=False,
    )
    assert "Redis is not reachable, see ARQ_REDIS_URL: " in output
    assert "Traceback" not in output


# --- Pool ---------------------------------------------------------------------------


def test_first_uses_at_once_share_one_pool(
    shop_with_queue: Shop, redis_url: str
) -> None:
    database = redis_url.rpartition("/")[2]
    code = f"""
        pools = await asyncio.gather(*[get_pool() for _ in range(50)])
        clients = await pools[0].client_list()
        mine = [client for client in clients if client["db"] == "{database}"]
        result = [len({{id(pool) for pool in pools}}), len(mine)]
    """
    # the other connection is the fixture's
    assert shop_with_queue.python(code, redis_url) == [1, 2]


def test_a_closed_pool_opens_again_and_each_loop_has_its_own(
    shop_with_queue: Shop, redis_url: str
) -> None:
    code = """
        import asyncio
        from core.arq import close_pool, enqueue, get_pool

        async def use():
            first = await get_pool()
            assert await enqueue("process_webhook", payload={})
            await close_pool()
            await close_pool()
            assert await get_pool() is not first
            assert await enqueue("process_webhook", payload={})
            await close_pool()

        asyncio.run(use())
        asyncio.run(use())
        print("done")
    """
    strict = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}
    assert shop_with_queue.script(code, redis_url, env=strict) == "done\n"


def test_no_warning_at_exit_without_closing(
    shop_with_queue: Shop, redis_url: str
) -> None:
    code = """
        import asyncio
        from core.arq import enqueue

        asyncio.run(enqueue("process_webhook", payload={}))
    """
    assert shop_with_queue.script(code, redis_url) == ""


# --- Enqueue ------------------------------------------------------------------------


def test_enqueue_takes_a_name_or_the_task(tasks_shop: Shop, worker: WorkerLog) -> None:
    code = """
        from core import tasks

        jobs = [
            await enqueue("add", 1, b=2),
            await enqueue(tasks.add, 1, b=3),
            await enqueue("names", function="f", queue="q"),
        ]
        result = [await job.result(timeout=10, poll_delay=0.02) for job in jobs]
    """
    assert tasks_shop.python(code, worker.url) == [3, 4, ["f", "q"]]


def test_a_job_id_that_is_there_already_gives_none(
    tasks_shop: Shop, redis_url: str
) -> None:
    code = """
        jobs = await asyncio.gather(
            *[enqueue("add", 1, _job_id="sync-1") for _ in range(20)]
        )
        result = sum(job is not None for job in jobs)
    """
    assert tasks_shop.python(code, redis_url) == 1
    with tasks_shop.worker(redis_url) as worker:
        worker.wait_for("sync-1:add ●")
    assert tasks_shop.python(code, redis_url) == 0  # its result is kept


def test_deferred_jobs(tasks_shop: Shop, worker: WorkerLog) -> None:
    code = """
        from datetime import datetime, timedelta, timezone

        until = datetime.now(timezone.utc) + timedelta(seconds=1)
        jobs = [
            await enqueue("add", 1, _defer_by=1),
            await enqueue("add", 2, _defer_until=until),
        ]
        first = [(await get_job_status(job.job_id))["status"] for job in jobs]
        values = [await job.result(timeout=10, poll_delay=0.02) for job in jobs]
        done = [await get_job_status(job.job_id) for job in jobs]
        waits = [
            (status["start_time"] - status["enqueue_time"]).total_seconds()
            for status in done
        ]
        result = [first, values, waits]
    """
    first, values, waits = tasks_shop.python(code, worker.url)
    assert first == ["deferred", "deferred"]
    assert values == [1, 2]
    assert all(0.9 < wait < 5 for wait in waits)


def test_an_expired_job_is_dropped(tasks_shop: Shop, redis_url: str) -> None:
    job_id = tasks_shop.python(
        "result = (await enqueue('add', 1, _expires=0.2)).job_id", redis_url
    )
    with redis.Redis.from_url(redis_url) as client:
        wait_for(lambda: not client.exists(f"arq:job:{job_id}"), 10)
    with tasks_shop.worker(redis_url) as worker:
        worker.wait_for("expired")
    status = tasks_shop.python(f"result = await get_job_status({job_id!r})", redis_url)
    assert status["success"] is False
    assert "job expired" in status["result"]


def test_enqueue_many(tasks_shop: Shop, worker: WorkerLog) -> None:
    code = """
        jobs = await enqueue_many("add", [{"a": n, "b": 1} for n in range(2500)])
        values = [await job.result(timeout=30, poll_delay=0.1) for job in jobs]
        assert values == [n + 1 for n in range(2500)]
        calls = [{"a": 1, "_job_id": "x"}, {"a": 2, "_job_id": "x"}]
        result = [job is None for job in await enqueue_many("add", calls)]
    """
    assert tasks_shop.python(code, worker.url) == [False, True]


# --- Compatibility with arq's own client and worker -----------------------------------


def test_arqs_own_client_and_our_worker(tasks_shop: Shop, worker: WorkerLog) -> None:
    code = """
        import arq
        from core.arq_serializer import deserialize, serialize

        pool = await arq.create_pool(
            get_redis_settings(),
            job_serializer=serialize,
            job_deserializer=deserialize,
            default_queue_name="arq:queue:shop",
        )
        job = await pool.enqueue_job("add", 40, b=2)
        again = await pool.enqueue_job("add", 1, _job_id=job.job_id)
        value = await job.result(timeout=5, poll_delay=0.02)
        result = [value, (await job.info()).function, again]
        await pool.aclose()
    """
    assert tasks_shop.python(code, worker.url) == [42, "add", None]


def test_our_client_and_arqs_own_worker(tasks_shop: Shop, redis_url: str) -> None:
    tasks_shop.python("result = (await enqueue('sum', [1, 2, 3])).job_id", redis_url)
    code = """
        import asyncio

        from arq import Worker, func
        from core.arq import get_redis_settings
        from core.arq_serializer import deserialize, serialize

        async def add(ctx, numbers):
            return sum(numbers)

        async def main():
            worker = Worker(
                [func(add, name="sum")],
                burst=True,
                redis_settings=get_redis_settings(),
                job_serializer=serialize,
                job_deserializer=deserialize,
                poll_delay=0,
                queue_name="arq:queue:shop",
            )
            assert type(worker).__module__ == "arq.worker"
            await worker.async_run()
            print("jobs_complete", worker.jobs_complete)
            await worker.close()

        asyncio.run(main())
    """
    assert "jobs_complete 1" in tasks_shop.script(code, redis_url)


# --- Status and abort -----------------------------------------------------------------

KEYS = [
    "job_id",
    "status",
    "function",
    "args",
    "kwargs",
    "job_try",
    "enqueue_time",
    "score",
    "success",
    "result",
    "start_time",
    "finish_time",
    "progress",
]


def test_status_of_an_unknown_job(shop_with_queue: Shop, redis_url: str) -> None:
    code = "result = await get_job_status('nope')"
    assert shop_with_queue.python(code, redis_url) is None


def test_status_from_queued_to_complete(tasks_shop: Shop, redis_url: str) -> None:
    code = """
        await enqueue("add", 1, b=2, _job_id="j")
        result = await get_job_status("j")
    """
    queued = tasks_shop.python(code, redis_url)
    assert list(queued) == KEYS
    assert queued["status"] == "queued"
    assert (queued["args"], queued["kwargs"]) == ([1], {"b": 2})
    assert queued["success"] is None
    code = """
        done = await get_job_status("j")
        await enqueue("slow", _job_id="s")
        for _ in range(400):
            running = await get_job_status("s")
            if running["status"] != "queued":
                break
            await asyncio.sleep(0.02)
        await abort_job("s")
        result = [done, running]
    """
    with tasks_shop.worker(redis_url) as worker:
        worker.wait_for("j:add ●")
        done, running = tasks_shop.python(code, redis_url)
    assert list(done) == KEYS
    assert (done["status"], done["success"], done["result"]) == ("complete", True, 3)
    assert done["job_try"] == 1
    assert running["status"] == "in_progress"


def test_status_of_a_failed_job(tasks_shop: Shop, worker: WorkerLog) -> None:
    status = result_of(tasks_shop, worker.url, "enqueue('once')")
    assert status["success"] is False
    assert status["result"] == "ValueError: never again"


def test_status_of_what_cannot_be_decoded(
    shop_with_queue: Shop, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("arq:result:broken", b"\\x80\\x04pickle")
    status = shop_with_queue.python(
        "result = await get_job_status('broken')", redis_url
    )
    assert status["status"] == "complete"
    assert "unable to deserialize" in status["result"]


def test_abort(tasks_shop: Shop, worker: WorkerLog) -> None:
    code = """
        await enqueue("slow", _job_id="running")
        await enqueue("add", 1, _job_id="waiting", _defer_by=60)
        while (await get_job_status("running"))["status"] != "in_progress":
            await asyncio.sleep(0.02)
        names = ("running", "waiting", "unknown")
        result = [await abort_job(name) for name in names]
        result.append((await get_job_status("running"))["result"])
    """
    *aborted, error = tasks_shop.python(code, worker.url)
    assert aborted == [True, True, False]
    assert "CancelledError" in error


def test_a_job_past_its_timeout_fails(tasks_shop: Shop, redis_url: str) -> None:
    with tasks_shop.worker(redis_url, ARQ_JOB_TIMEOUT="1"):
        status = result_of(tasks_shop, redis_url, "enqueue('slow')")
        assert status["result"].startswith("TimeoutError")


# --- Worker settings --------------------------------------------------------------------


def test_each_queue_has_its_own_worker(tasks_shop: Shop, redis_url: str) -> None:
    code = """
        normal = await enqueue("add", 2)
        high = [await enqueue("add", n, _queue_name="high") for n in range(3)]
        values = [await job.result(timeout=10, poll_delay=0.02) for job in high]
        result = [values, (await get_job_status(normal.job_id))["status"]]
    """
    with tasks_shop.worker(redis_url, name="core.tasks.HighPriorityWorkerSettings"):
        assert tasks_shop.python(code, redis_url) == [[0, 1, 2], "queued"]


def test_log_lines_carry_the_job(tasks_shop: Shop, redis_url: str) -> None:
    with tasks_shop.worker(redis_url, LOG_FORMAT="json") as worker:
        result_of(tasks_shop, redis_url, "enqueue('add', 1, _job_id='my-job')")
        worker.wait_for("adding")
        lines = [line for line in worker.text.splitlines() if "adding" in line]
        assert len(lines) == 1
        line = json.loads(lines[0])
        assert (line["job_id"], line["job_try"], line["a"]) == ("my-job", 1, 1)


def test_chained_tasks(tasks_shop: Shop, worker: WorkerLog) -> None:
    code = """
        from arq.jobs import Job
        from core.arq_serializer import deserialize

        first = await enqueue("chained", 21)
        job_id = await first.result(timeout=5, poll_delay=0.02)
        second = Job(job_id, await get_pool(), "arq:queue:shop", deserialize)
        result = await second.result(timeout=5, poll_delay=0.02)
    """
    assert tasks_shop.python(code, worker.url) == 42


def test_a_task_uses_the_database(own_shop_with_queue: Shop, redis_url: str) -> None:
    query = """from sqlalchemy import text

    async with ctx["session_factory"]() as session:
        user_id = (await session.execute(text("SELECT 41 + 1"))).scalar()"""
    placeholder = "await asyncio.sleep(1)  # your email provider here"
    own_shop_with_queue.edit("core/tasks.py", placeholder, query)
    with own_shop_with_queue.worker(redis_url):
        status = result_of(
            own_shop_with_queue, redis_url, "enqueue('send_welcome_email', 1)"
        )
        assert status["result"]["user_id"] == 42


METRICS_SETTINGS = """
    from prometheus_client import generate_latest


    async def on_shutdown(ctx):
        print(generate_latest().decode())


    class MetricsSettings(WorkerSettings):
        functions = [
            *WorkerSettings.functions,
            func(slow, name="brief", timeout=0.1, max_tries=1),
            func(slow, name="stopped"),
        ]
        on_shutdown = on_shutdown
        job_completion_wait = 0
"""


@pytest.mark.slow
def test_metrics(shop: Shop, paxx: Path, redis_url: str) -> None:
    shop.paxx(paxx, "infra", "add", "metrics")
    shop.copy()
    tasks = TASKS.replace("core.arq", "services.arq")
    shop.write_tasks(tasks + METRICS_SETTINGS)
    port = free_port()
    code = """
        jobs = [
            await enqueue(*call)
            for call in (["add", 1], ["flaky", 1], ["once"], ["brief"], ["slow"])
        ]
        await enqueue("stopped")
        while (await get_job_status(jobs[-1].job_id))["status"] != "in_progress":
            await asyncio.sleep(0.02)
        await abort_job(jobs[-1].job_id)
        for job in jobs:
            while (await get_job_status(job.job_id))["status"] != "complete":
                await asyncio.sleep(0.02)
        result = len(jobs)
    """

    def metrics() -> list[str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
            return response.read().decode().splitlines()

    with redis.Redis.from_url(redis_url) as client:
        for job_id, task in (("killed", "add"), ("nowhere", "nowhere")):
            job = {"t": None, "f": task, "a": [1], "k": {}, "et": 1_700_000_000_000}
            client.set(f"arq:job:{job_id}", json.dumps(job))
        client.set("arq:retry:killed", 3)  # its tries so far; no error is known of them
        client.zadd("arq:queue:shop", {"killed": 1, "nowhere": 1, "expired": 1})
    name = "services.tasks.MetricsSettings"
    with shop.worker(redis_url, name=name, ARQ_METRICS_PORT=str(port)) as worker:
        assert shop.python(code, redis_url) == 5
        expected = {
            f'arq_jobs_total{{outcome="{outcome}",task="{task}"}} 1.0'
            for task, outcome in (
                ("add", "complete"),
                ("flaky", "retried"),
                ("flaky", "complete"),
                ("once", "failed"),
                ("brief", "timeout"),
                ("slow", "aborted"),
                ("add", "killed"),
                ("<unknown>", "expired"),
            )
        }
        wait_for(lambda: expected <= set(metrics()), 10, worker.path)
        lines = metrics()
        counted = [line for line in lines if line.startswith("arq_jobs_total{")]
        unknown = [line for line in counted if 'outcome="unknown"' in line]
        assert len(unknown) == 1 and 'task="<unknown>"' in unknown[0]
        assert set(counted) == {*expected, *unknown}
        assert 'arq_job_duration_seconds_count{task="flaky"} 2.0' in lines
        assert "arq_jobs_running 1.0" in lines
        assert any(line.startswith("arq_jobs_queued{queue=") for line in lines)
    assert 'arq_jobs_total{outcome="released",task="stopped"} 1.0' in worker.text


# --- Serializer -------------------------------------------------------------------------


def test_values_come_back_as_they_were(tasks_shop: Shop, worker: WorkerLog) -> None:
    code = """
        from datetime import date, datetime, time, timedelta, timezone
        from decimal import Decimal
        from uuid import uuid4

        values = [
            None, True, 1, 1.5, "ü", [1, [2]], {"a": {"b": 1}},
            datetime(2026, 1, 2, 3, 4, 5, 6, timezone.utc), datetime(2026, 1, 2),
            date(2026, 1, 2), time(1, 2), timedelta(days=1, microseconds=5),
            Decimal("1.10"), uuid4(), b"\\x00\\xff", {1, 2}, frozenset([3]),
            {"__arq__": "no such tag"}, {"$date": "2026-01-01"},
        ]
        jobs = await enqueue_many("echo", [{"value": value} for value in values])
        back = [await job.result(timeout=10, poll_delay=0.02) for job in jobs]
        result = [[a == b, type(a) is type(b), repr(a)] for a, b in zip(values, back)]
    """
    for same, same_type, value in tasks_shop.python(code, worker.url):
        assert same and same_type, value


def test_models_and_dataclasses_come_back_as_dicts(
    tasks_shop: Shop, worker: WorkerLog
) -> None:
    code = """
        from dataclasses import dataclass
        from uuid import UUID

        from pydantic import BaseModel

        class User(BaseModel):
            id: UUID

        @dataclass
        class Point:
            x: int

        values = [User(id=UUID(int=1)), Point(1), (1, 2)]
        jobs = await enqueue_many("types", [{"value": value} for value in values])
        result = [await job.result(timeout=10, poll_delay=0.02) for job in jobs]
    """
    assert tasks_shop.python(code, worker.url) == [
        "{'id': UUID('00000000-0000-0000-0000-000000000001')}",
        "{'x': 1}",
        "(1, 2)",
    ]


def test_an_exception_comes_back_readable(tasks_shop: Shop, worker: WorkerLog) -> None:
    code = """
        job = await enqueue("once")
        try:
            await job.result(timeout=5, poll_delay=0.02)
        except Exception as exc:
            result = [type(exc).__name__, str(exc)]
    """
    result = tasks_shop.python(code, worker.url)
    assert result == ["TaskError", "ValueError: never again"]


def test_pickle_in_one_line(tasks_shop: Shop, redis_url: str) -> None:
    env = {"ARQ_SERIALIZER": "pickle"}
    with tasks_shop.worker(redis_url, **env):
        status = result_of(tasks_shop, redis_url, "enqueue('types', (1, 2j))", **env)
        assert status["result"] == "(1, 2j)"
        failed = result_of(tasks_shop, redis_url, "enqueue('once')", **env)
        assert failed["result"] == "ValueError: never again"


def test_no_code_runs_from_what_is_in_redis(worker: WorkerLog, tmp_path: Path) -> None:
    """A pickle that would create a file when it is loaded."""
    mark = tmp_path / "owned"
    payload = f"cos\nsystem\n(S'touch {mark}'\ntR.".encode()
    with redis.Redis.from_url(worker.url) as client:
        client.set("arq:job:evil", payload)
        client.zadd("arq:queue:shop", {"evil": 1})
        wait_for(lambda: client.exists("arq:result:evil"), 10, worker.path)
    assert not mark.exists()


def test_max_burst_jobs(tasks_shop: Shop, redis_url: str) -> None:
    code = """
        from arq.worker import create_worker
        from core.tasks import WorkerSettings

        await enqueue_many("add", [{"a": n} for n in range(5)])
        worker = create_worker(WorkerSettings, burst=True, handle_signals=False)
        result = [
            await worker.run_check(max_burst_jobs=2),
            await worker.pool.zcard("arq:queue:shop"),
        ]
        await worker.close()
    """
    assert tasks_shop.python(code, redis_url) == [2, 3]


# --- Sentinel and TLS -------------------------------------------------------------------


def test_sentinel(tasks_shop: Shop, own_redis: OwnRedis, tmp_path: Path) -> None:
    with sentinel(own_redis, tmp_path) as port:
        url = f"sentinel://127.0.0.1:{port}/queue/2"
        with tasks_shop.worker(url):
            assert result_of(tasks_shop, url, "enqueue('add', 2)")["result"] == 2
    with redis.Redis(port=own_redis.port, db=2) as client:
        assert client.keys("arq:result:*")


@pytest.mark.slow
def test_tls(tasks_shop: Shop, own_redis: OwnRedis, tmp_path: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem", *subject),
        ]
    )
    own_redis.stop()
    port = str(free_port())
    files = (
        "--tls-cert-file",
        f"{tmp_path}/cert.pem",
        "--tls-key-file",
        f"{tmp_path}/key.pem",
    )
    try:
        own_redis.start("--tls-port", port, "--tls-auth-clients", "no", *files)
    except RuntimeError:
        pytest.skip("this server is built without TLS")
    url = f"rediss://localhost:{port}/1"
    trusted = f"{url}?ssl_ca_certs={tmp_path}/cert.pem"
    with tasks_shop.worker(trusted):
        assert result_of(tasks_shop, trusted, "enqueue('add', 2)")["result"] == 2
    # neither a certificate of unknown origin nor another host's is taken
    for wrong in (url, trusted.replace("localhost", "127.0.0.1")):
        code = """
            try:
                await enqueue("add", 1)
                result = "connected"
            except Exception as exc:
                result = repr(exc)
        """
        error = tasks_shop.python(code, wrong)
        assert "certificate verify failed" in error.lower()
