"""The fixtures that a project's own tests use."""

from typing import Any

import pytest
from arq.worker import FailedJobs, func
from arq_runtime import testing
from arq_runtime.connection import parse_redis_url
from arq_runtime.values import TaskError
from kit import App

Ctx = dict[str, Any]


async def add(ctx: Ctx, a: int, b: int) -> int:
    return a + b + int(ctx.get("more", 0))


def plain(ctx: Ctx, n: int) -> int:
    return n * 2


async def fail(ctx: Ctx) -> None:
    raise ValueError("no")


async def chain(ctx: Ctx) -> None:
    await app.enqueue("add", a=1, b=2)


async def startup(ctx: Ctx) -> None:
    ctx["more"] = 100


# Nothing listens there: the fixtures must not need it.
app = App("redis://127.0.0.1:1/0")
Settings = app.settings(add, plain, fail, chain, func(add, name="named"), max_tries=1)
Other = app.settings(
    add,
    queue_name="arq:queue:other",
    redis_settings=parse_redis_url("redis://127.0.0.1:2/0"),
    on_startup=startup,
)

queue, run_jobs, inline_jobs = testing.fixtures(app.queues)


async def test_all_that_is_queued_is_run(run_jobs: testing.RunJobs) -> None:
    job = await app.enqueue(add, 1, b=2)
    assert await (await app.client.queues.default.redis()).zcard(app.queue) == 1
    await app.enqueue(chain)
    await app.enqueue(plain, 3)
    assert await run_jobs() == 4
    assert await job.result() == 3
    assert await run_jobs() == 0


@pytest.mark.parametrize("again", [1, 2])
async def test_each_test_has_an_empty_queue(
    run_jobs: testing.RunJobs, again: int
) -> None:
    assert await run_jobs() == 0
    await app.enqueue(plain, again)


async def test_a_failure_is_raised(run_jobs: testing.RunJobs) -> None:
    await app.enqueue(fail)
    with pytest.raises(FailedJobs, match="no"):
        await run_jobs()


async def test_a_queue_of_its_own_server(run_jobs: testing.RunJobs) -> None:
    job = await app.enqueue(add, 1, 2, _queue_name="arq:queue:other")
    assert await run_jobs() == 1
    assert await job.result() == 103


async def test_jobs_run_as_they_are_enqueued(
    inline_jobs: testing.InlineJobs,
) -> None:
    job = await app.enqueue(add, 1, b=2, _defer_by=60)
    assert await job.result() == 3
    assert await (await app.enqueue(plain, 2)).result() == 4
    await app.enqueue(chain)
    assert [one.task for one in inline_jobs] == ["add", "plain", "chain", "add"]
    failed = await app.enqueue(fail)
    with pytest.raises(TaskError, match="ValueError: no"):
        await failed.result()
    with pytest.raises(ValueError, match="did you mean 'plain'"):
        await app.enqueue("plan", n=1)
    with pytest.raises(TypeError, match="must be int"):
        await app.enqueue(plain, n="1")


async def test_an_id_runs_once_inline(inline_jobs: testing.InlineJobs) -> None:
    assert await app.client.enqueue(plain, 1, _job_id="a") is not None
    assert await app.client.enqueue(plain, 1, _job_id="a") is None
    assert await app.client.enqueue(plain, 1, _job_id="a", _replace=True)
    assert len(inline_jobs) == 2


async def test_without_an_embedded_server_there_is_fakeredis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> str:
        raise ImportError

    monkeypatch.setattr(testing, "_embedded_server", missing)
    with testing.empty_queue(app.queues):
        job = await app.enqueue(add, 1, 2)
        assert await testing.run_queued(app.queues) == 1
        assert await job.result() == 3
        await app.queues.close()
