"""What is discarded can be had back; and who has acted is known."""

import pytest
from arq_runtime.operate import jobs as operate_jobs
from kit import QUEUE, App
from test_operations import TASKS, keep_failed


async def test_a_discarded_job_comes_back_as_it_was(app: App) -> None:
    await app.enqueue("fail", text="x" * 5000, _job_id="one")
    await app.burst(*TASKS)
    before = await app.operations.get_job("one")
    counted = await app.redis.hgetall(f"{QUEUE}:failed:bytes")
    assert await app.operations.discard_job("one")
    assert await app.operations.get_job("one") is None
    assert await app.operations.undiscard_job("one")
    assert not await app.operations.undiscard_job("one")
    assert await app.operations.get_job("one") == before
    assert await app.redis.hgetall(f"{QUEUE}:failed:bytes") == counted
    assert await app.redis.ttl("arq:failed:one") > 29 * 24 * 3600
    assert await app.redis.keys("*discarded*") == []
    assert await app.operations.retry_job("one")


async def test_a_batch_comes_back_and_not_others(app: App) -> None:
    for name in ("a", "b", "c"):
        await keep_failed(app.redis, name, "fail", 1000)
    await app.operations.discard_job("a")
    assert await app.operations.discard_failed("fail", batch="these") == 2
    assert await app.operations.undiscard_jobs("those") == 0
    assert await app.operations.undiscard_jobs("these") == 2
    found = {job.job_id for job in await app.operations.list_jobs("failed")}
    assert found == {"b", "c"}
    assert await app.operations.undiscard_jobs() == 1


async def test_an_id_that_another_job_has_by_now(app: App) -> None:
    await keep_failed(app.redis, "one", "fail", 1000)
    await app.operations.discard_job("one")
    await app.enqueue("fine", _job_id="one")
    assert not await app.operations.undiscard_job("one")
    await app.burst(*TASKS)
    assert not await app.operations.undiscard_job("one")


async def test_so_many_can_be_had_back_and_for_so_long(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operate_jobs, "_MOST_DISCARDED", 5)
    async with app.redis.pipeline(transaction=False) as pipe:
        for i in range(700):
            await keep_failed(pipe, f"j{i}", "fail", 1000 + i)
        await pipe.execute()
    assert await app.operations.discard_failed() == 700
    assert len(await app.redis.keys("arq:discarded:*")) == 5
    assert await app.operations.undiscard_jobs() == 5
    found = [job.job_id for job in await app.operations.list_jobs("failed")]
    assert found == ["j699", "j698", "j697", "j696", "j695"]


async def test_a_retry_keeps_what_happened(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await app.enqueue("fail", _job_id="one")
    for _ in range(3):
        await app.burst(*TASKS)
        assert await app.operations.retry_failed("fail", by="ada") == 1
    found = await app.operations.get_job("one")
    assert found is not None and found.state == "queued"
    assert [one["error"] for one in found.errors] == 3 * ["ValueError: no", ""]
    assert {one.get("retried_by") for one in found.errors} == {None, "ada"}
    assert f"{QUEUE}: retry 1 jobs, by ada" in caplog.text
