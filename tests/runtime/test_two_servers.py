"""Two queues on two Redis servers, in one process."""

import asyncio
from typing import Any

from arq_runtime.connection import parse_redis_url
from kit import App, until
from support import OwnRedis

Ctx = dict[str, Any]


async def here(ctx: Ctx, n: int) -> int:
    return n


async def there(ctx: Ctx, n: int) -> int:
    return -n


async def test_a_task_goes_to_the_server_of_its_queue(
    app: App, own_redis: OwnRedis
) -> None:
    settings = {
        "queue_name": "arq:queue:there",
        "redis_settings": parse_redis_url(own_redis.url),
    }
    async with app.worker(here), app.worker(there, **settings):
        jobs = await asyncio.gather(app.enqueue(here, 1), app.enqueue("there", 2))
        assert [await job.result(25) for job in jobs] == [1, -2]
        stats = app.operations.queue_stats

        async def are_listed() -> bool:
            found = [await stats(queue) for queue in (None, "arq:queue:there")]
            return [len(one.workers) for one in found] == [1, 1]

        await until(are_listed)
        assert await app.operations.list_queues() == [app.queue, "arq:queue:there"]
    other = App(own_redis.url)
    assert await other.stored(jobs[1].job_id) and not await other.stored(jobs[0].job_id)
    assert await app.stored(jobs[0].job_id) and not await app.stored(jobs[1].job_id)
    own_redis.freeze()  # one that is away does not hold up the other
    job = await app.enqueue(here, 3)
    await app.burst(here)
    assert await job.result(25) == 3
    own_redis.thaw()
    await other.close()


async def test_many_callers_replace_one_job(app: App) -> None:
    """A debounce: it runs once, with what came last."""
    options = {"_job_id": "own", "_replace": True, "_defer_by": 0.3}
    seen: list[int] = []

    async def note(ctx: Ctx, n: int) -> None:
        seen.append(n)

    async with app.worker(note):
        await asyncio.gather(
            *(app.client.enqueue(note, n, **options) for n in range(50))
        )
        await until(lambda: seen)
        await until(lambda: app.redis.exists("arq:result:own"))
    assert seen == [49]
