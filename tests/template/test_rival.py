"""One test for each way in which `paxx ext add arq` does not do what it says."""

import re

import pytest
import redis
from support import QUEUE, Shop, run, wait_for

pytestmark = pytest.mark.slow

FAILING = """
    import logging

    from core.arq_worker import BaseWorkerSettings

    logger = logging.getLogger(__name__)


    async def fail(ctx):
        logger.info("trying %s", ctx["job_try"])
        raise ValueError("no")


    class WorkerSettings(BaseWorkerSettings):
        functions = [fail]
        retry_delay = 0.5


    class HighPriorityWorkerSettings(WorkerSettings):
        queue_name = "high"
"""


@pytest.fixture
def failing(own_shop_with_queue: Shop) -> Shop:
    own_shop_with_queue.write_tasks(FAILING)
    return own_shop_with_queue


def test_get_job_status_raises_attribute_error(
    shop_with_queue: Shop, redis_url: str
) -> None:
    code = """
        job = await enqueue("process_webhook", payload={})
        result = await get_job_status(job.job_id)
    """
    status = shop_with_queue.python(code, redis_url)
    assert status["function"] == "process_webhook"


def test_a_plain_exception_fails_for_good(failing: Shop, redis_url: str) -> None:
    failing.python("result = (await enqueue('fail')).job_id", redis_url)
    with failing.worker(redis_url) as worker:
        worker.wait_for("trying 3")


def test_retry_delay_is_ignored(failing: Shop, redis_url: str) -> None:
    failing.python("result = (await enqueue('fail')).job_id", redis_url)
    with failing.worker(redis_url) as worker:
        worker.wait_for("trying 3")
        first, second = re.findall(r"again in ([\d.]+)s", worker.text)
    assert 0.5 <= float(first) <= 0.63
    assert 1.0 <= float(second) <= 1.25


def test_a_subclass_of_worker_settings_has_no_tasks(
    failing: Shop, redis_url: str
) -> None:
    failing.python(
        "result = (await enqueue('fail', _queue_name='high')).job_id", redis_url
    )
    with failing.worker(
        redis_url, name="core.tasks.HighPriorityWorkerSettings"
    ) as worker:
        worker.wait_for("trying 1")


def test_jobs_without_a_queue_name_are_never_seen(
    shop_with_queue: Shop, redis_url: str
) -> None:
    with shop_with_queue.worker(redis_url), redis.Redis.from_url(redis_url) as client:
        shop_with_queue.python(
            "result = (await enqueue('process_webhook', {})).job_id", redis_url
        )
        wait_for(lambda: client.zcard(QUEUE) == 0, 10)


def test_watch_needs_a_directory(shop_with_queue: Shop) -> None:
    """The command in the message and in tasks.py has one."""
    text = (shop_with_queue / "core/tasks.py").read_text()
    [command] = re.findall(r"uv run (arq core.tasks.WorkerSettings --watch.*)", text)
    assert command.split()[-1] == "."
    usage = run([shop_with_queue.env / "bin/arq", "--help"]).stdout
    assert "--watch DIRECTORY" in usage


def test_what_a_task_logs_is_not_printed(failing: Shop, redis_url: str) -> None:
    failing.python("result = (await enqueue('fail')).job_id", redis_url)
    with failing.worker(redis_url) as worker:
        worker.wait_for("trying 1")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:p%40ss@h/1", "'p@ss'"),
        ("redis://h?db=3", "3"),
        ("unix:///tmp/redis.sock", "'/tmp/redis.sock'"),
        ("redis://user:p@h", "'user'"),
        ("redis://h/1/", "1"),
    ],
)
def test_urls_are_mangled(shop_with_queue: Shop, url: str, expected: str) -> None:
    code = "from core.arq import get_redis_settings as s; print(s())"
    output = shop_with_queue.script(code, url)
    assert f"={expected}," in output


def test_two_first_calls_make_two_pools(shop_with_queue: Shop, redis_url: str) -> None:
    code = """
        a, b = await asyncio.gather(get_pool(), get_pool())
        result = a is b
    """
    assert shop_with_queue.python(code, redis_url)


def test_max_jobs_is_a_string(shop_with_queue: Shop) -> None:
    code = "from settings import settings as s; print(type(s.arq_max_jobs).__name__)"
    assert shop_with_queue.script(code) == "int\n"


def test_the_app_container_does_not_know_redis(shop_with_queue: Shop) -> None:
    text = (shop_with_queue / "docker-compose.override.yml").read_text()
    app = text[text.index("  app:") : text.index("  worker:")]
    assert "ARQ_REDIS_URL=redis://redis:6379/1" in app


def test_the_database_import_has_another_name(shop_with_queue: Shop) -> None:
    shop_with_queue.script("from core.tasks import async_session_factory")


def test_the_worker_container_has_no_health_check_and_no_grace(
    shop_with_queue: Shop,
) -> None:
    text = (shop_with_queue / "docker-compose.override.yml").read_text()
    worker = text[text.index("  worker:") : text.index("  redis:\n    image")]
    assert '"--check"' in worker
    assert "stop_grace_period" in worker


def test_a_second_run_overwrites_the_tasks(own_shop_with_queue: Shop) -> None:
    own_shop_with_queue.write_tasks(FAILING)
    mine = (own_shop_with_queue / "core/tasks.py").read_text()
    own_shop_with_queue.commit()
    own_shop_with_queue.copy("--overwrite")
    assert (own_shop_with_queue / "core/tasks.py").read_text() == mine
