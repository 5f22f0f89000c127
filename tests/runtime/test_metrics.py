"""Prometheus metrics of a worker."""

import asyncio
import json
import urllib.request
from contextlib import AsyncExitStack
from typing import Any

import pytest
from arq import func
from arq_runtime.worker.observers.metrics import Metrics
from arq_runtime.worker.observers.observer import Observer
from arq_runtime.worker.options import OBSERVERS
from kit import QUEUE, App, until
from prometheus_client import REGISTRY
from support import free_port

Ctx = dict[str, Any]


async def fine(ctx: Ctx) -> None: ...


async def flaky(ctx: Ctx) -> None:
    if ctx["job_try"] == 1:
        raise ValueError("the first try")


async def once(ctx: Ctx) -> None:
    raise ValueError("never again")


async def slow(ctx: Ctx) -> None:
    await asyncio.sleep(60)


TASKS = (
    *(fine, flaky, slow, func(once, name="once", max_tries=1)),
    func(slow, name="brief", timeout=0.1, max_tries=1),
    func(slow, name="stopped"),
)


def jobs() -> dict[tuple[str, str], float]:
    """The ends that were counted, by task and outcome; all tests' together."""
    return {
        (sample.labels["task"], sample.labels["outcome"]): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "arq_jobs_total"
    }


def page_of(port: int) -> list[str]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as response:
        text: str = response.read().decode()
    return text.splitlines()


async def test_metrics(app: App) -> None:
    for job_id, task in (("killed", "fine"), ("nowhere", "nowhere")):
        job: dict[str, Any] = {"t": None, "f": task, "a": [], "k": {}}
        job["et"] = 1_700_000_000_000
        await app.redis.set(f"arq:job:{job_id}", json.dumps(job))
    # its tries so far; no error is known of them
    await app.redis.set("arq:retry:killed", 3)
    await app.redis.zadd(QUEUE, {"killed": 1, "nowhere": 1, "expired": 1})
    for name in ("fine", "flaky", "once", "brief", "stopped"):
        await app.enqueue(name)
    await app.enqueue("slow", _job_id="slow")
    before, port = jobs(), free_port()
    expected = {
        ("fine", "complete"),
        ("flaky", "retried"),
        ("flaky", "complete"),
        ("once", "failed"),
        ("brief", "timeout"),
        ("slow", "aborted"),
        ("fine", "killed"),
        ("<unknown>", "expired"),
        ("<unknown>", "unknown"),
    }

    def counted() -> set[tuple[str, str]]:
        now = jobs()
        return {key for key in now if now[key] == before.get(key, 0) + 1}

    observers = (*OBSERVERS, Metrics(port))
    async with app.worker(*TASKS, observers=observers, job_completion_wait=0):
        await until(lambda: app.redis.exists("arq:in-progress:slow"))
        assert await app.lookup.abort_job("slow")
        await until(lambda: counted() == expected)
        lines = await asyncio.to_thread(page_of, port)
        flaky = f'queue="{QUEUE}",task="flaky"'
        assert f'arq_jobs_total{{outcome="complete",{flaky}}} 1.0' in lines
        assert f"arq_job_duration_seconds_count{{{flaky}}} 2.0" in lines
        assert f'arq_jobs_running{{queue="{QUEUE}"}} 1.0' in lines
    assert counted() == {*expected, ("stopped", "released")}


async def test_the_jobs_of_the_queue_are_counted(app: App) -> None:
    port = free_port()
    options = {"max_jobs": 1, "health_check_interval": 0.1, "job_completion_wait": 0}
    observers = (*OBSERVERS, Metrics(port))
    async with app.worker(*TASKS, observers=observers, **options):
        await app.enqueue("once", _job_id="failed")
        await app.result_of("failed")
        slow_job = await app.enqueue("slow")
        await until(lambda: app.redis.exists(f"arq:in-progress:{slow_job.job_id}"))
        for n in range(2):
            await app.enqueue("fine", _job_id=f"waits-{n}")
        await app.redis.zadd(QUEUE, {"waits-0": await app.now() - 30_000})
        await app.enqueue("fine", _defer_by=60)
        expected = {
            f'arq_queue_jobs{{queue="{QUEUE}",state="{state}"}} {number}'
            for state, number in (
                ("queued", 2.0),
                ("deferred", 1.0),
                ("in_progress", 1.0),
                ("failed", 1.0),
            )
        }
        lines: set[str] = set()

        async def are_shown() -> bool:
            nonlocal lines
            lines = {*await asyncio.to_thread(page_of, port)}
            return expected <= lines

        await until(are_shown, 30)
        [oldest] = [line for line in lines if line.startswith("arq_queue_oldest")]
        assert 29 < float(oldest.split()[-1]) < 90


@pytest.mark.slow
async def test_two_queues_of_a_process(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """They share the port; each queue's jobs are shown, until another process does."""
    port = free_port()
    options: dict[str, Any] = {"health_check_interval": 0.1}
    options["observers"] = (*OBSERVERS, Metrics(port))
    names = ("arq:queue:one", "arq:queue:two")

    async def shown() -> set[str]:
        lines = await asyncio.to_thread(page_of, port)
        counts = [line for line in lines if line.startswith("arq_queue_jobs{")]
        return {name for name in names if any(f'"{name}"' in line for line in counts)}

    async def are_shown(*expected: str) -> bool:
        return await shown() == {*expected}

    async with AsyncExitStack() as workers:
        for name in names:
            started = app.worker(fine, queue_name=name, **options)
            await workers.enter_async_context(started)
        for name in names:
            job = await app.enqueue("fine", _queue_name=name)
            await job.result(timeout=10)
        await until(lambda: are_shown(*names), 30)
        lines = await asyncio.to_thread(page_of, port)
        for name in names:
            labels = f'outcome="complete",queue="{name}",task="fine"'
            assert f"arq_jobs_total{{{labels}}} 1.0" in lines
        await app.redis.set(f"{names[0]}:gauges", "elsewhere")
        await until(lambda: are_shown(names[1]), 30)
    assert "No metrics" not in caplog.text


@pytest.mark.slow
async def test_one_worker_counts(app: App) -> None:
    """Until it ends; then another one does."""

    class Counting(Observer):
        counts: dict[str, float] | None = None
        times = 0

        def counted(self, queue: str, counts: dict[str, float] | None) -> None:
            self.counts, self.times = counts, self.times + 1

    shown = [Counting() for _ in range(3)]

    def counting() -> list[Counting]:
        return [one for one in shown if one.counts is not None]

    async with AsyncExitStack() as workers:
        for one in shown[1:]:
            started = app.worker(fine, observers=[one], health_check_interval=0.1)
            await workers.enter_async_context(started)
        async with app.worker(fine, observers=shown[:1], health_check_interval=0.1):
            await until(lambda: all(one.times > 5 for one in shown), 30)
            assert len(counting()) == 1
            await app.redis.set(f"{QUEUE}:gauges", "elsewhere")
            await until(lambda: not counting(), 30)
            await app.redis.delete(f"{QUEUE}:gauges")  # it has expired
            await until(counting, 30)
        await until(lambda: shown[1].counts or shown[2].counts, 30)
    assert not await app.redis.exists(f"{QUEUE}:gauges")


async def test_a_port_that_is_taken_is_no_failure(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    server = await asyncio.start_server(lambda *_: None, "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    await app.enqueue("fine", _job_id="one")
    await app.burst(fine, observers=(*OBSERVERS, Metrics(port)))
    assert await app.stored("one")
    assert f"No metrics on port {port}: " in caplog.text
    server.close()
