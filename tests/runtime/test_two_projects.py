"""Two projects with default answers share a Redis, and the database in it."""

import asyncio
from collections import Counter
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import pytest
from arq import cron, func
from arq.cron import CronJob
from arq.worker import Function
from arq_runtime.worker.install import check_health
from arq_runtime.worker.options import no_retry
from arq_runtime.worker.worker import Worker
from kit import App, until

Ctx = dict[str, Any]


class Project:
    """One of them: either has tasks of the same names, and one that the other lacks."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.app = App(url, f"arq:queue:{name}")
        self.counted: Counter[str] = Counter()
        self.ticks: Counter[str] = Counter()
        self.tasks = self._tasks()
        self.options: dict[str, Any] = {
            "cron_jobs": [self._cron()],
            "health_check_interval": 1,
        }
        self.settings = self.app.settings(*self.tasks, **self.options)

    def worker(self) -> AbstractAsyncContextManager[Worker]:
        return self.app.worker(*self.tasks, **self.options)

    def _tasks(self) -> list[Function]:
        async def count(ctx: Ctx) -> None:
            self.counted["count"] += 1

        async def only(ctx: Ctx) -> None:
            self.counted["only"] += 1

        @no_retry(ValueError)
        async def fail(ctx: Ctx) -> None:
            raise ValueError(self.name)

        return [
            func(count, name="count"),
            func(only, name=f"only_{self.name}"),
            func(fail, name="fail"),
        ]

    def _cron(self) -> CronJob:
        async def tick(ctx: Ctx) -> None:
            self.ticks[ctx["job_id"].rpartition(":")[2]] += 1

        return cron(tick, name="tick", second={*range(60)})

    async def enqueue(self) -> None:
        await self.app.client.enqueue_many("count", [{}] * 50)
        await self.app.client.enqueue_many(f"only_{self.name}", [{}] * 50)
        await self.app.enqueue("fail", _job_id=f"fail {self.name}")

    async def is_healthy(self) -> bool:
        return await asyncio.to_thread(check_health, self.settings) == 0

    async def has_run(self) -> bool:
        """Have all its jobs run?"""
        failed = await self.app.redis.zrange(f"{self.app.queue}:failed", 0, -1)
        return bool(failed) and self.counted == {"count": 50, "only": 50}


async def test_two_projects_with_default_answers(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    shop, store = projects = Project("shop", redis_url), Project("store", redis_url)
    for project in projects:
        await project.enqueue()
    async with AsyncExitStack() as stack:
        # alone first, with the jobs of both before it
        await stack.enter_async_context(shop.worker())
        await until(shop.has_run)
        assert await store.app.queued() == 101
        await until(shop.is_healthy)
        assert not await store.is_healthy()
        await stack.enter_async_context(store.worker())
        await until(store.has_run)
        # both enqueue the same second's run
        await until(lambda: len({*shop.ticks} & {*store.ticks}) > 0)
    for project in projects:
        assert {*project.ticks.values()} == {1}
        assert project.counted == {"count": 50, "only": 50}
        failed = await project.app.failed(f"fail {project.name}")
        assert failed["error"] == f"ValueError: {project.name}"
        ids = await project.app.redis.zrange(f"{project.app.queue}:failed", 0, -1)
        assert ids == [f"fail {project.name}".encode()]
        await project.app.close()
    assert "not known here" not in caplog.text
