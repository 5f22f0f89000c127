"""Two projects with default answers share a Redis, and the database in it."""

from collections.abc import Callable

import pytest
import redis
from support import Shop, wait_for

pytestmark = pytest.mark.slow

# Either has tasks of the same names, and one that the other lacks.
TASKS = """
    from arq import cron

    from core.arq_worker import BaseWorkerSettings, no_retry


    async def count(ctx):
        await ctx["redis"].hincrby("counted", "NAME", 1)


    async def only_NAME(ctx):
        await ctx["redis"].hincrby("counted", "only NAME", 1)


    @no_retry(ValueError)
    async def fail(ctx):
        raise ValueError("NAME")


    async def tick(ctx):
        await ctx["redis"].hincrby("ticks", "NAME " + ctx["job_id"][-13:], 1)


    class WorkerSettings(BaseWorkerSettings):
        functions = [count, only_NAME, fail]
        cron_jobs = [cron(tick, second=set(range(60)))]
        health_check_interval = 1
"""
CALLS = """
    await enqueue_many("count", [{}] * 50)
    await enqueue_many("only_NAME", [{}] * 50)
    await enqueue("fail", _job_id="fail NAME")
    result = 0
"""


def test_two_projects_with_default_answers(
    own_shop_with_queue: Shop, make_shop: Callable[..., Shop], redis_url: str
) -> None:
    shops = {"shop": own_shop_with_queue, "store": make_shop("store")}
    names = [*shops]
    shops["store"].copy()
    for name, shop in shops.items():
        shop.write_tasks(TASKS.replace("NAME", name))
    with redis.Redis.from_url(redis_url) as client:

        def counted(key: str) -> dict[str, int]:
            return {name.decode(): int(n) for name, n in client.hgetall(key).items()}

        # alone first, with the jobs of both before it
        for name, shop in shops.items():
            shop.python(CALLS.replace("NAME", name), redis_url)
        with shops["shop"].worker(redis_url) as first:
            wait_for(lambda: len(counted("counted")) == 2, 20, first.path)
            wait_for(lambda: client.zcard("arq:queue:shop:failed"), 20, first.path)
            assert client.zcard("arq:queue:store") == 101
            for name, healthy in (("shop", True), ("store", False)):
                output = shops[name].run(
                    *("arq", "core.tasks.WorkerSettings", "--check"),
                    env=shops[name].settings(redis_url),
                    check=False,
                )
                assert ("Health check successful" in output) is healthy, output
            with shops["store"].worker(redis_url) as second:
                wait_for(lambda: client.zcard("arq:queue:store:failed"), 20)
                client.delete("ticks")

                def both_tick() -> bool:
                    times = [tick.split() for tick in counted("ticks")]
                    ticks = [{at for n, at in times if n == name} for name in names]
                    return len(ticks[0] & ticks[1]) > 1

                wait_for(both_tick, 20, second.path)
        assert counted("counted") == {
            **{"shop": 50, "store": 50, "only shop": 50, "only store": 50}
        }
        assert set(counted("ticks").values()) == {1}
        for name, worker in zip(names, (first, second), strict=True):
            failed = client.zrange(f"arq:queue:{name}:failed", 0, -1)
            assert failed == [f"fail {name}".encode()]
            error = client.hget(f"arq:failed:fail {name}", "error")
            assert error == f"ValueError: {name}".encode()
            [other] = {*names} - {name}
            assert f"arq:queue:{other}" not in worker.text
            assert "not known here" not in worker.text
