"""How many failed jobs are kept, and that none is dropped in silence."""

import itertools
from typing import Any

import pytest
from arq import func
from arq_runtime.worker import ends
from kit import QUEUE, App, until

Ctx = dict[str, Any]


async def noisy(ctx: Ctx, text: str = "") -> None:
    raise ValueError("noise")


async def pay(ctx: Ctx) -> None:
    raise ValueError("no money")


TASKS = (func(noisy, name="noisy", max_tries=1), func(pay, name="pay", max_tries=1))


async def kept(app: App) -> dict[str, list[str]]:
    """The ids of the failed jobs by task, the newest first."""
    jobs = await app.operations.list_jobs("failed", limit=100)
    jobs.sort(key=lambda job: job.task)
    return {
        task: [job.job_id for job in some]
        for task, some in itertools.groupby(jobs, lambda job: job.task)
    }


async def test_a_noisy_task_drops_no_failure_of_another(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ends, "MAX_FAILED", 3)
    await app.enqueue("pay", _job_id="p")
    await app.burst(*TASKS)
    for i in range(5):
        await app.enqueue("noisy", _job_id=f"n{i}")
        await app.burst(*TASKS)
    assert await kept(app) == {"noisy": ["n4", "n3", "n2"], "pay": ["p"]}
    stats = await app.operations.queue_stats()
    assert (stats.failed, stats.dropped) == (4, {"noisy": 2})
    assert "to make room, the oldest first: 1 of noisy. 3 of a task" in caplog.text
    assert not await app.redis.exists("arq:failed:n0", "arq:errors:n0")
    assert await app.operations.retry_job("p")


async def test_what_is_dropped_is_logged_at_intervals(
    app: App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ends, "MAX_FAILED", 1)
    monkeypatch.setattr(ends, "DROPS_S", 1)

    def said() -> int:
        texts = [one.getMessage() for one in caplog.records]
        texts = [text for text in texts if "first: " in text]
        return sum(int(text.split("first: ")[1].split()[0]) for text in texts)

    for i in range(20):
        await app.enqueue("noisy", _job_id=f"n{i}")
    async with app.worker(*TASKS):
        await until(lambda: said() == 19, 60)
    assert caplog.text.count("to make room") < 10


async def test_the_task_with_the_most_bytes_makes_room(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ends, "MAX_FAILED_BYTES", 300_000)
    for i in range(5):
        await app.enqueue("pay", _job_id=f"p{i}")
        await app.enqueue("noisy", "x" * 100_000, _job_id=f"n{i}")
        await app.burst(*TASKS)
    found = await kept(app)
    assert found["noisy"] == ["n4", "n3"] and len(found["pay"]) == 5
    assert (await app.operations.queue_stats()).dropped == {"noisy": 3}
    # the newest of a task stays, however large
    await app.enqueue("pay", _job_id="p5")
    await app.enqueue("noisy", "x" * 400_000, _job_id="n5")
    await app.burst(*TASKS)
    assert (await kept(app))["noisy"] == ["n5"]


async def test_what_is_failed_no_more_is_not_counted(app: App) -> None:
    ids = ["retried", "discarded", "replaced", "succeeds"]
    for job_id in ids:
        await app.enqueue("noisy", _job_id=job_id)
    await app.burst(*TASKS)
    counted = await app.redis.hgetall(f"{QUEUE}:failed:sizes")
    assert len(counted) == 4
    total = await app.redis.hget(f"{QUEUE}:failed:bytes", "noisy")
    assert int(total) == sum(map(int, counted.values()))
    await app.operations.retry_job("retried")
    await app.operations.discard_job("discarded")
    await app.enqueue("noisy", _job_id="replaced", _replace=True)
    await app.put("succeeds", await app.redis.hget("arq:failed:succeeds", "job"))

    async def better(ctx: Ctx, text: str = "") -> None: ...

    await app.burst(func(better, name="noisy"))
    assert await app.redis.hget(f"{QUEUE}:failed:bytes", "noisy") == b"0"
    assert not await app.redis.exists(
        f"{QUEUE}:failed:sizes", f"{QUEUE}:failed:of:noisy"
    )
    assert (await app.operations.queue_stats()).failed == 0


async def test_too_old_ones_are_forgotten_and_not_called_dropped(app: App) -> None:
    await app.enqueue("noisy", _job_id="old")
    await app.burst(*TASKS)
    await app.redis.zadd(f"{QUEUE}:failed:of:noisy", {"old": 1})
    await app.enqueue("noisy", _job_id="new")
    await app.burst(*TASKS)
    assert await app.redis.hkeys(f"{QUEUE}:failed:sizes") == [b"new"]
    assert (await app.operations.queue_stats()).dropped == {}


@pytest.mark.parametrize("name", ["of:noisy", "sizes", "bytes", "dropped"])
async def test_what_others_left_there_stops_nothing(app: App, name: str) -> None:
    await app.redis.set(f"{QUEUE}:failed:{name}", "not ours")
    await app.enqueue("noisy", _job_id="one")
    await app.burst(*TASKS)
    assert await kept(app) == {"noisy": ["one"]}
    assert await app.operations.discard_job("one")
