"""The history of a queue: how many jobs, how many failed, how long it took."""

import asyncio
import itertools
import json
from typing import Any

import pytest
from arq import func
from arq_runtime.operate.command import Project, command
from click.testing import CliRunner
from kit import QUEUE, App, until
from support import OwnRedis
from test_operations import FAIL, TASKS

Ctx = dict[str, Any]


async def total(app: App, name: str = "jobs", **options: Any) -> int:
    spans = await app.operations.history(10, **options)
    return sum(getattr(span, name) for span in spans)


@pytest.mark.usefixtures("short_waits")
async def test_what_has_ended(app: App) -> None:
    async def slow(ctx: Ctx) -> None:
        await asyncio.sleep(0.3)

    async with app.worker(FAIL, func(slow, name="slow")):
        for _ in range(5):
            await app.enqueue("fail")
            await app.enqueue("slow")

        async def are_all() -> bool:
            return await total(app) == 10

        await until(are_all)
    assert await total(app, "failed") == 5
    assert await total(app, task="slow") == 5
    assert await total(app, "failed", task="slow") == 0
    spans = [one for one in await app.operations.history(10, step=20) if one.jobs]
    assert sum(span.jobs for span in spans) == 10
    for span in await app.operations.history(10, task="slow"):
        if span.jobs:
            assert span.run_median is not None and span.run_95 is not None
            assert 0.25 < span.run_median <= span.run_95
            assert span.wait_median is not None and span.wait_median < 60
        else:
            assert span.run_median is None
    [key, *_] = await app.redis.keys(f"{QUEUE}:history:*")
    assert 0 < await app.redis.ttl(key) <= 8 * 3600 + 60


async def test_what_ends_last_counts_too(app: App) -> None:
    for _ in range(3):
        await app.enqueue("fine")
    await app.burst(*TASKS)
    assert await total(app) == 3


async def test_without_a_history(app: App) -> None:
    await app.enqueue("fine")
    await app.burst(*TASKS, history=0)
    assert await app.redis.keys(f"{QUEUE}:history:*") == []
    assert await total(app) == 0


async def test_it_is_at_most_so_many_keys(app: App) -> None:
    spans = await app.operations.history(10_000)
    assert len(spans) == 480
    spans = await app.operations.history(step=10)
    assert len(spans) == 48
    assert {(b.at - a.at).total_seconds() for a, b in itertools.pairwise(spans)} == {
        600
    }


async def test_what_others_left_there(app: App) -> None:
    minute = int(await app.now()) // 60_000
    for i in range(3):
        await app.redis.set(f"{QUEUE}:history:{minute + i}", "not ours")
    await app.enqueue("fine", _job_id="one")
    await app.burst(*TASKS)
    assert await app.redis.exists("arq:result:one")
    assert await total(app) == 0


@pytest.mark.usefixtures("short_waits")
async def test_an_outage_ends_no_worker(own_app: App, own_redis: OwnRedis) -> None:
    async with own_app.worker(*TASKS):
        await (await own_app.enqueue("fine")).result(25)
        own_redis.kill()
        own_redis.start()
        await (await own_app.enqueue("fine")).result(30)

        async def is_counted() -> bool:
            return await total(own_app) > 0

        await until(is_counted)


async def test_the_command_shows_it(app: App) -> None:
    await app.enqueue("fail")
    await app.burst(*TASKS)
    project = Project(App(app.url).operations, app.lookup.abort_job)
    runner = CliRunner()
    for arguments in (["stats", "--history"], ["stats", "--history", "--json"]):
        done = await asyncio.to_thread(runner.invoke, command, arguments, obj=project)
        assert done.exit_code == 0
        if "--json" in arguments:
            [queue] = json.loads(done.stdout)
            assert sum(span["failed"] for span in queue["history"]) == 1
        else:
            assert "█ at most 0.1" in done.stdout
            assert all(len(line) <= 80 for line in done.stdout.splitlines())
