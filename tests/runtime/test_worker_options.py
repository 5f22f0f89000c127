"""What worker settings inherit, and how a worker is made of them."""

import socket
from typing import Any

from arq import cron
from arq_runtime.worker.install import get_kwargs
from arq_runtime.worker.worker import Worker
from kit import QUEUE, App, until

Ctx = dict[str, Any]


async def add(ctx: Ctx, a: int, b: int = 0) -> int:
    return a + b


async def nightly(ctx: Ctx) -> None: ...


async def test_a_subclass_has_its_own_queue_and_what_it_inherits(app: App) -> None:
    normal = app.settings(add, cron_jobs=[cron(nightly, hour=3)], max_tries=7)

    class HighPriority(normal):  # type: ignore[misc, valid-type]
        queue_name = "high"
        max_jobs = 2

    assert [queue.name for queue in app.queues.known()] == [QUEUE, "high"]
    assert [*app.queues.get("high").tasks()] == ["add"]
    # a cron job belongs to the class that names it: else each queue would run it
    assert HighPriority.cron_jobs == () and len(normal.cron_jobs) == 1
    assert HighPriority.health_check_key == f"high:health-check:{socket.gethostname()}"
    options = get_kwargs(HighPriority)
    assert (options["max_jobs"], options["max_tries"]) == (2, 7)
    worker = Worker(**options, handle_signals=False, burst=True)
    job = await app.enqueue(add, 1, b=2, _queue_name="high")
    await worker.async_run()
    await worker.close()
    assert await job.result(1) == 3


async def test_a_subclass_of_the_same_queue_runs_its_cron_jobs(app: App) -> None:
    normal = app.settings(add, cron_jobs=[cron(nightly, hour=3)])

    class Bigger(normal):  # type: ignore[misc, valid-type]
        max_jobs = 50

    assert len(Bigger.cron_jobs) == 1
    assert [queue.name for queue in app.queues.known()] == [QUEUE]


async def test_several_workers_enqueue_a_cron_job_once(app: App) -> None:
    runs: list[str] = []

    async def often(ctx: Ctx) -> None:
        runs.append(ctx["job_id"])

    def jobs() -> list[Any]:
        return [cron(often, name="often", second=set(range(60)))]

    async with app.worker(cron_jobs=jobs()), app.worker(cron_jobs=jobs()):
        await until(lambda: len(runs) >= 2)
    assert len(set(runs)) == len(runs)
    assert all(job_id.startswith(f"{QUEUE}:often:") for job_id in runs)


async def test_a_worker_that_was_never_started_can_be_closed(app: App) -> None:
    pool = (await app.server.pool()).redis
    worker = Worker([add], redis_pool=pool, queue_name=QUEUE, handle_signals=False)
    await worker.close()
    await Worker([add], redis_settings=app.redis_settings).close()


def test_settings_can_be_a_dict_or_a_plain_class() -> None:
    class Plain:
        functions = (add,)
        unknown = 1

    assert get_kwargs(Plain) == {"functions": (add,)}
    assert get_kwargs({"functions": [add], "unknown": 1}) == {"functions": [add]}
