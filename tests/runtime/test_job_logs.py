"""What a job has logged is seen with it: while it runs, and when it has failed."""

import asyncio
import io
import json
import logging
from typing import Any

import pytest
import redis
import structlog
from arq import func
from arq_runtime.operate.command import Project, command
from click.testing import CliRunner
from kit import QUEUE, App, until
from page_site import NOW, keep_failed, served
from processes import Processes

Ctx = dict[str, Any]
logger = logging.getLogger("shop.tasks")


@pytest.fixture(autouse=True)
def stream(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What the log has: structlog's, with colours, as of a new Paxx project."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(lambda record: "password" not in record.getMessage())
    renderer = structlog.dev.ConsoleRenderer(colors=True)
    formatter = structlog.stdlib.ProcessorFormatter(processor=renderer)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.INFO)
    root.manager._clear_cache()  # type: ignore[attr-defined]
    return stream


async def chatty(ctx: Ctx, name: str, lines: int = 0) -> None:
    logger.info("%s begins", name)
    logger.debug("%s thinks", name)
    logger.info("the password of %s", name)
    await asyncio.to_thread(logger.warning, "%s in a thread", name)
    async with asyncio.TaskGroup() as group:
        group.create_task(ask(name))
    for i in range(lines):
        logger.info("line %d", i)
    raise ValueError(name)


async def ask(name: str) -> None:
    logger.info("%s in a task of its own", name)


def plain(ctx: Ctx, name: str) -> None:
    logger.info("%s in a plain function", name)
    raise ValueError(name)


async def verbose(ctx: Ctx) -> None:
    for _ in range(50):
        logger.info("y" * 1_000_000)
    raise ValueError


TASKS = (
    *(func(task, name=task.__name__, max_tries=1) for task in (chatty, verbose)),
    plain,
)


async def log_of(app: App, job_id: str) -> str:
    """Once it has failed."""
    await until(lambda: app.redis.exists(f"arq:failed:{job_id}"), 60)
    job = await app.operations.get_job(job_id)
    assert job is not None
    return job.log


async def test_its_own_lines_and_those_that_the_log_has(
    app: App, stream: io.StringIO
) -> None:
    async with app.worker(*TASKS, keep_logs=100, max_tries=1):
        for name in ("ada", "eve"):
            await app.enqueue("chatty", name, _job_id=name)
        await app.enqueue("plain", "bob", _job_id="bob")
        for name in ("ada", "eve"):
            said = await log_of(app, name)
            places = ["begins", "in a thread", "in a task of its own"]
            lines = [line.strip() for line in said.splitlines()]
            assert lines == [f"{name} {place}" for place in places]
        assert (await log_of(app, "bob")).strip() == "bob in a plain function"
    for text in ("ada begins", "eve begins", "ValueError: ada"):
        assert text in stream.getvalue()  # which has its lines as ever
    assert "\x1b[" in stream.getvalue()


@pytest.mark.slow
async def test_the_newest_ones(app: App) -> None:
    async with app.worker(*TASKS, keep_logs=20):
        await app.enqueue("chatty", "x", 300, _job_id="many")
        lines = (await log_of(app, "many")).splitlines()
        assert len(lines) == 20 and "line 280" in lines[0] and "line 299" in lines[-1]
    async with app.worker(*TASKS, keep_logs=100):
        await app.enqueue("verbose", _job_id="long")
        said = await log_of(app, "long")
        assert 9_000 < len(said) <= 10_000 and said.count("y" * 1000) == 9


async def test_it_goes_where_the_failed_job_goes(app: App, redis_url: str) -> None:
    async with app.worker(*TASKS, keep_logs=9):
        await app.enqueue("chatty", "x", _job_id="one")
        said = await log_of(app, "one")
    assert said.count("\n") == 2
    counted = await app.redis.hgetall(f"{QUEUE}:failed:bytes")
    assert await app.operations.discard_job("one")
    assert await app.operations.undiscard_job("one")
    assert await log_of(app, "one") == said
    assert await app.redis.hgetall(f"{QUEUE}:failed:bytes") == counted
    found = await app.operations.find_jobs("failed", brief=True)
    assert [job.log for job in found.jobs] == [""]

    def show() -> str:
        project: Any = Project(App(redis_url).operations, app.lookup.abort_job)
        return CliRunner().invoke(command, ["show", "one"], obj=project).output

    shown = await asyncio.to_thread(show)
    assert all(line in shown for line in said.splitlines())
    assert await app.operations.retry_job("one")
    job = await app.operations.get_job("one")
    assert job is not None and job.log == ""
    assert await app.redis.keys("arq:log:*") == []


async def test_while_it_runs(app: App) -> None:
    go_on = asyncio.Event()

    async def slow(ctx: Ctx) -> None:
        logger.info("step 1")
        await go_on.wait()
        logger.info("step 2")
        await asyncio.Event().wait()

    async def has(text: str) -> bool:
        job = await app.operations.get_job("slow")
        return job is not None and job.log.strip().endswith(text)

    async with app.worker(slow, keep_logs=5):
        job = await app.enqueue(slow, _job_id="slow")
        await until(lambda: has("step 1"), 60)
        assert 0 < await app.redis.ttl("arq:log:slow") <= 24 * 3600
        go_on.set()
        await until(lambda: has("step 2"), 60)
        assert await app.lookup.abort_job(job.job_id, timeout=60)
    assert await app.redis.keys("arq:log:*") == []


@pytest.mark.slow
async def test_what_a_killed_worker_has_written(app: App, processes: Processes) -> None:
    """Who runs out of memory cannot send the lines with the end."""
    worker = await processes.start(
        settings="json_logs.WorkerSettings",
        env={"LOGS": "json", "ARGUMENTS": "yes"},
        keep_logs=5,
        lease=2,
    )
    await app.enqueue("say", "all is well", _job_id="killed")
    await until(lambda: app.redis.exists("arq:log:killed"), 60)
    worker.kill()

    async def say(ctx: Ctx, text: str) -> None: ...

    async with app.worker(func(say, name="say"), max_tries=1):
        said = json.loads(await log_of(app, "killed"))
    assert said["event"] == "all is well" and said["logger"] == "shop"


async def test_nothing_for_those_who_have_not_asked(app: App) -> None:
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    async with app.worker(*TASKS):
        await app.enqueue("chatty", "x", _job_id="one")
        assert await log_of(app, "one") == ""
    assert [handler.formatter for handler in logging.getLogger().handlers] == formatters


@pytest.mark.parametrize("lines", [-1, 101, 2.5, True])
def test_how_many(app: App, lines: Any) -> None:
    with pytest.raises(ValueError, match="keep_logs must be a number of lines from 0"):
        app.settings(keep_logs=lines)


@pytest.mark.parametrize("is_shown", [True, False])
def test_the_page_hides_it_with_the_arguments(redis_url: str, is_shown: bool) -> None:
    with redis.Redis.from_url(redis_url) as db:
        keep_failed(db, "one", "mend", NOW, log="line <1>")
    with served(App(redis_url), show_arguments=is_shown) as site:
        job = site.api("job", queue=QUEUE, id="one").json
        assert job["log"] == ("line <1>" if is_shown else "hidden")
