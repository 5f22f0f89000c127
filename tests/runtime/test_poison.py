"""A job that ends its worker, over and over, takes no other job with it."""

from typing import Any

import pytest
from arq import func
from kit import App, until
from noting import Notes, deadly, job
from processes import Processes, WorkerProcess

INNOCENT = [f"j{n}" for n in range(8)]


async def has_ended(app: App, *names: str) -> bool:
    count = await app.redis.exists(*(f"arq:result:{name}" for name in names))
    return bool(count == len(names))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("max_tries", "poison", "innocent"),
    [(3, ["p"], INNOCENT), (2, ["p", "q"], INNOCENT[:3])],
)
async def test_only_the_guilty_job_uses_up_its_tries(
    app: App,
    processes: Processes,
    notes: Notes,
    max_tries: int,
    poison: list[str],
    innocent: list[str],
) -> None:
    """What died together is due again together, whenever the worker is restarted."""
    for name in poison:
        await app.enqueue("deadly", name, _job_id=name)
    for name in innocent:
        await app.enqueue("job", name, 0.1, _job_id=name)
    worker: WorkerProcess | None = None

    async def is_over() -> bool:
        nonlocal worker
        if worker is None or not worker.lives:
            worker = await processes.start(lease=0.5, max_tries=max_tries, ready=False)
        return await has_ended(app, *poison, *innocent)

    await until(is_over, 300)  # a process starts slowly on a busy machine
    for name in innocent:
        stored = await app.stored(name)
        assert stored and stored["s"], name
    for name in poison:
        assert len(notes.starts(name)) <= max_tries
        assert (await app.failed(name))["reason"] == "killed"
    assert len(processes.workers) <= len(poison) * max_tries + 1


@pytest.mark.parametrize(("tries", "apart_from"), [(2, 2), (5, 3), (1, 3)])
def test_the_last_try_is_that_of_the_task_with_the_fewest(
    redis_url: str, tries: int, apart_from: int
) -> None:
    few = func(job, name="few", max_tries=tries)
    worker = App(redis_url).new_worker(deadly, few, max_tries=3)
    assert worker.leases.apart_from == apart_from


async def test_those_that_died_together_run_one_after_the_other(
    app: App, notes: Notes
) -> None:
    """And those that did not, beside them."""
    names = [f"old{n}" for n in range(3)]
    for name in names:
        await app.enqueue("job", name, 600, _job_id=name)
        await app.redis.set(f"arq:retry:{name}", 2)  # its worker was killed twice
    await app.enqueue("job", "new", 600, _job_id="new")
    async with app.worker(job, max_jobs=10):
        await until(lambda: len(notes.starts()) == 2)
        for name in [*names, "new"]:
            notes.let_go(name)
        await until(lambda: has_ended(app, *names, "new"))
    spans: dict[str, Any] = {
        name: (notes.starts(name)[0].at, notes.ends(name)[0].at)
        for name in [*names, "new"]
    }
    first, second, third = sorted(spans[name] for name in names)
    assert first[1] <= second[0] and second[1] <= third[0]
    assert spans["new"][0] < first[1]
