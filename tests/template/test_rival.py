"""What `paxx ext add arq` says of its queue, and does not do, holds of this one."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from support import Shop, WorkerLog, run

pytestmark = pytest.mark.slow

TASKS = """
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


# --- The worker -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(shop_with_queue: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A project with these tasks. Not to be changed."""
    shop = shop_with_queue.copy_to(tmp_path_factory.mktemp("rival") / "shop")
    shop.write_tasks(TASKS)
    return shop


@pytest.fixture(scope="module")
def said(shop: Shop, database_url: str) -> dict[str, Any]:
    """What the application is told as it enqueues."""
    code = """
        one, other = await asyncio.gather(get_pool(), get_pool())
        job = await enqueue("fail")
        await enqueue("fail", _queue_name="high")
        status = await get_job_status(job.job_id)
        result = {"one pool": one is other, "function": status["function"]}
    """
    return shop.python(code, database_url)


@pytest.fixture(scope="module")
def worker(shop: Shop, database_url: str, said: object) -> Iterator[WorkerLog]:
    """The worker that then fails the job three times."""
    with shop.worker(database_url) as worker:
        worker.wait_for("trying 3")
        yield worker


def test_the_status_of_a_job_can_be_asked_for(said: dict[str, Any]) -> None:
    assert said["function"] == "fail"


def test_the_first_calls_at_once_share_one_pool(said: dict[str, Any]) -> None:
    assert said["one pool"]


def test_a_job_without_a_queue_name_is_run(worker: WorkerLog) -> None:
    assert ":fail()" in worker.text


def test_what_a_task_logs_is_printed(worker: WorkerLog) -> None:
    assert "trying 1" in worker.text


def test_a_plain_exception_is_tried_again(worker: WorkerLog) -> None:
    assert "trying 2" in worker.text and "trying 3" in worker.text


def test_the_retry_delay_is_heeded(worker: WorkerLog) -> None:
    first, second = re.findall(r"again in ([\d.]+)s", worker.text)[:2]
    assert 0.5 <= float(first) <= 0.63
    assert 1.0 <= float(second) <= 1.25


def test_a_subclass_of_worker_settings_has_its_tasks(
    shop: Shop, database_url: str, said: object
) -> None:
    name = "core.tasks.HighPriorityWorkerSettings"
    with shop.worker(database_url, name=name) as worker:
        worker.wait_for("trying 1")


# --- Settings -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def settings(shop_with_queue: Shop) -> str:
    """What the project's code makes of the settings, where the URL is not a plain one."""
    code = """
        from core.arq import get_redis_settings
        from core.tasks import async_session_factory
        from settings import settings

        print(get_redis_settings(), type(settings.arq_max_jobs))
    """
    return shop_with_queue.script(code, "redis://me:p%40ss@h/?db=3")


def test_nothing_of_a_url_is_lost(settings: str) -> None:
    """Other forms: the tests of the runtime."""
    for part in ("host='h'", "username='me'", "password='p@ss'", "database=3"):
        assert part in settings


def test_max_jobs_is_a_number(settings: str) -> None:
    assert "<class 'int'>" in settings


def test_the_session_factory_is_imported_by_its_name(settings: str) -> None:
    """It failed otherwise."""
    assert settings


# --- Files ----------------------------------------------------------------------------


def test_the_command_to_watch_names_a_directory(shop_with_queue: Shop) -> None:
    """The command in the message and in tasks.py has one."""
    text = (shop_with_queue / "core/tasks.py").read_text()
    [command] = re.findall(r"uv run (arq core.tasks.WorkerSettings --watch.*)", text)
    assert command.split()[-1] == "."
    usage = run([shop_with_queue.env / "bin/arq", "--help"]).stdout
    assert "--watch DIRECTORY" in usage


def test_the_app_container_is_told_where_redis_is(shop_with_queue: Shop) -> None:
    text = (shop_with_queue / "docker-compose.override.yml").read_text()
    app = text[text.index("  app:") : text.index("  worker:")]
    assert "ARQ_REDIS_URL=redis://redis:6379/1" in app


def test_the_worker_container_is_checked_and_has_time_to_finish(
    shop_with_queue: Shop,
) -> None:
    text = (shop_with_queue / "docker-compose.override.yml").read_text()
    worker = text[text.index("  worker:") : text.index("  redis:\n    image")]
    assert "arq_runtime/worker/alive.py" in worker
    assert "stop_grace_period" in worker


def test_a_second_copy_keeps_the_tasks(own_shop_with_queue: Shop) -> None:
    own_shop_with_queue.write_tasks(TASKS)
    mine = (own_shop_with_queue / "core/tasks.py").read_text()
    own_shop_with_queue.commit()
    own_shop_with_queue.copy("--overwrite")
    assert (own_shop_with_queue / "core/tasks.py").read_text() == mine
