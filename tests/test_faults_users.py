"""What arq's users bring along: settings of any kind, its options, their own loop."""

import subprocess
import textwrap
from pathlib import Path

import pytest
from faults import QUEUE, Faults
from support import Shop, wait_for

pytestmark = pytest.mark.slow

SETTINGS = """
    import logging

    from core.arq import get_redis_settings
    from core.arq_serializer import deserialize, serialize
    from core.arq_worker import BaseWorkerSettings
    from core.tasks import job, note, plain


    async def added(ctx, n):
        note("end", n)
        return n


    class WorkerSettings:
        '''As in arq's own documentation: no base class.'''

        functions = [job]
        queue_name = "arq:queue:faults"
        redis_settings = get_redis_settings()
        job_serializer = serialize
        job_deserializer = deserialize


    as_dict = {
        name: value
        for name, value in vars(WorkerSettings).items()
        if not name.startswith("_")
    }


    class Named(BaseWorkerSettings):
        functions = ["core.tasks.job"]
        queue_name = "arq:queue:faults"


    class Later(BaseWorkerSettings):
        functions = [plain]
        queue_name = "arq:queue:faults"


    Later.functions = [*Later.functions, added]

    log_dict = {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "own"}},
        "formatters": {"own": {"format": "OWN %(message)s"}},
        "loggers": {"arq": {"handlers": ["out"], "level": "INFO"}},
    }
"""


@pytest.fixture
def users(faults: Faults) -> Faults:
    faults.write_module("users", SETTINGS)
    return faults


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("WorkerSettings", "job"),
        ("as_dict", "job"),
        ("Named", "core.tasks.job"),
        ("Later", "added"),
    ],
)
def test_settings(users: Faults, name: str, task: str) -> None:
    worker = users.start(module="users", name=name)
    job_id = users.put(task, 1)
    assert users.wait_result(job_id)["r"] == 1
    code = f"""
        from core import users

        job = await enqueue({task!r}, 2, _queue_name={QUEUE!r})
        result = await job.result(timeout=10, poll_delay=0.05)
    """
    assert users.shop.python(code, users.url, env={"EVENTS": str(users.file)}) == 2
    assert worker.stop() == 0


def test_options_of_the_command(users: Faults) -> None:
    own = users.start("--custom-log-dict", "core.users.log_dict", module="users")
    loud = users.start("-v", module="users")
    job_id = users.put("job", "a")
    users.wait_result(job_id)
    for worker in (own, loud):
        assert worker.stop() == 0
    ours = [line for line in own.text.splitlines() if line.startswith("OWN ")]
    assert any("a:" in line or "job" in line for line in ours), own.text
    assert any("redis_version=" in line for line in ours)
    assert own.text.count("redis_version=") == 1  # once, not in two formats
    assert loud.text.count("redis_version=") == 1


PYTEST = '''
    import asyncio
    import logging
    from contextlib import suppress

    import pytest
    from arq import create_pool
    from core.arq import get_redis_settings
    from core.arq_serializer import deserialize, serialize
    from core.arq_worker import Worker


    async def add(ctx, a, b):
        return a + b


    @pytest.fixture
    def worker():
        """No event loop runs yet."""
        return Worker([add])


    def test_a_worker_of_a_sync_fixture(worker):
        assert worker.functions["add"]


    def test_a_pool_passed_in_and_caplog(caplog):
        caplog.set_level(logging.INFO)

        async def main():
            pool = await create_pool(
                get_redis_settings(), job_serializer=serialize,
                job_deserializer=deserialize,
            )
            connections = []
            for n in range(5):
                job = await pool.enqueue_job("add", n, b=1)
                worker = Worker(
                    [add], redis_pool=pool, burst=True, poll_delay=0.01,
                    handle_signals=False, queue_read_limit=1,
                    job_serializer=serialize, job_deserializer=deserialize,
                )
                assert await worker.run_check() == 1
                assert await job.result(poll_delay=0) == n + 1
                connections.append(len(await pool.client_list()))
            assert len(set(connections[1:])) == 1, connections
            others = asyncio.all_tasks() - {asyncio.current_task()}
            assert not others, others
            await pool.aclose()

        asyncio.run(main())
        assert "add(4, b=1)" in caplog.text


    def test_a_worker_runs_in_a_loop_of_the_application():
        async def main():
            worker = Worker(
                [add], handle_signals=False, redis_settings=get_redis_settings(),
                job_serializer=serialize, job_deserializer=deserialize,
            )
            running = asyncio.create_task(worker.async_run())
            while worker._pool is None:
                await asyncio.sleep(0.01)
            job = await worker.pool.enqueue_job("add", 1, b=1)
            assert await job.result(timeout=5, poll_delay=0.01) == 2
            await worker.close()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(main())


    def test_a_cancellation_that_gets_lost():
        """As asyncio.wait_for may lose it before Python 3.12."""
        async def main():
            started = asyncio.Event()

            async def loses_it(ctx):
                started.set()
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)

            worker = Worker(
                [add], handle_signals=False, redis_settings=get_redis_settings(),
                on_startup=loses_it,
            )
            running = asyncio.create_task(worker.async_run())
            await started.wait()
            await worker.close()
            with pytest.raises(asyncio.CancelledError):
                await running

        asyncio.run(main())
'''


def test_workers_made_in_the_users_own_tests(faults: Faults, tmp_path: Path) -> None:
    file = tmp_path / "test_users.py"
    file.write_text(textwrap.dedent(PYTEST))
    output = faults.shop.run(
        *("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"),
        *("--rootdir", str(tmp_path), "-c", "/dev/null", str(file)),
        env=faults.shop.settings(faults.url),
    )
    assert "4 passed" in output


# --- --watch


def test_watch(faults: Faults, own_shop_with_queue: Shop) -> None:
    shop = own_shop_with_queue
    tasks = shop / "core/tasks.py"
    code = (faults.shop / "core/tasks.py").read_text()
    tasks.write_text(code)
    faults.shop = shop
    worker = faults.start("--watch=.", max_tries=1, job_completion_wait=0)
    job_id = faults.put("once_slow", "a", 3.0)
    faults.wait_started("a")
    (shop / "data").mkdir()
    for n in range(3):  # what a task, or the host, may write
        (shop / f"data/out-{n}.txt").write_text("x")
        (shop / "app.log").open("a").write("x")
    assert faults.wait_result(job_id)["s"]
    assert len(faults.events("a", "start")) == 1

    again = faults.put("once_slow", "b", 600)
    faults.wait_started("b")
    tasks.write_text("def broken(:\n")
    worker.wait_for("SyntaxError")
    assert worker.lives
    fixed = code.replace("await asyncio.sleep(seconds)", "pass")
    assert fixed != code
    tasks.write_text(fixed)
    assert faults.wait_result(again)["s"]  # it had only one try
    pid = worker.pid
    worker.stop()
    wait_for(lambda: not alive_children(pid), 10)


def alive_children(pid: int) -> str:
    done = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True
    )
    return done.stdout.strip()


def test_watch_survives_code_that_cannot_be_imported(
    faults: Faults, own_shop_with_queue: Shop
) -> None:
    code = (faults.shop / "core/tasks.py").read_text()
    faults.shop = own_shop_with_queue
    tasks = own_shop_with_queue / "core/tasks.py"
    tasks.write_text(code)
    worker = faults.start("--watch", "core")
    tasks.write_text(code + "\nundefined_name\n")
    worker.wait_for("NameError")
    tasks.write_text(code)
    job_id = faults.put("job", 1)
    assert faults.wait_result(job_id)["s"]
    worker.stop()
