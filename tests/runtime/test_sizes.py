"""No size of a result or an argument ends the worker, or holds up another job."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from arq_runtime.worker import ends
from kit import App, until
from proxy import Proxy
from support import OwnRedis

MB = 1 << 20


@pytest.fixture
def narrow(own_redis: OwnRedis) -> Iterator[Proxy]:
    """A line of 100 Mbit/s to a server of the test's own."""
    with Proxy(own_redis.port) as proxy:
        proxy.bandwidth = 12.5e6
        yield proxy


async def large(ctx: dict[str, Any], size: int) -> str:
    return "x" * size


async def size_of(ctx: dict[str, Any], text: str) -> int:
    return len(text)


async def fail(ctx: dict[str, Any], size: int) -> None:
    raise ValueError("x" * size)


async def test_a_result_that_redis_takes_from_nobody(
    own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    app = App(own_redis.url)
    await app.redis.config_set("proto-max-bulk-len", MB)
    async with app.worker(large, max_jobs=40):
        too_large = await app.enqueue(large, 2 * MB)
        others = [await app.enqueue(large, 10) for _ in range(30)]
        for job in others:
            assert await job.result(25) == "x" * 10
        await until(lambda: _is_gone(app, too_large.job_id))
        assert "Redis does not take the result" in caplog.text
        assert await app.queued() == 0
    assert await app.stored(too_large.job_id) is None
    await app.close()


async def _is_gone(app: App, job_id: str) -> bool:
    return not await app.redis.exists(
        f"arq:job:{job_id}", f"arq:in-progress:{job_id}", f"arq:retry:{job_id}"
    )


@pytest.mark.slow
async def test_large_results_over_a_narrow_line(narrow: Proxy) -> None:
    app = App(f"redis://127.0.0.1:{narrow.port}/1")
    async with app.worker(large, max_jobs=40):
        jobs = [await app.enqueue(large, 8 * MB) for _ in range(10)]
        others = [await app.enqueue(large, 10) for _ in range(30)]
        await asyncio.gather(*(job.result(25) for job in others))
        for job in jobs:
            assert len(await job.result(30)) == 8 * MB
    await app.close()


@pytest.mark.slow
async def test_large_arguments_over_a_narrow_line(narrow: Proxy) -> None:
    app = App(f"redis://127.0.0.1:{narrow.port}/1")
    jobs = [await app.enqueue(size_of, "x" * (8 * MB)) for _ in range(10)]
    small = await app.enqueue(size_of, "x")
    async with app.worker(size_of, max_jobs=11):
        assert await small.result(25) == 1
        for job in jobs:
            assert await job.result(30) == 8 * MB
    await app.close()


@pytest.mark.slow
async def test_a_batch_over_a_narrow_line(narrow: Proxy) -> None:
    app = App(f"redis://127.0.0.1:{narrow.port}/1")
    calls = [{"text": "x" * 40_000} for _ in range(2_000)]
    jobs = await app.client.enqueue_many(size_of, calls)
    assert all(jobs)
    assert await app.queued() == 2_000
    await app.close()


async def test_ends_that_are_large_together_go_one_after_the_other(app: App) -> None:
    sizes = []
    send = ends.Ends._send

    async def note(self: Any, batch: Any, token: str) -> Any:
        sizes.append(sum(ends._size(one) for one in batch))
        return await send(self, batch, token)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ends.Ends, "_send", note)
        async with app.worker(large, max_jobs=20):
            jobs = [await app.enqueue(large, 300_000) for _ in range(20)]
            for job in jobs:
                assert len(await job.result(25)) == 300_000
    assert max(sizes) <= ends.BATCH_BYTES


async def test_a_large_failure_is_kept_short(app: App) -> None:
    async with app.worker(fail, max_tries=1):
        job = await app.enqueue(fail, 3 * MB)
        await until(lambda: app.failed(job.job_id))
    assert len((await app.failed(job.job_id))["error"]) <= 10_000
