"""gather_then: one more job when all of a batch have ended, whatever their ends."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from arq_runtime import testing
from arq_runtime.operate.info import Which
from arq_runtime.worker.job import Context
from kit import App, until
from noting import Notes, fail, job, note


async def then(ctx: Context, job_ids: list[str], name: str = "then") -> list[str]:
    note(ctx, "start", name)
    return job_ids


def calls(app: App, *names: Any, **options: Any) -> list[Any]:
    return [app.client.enqueue(job, name, **options) for name in names]


async def test_it_starts_when_the_last_has_ended(app: App, notes: Notes) -> None:
    last = await app.gather_then(calls(app, *range(5)), then=app.client.job(then))
    assert await app.queued() == 6
    async with app.worker(job, then):
        ids = await last.result(20)
    results = [(await app.result_of(id_))["r"] for id_ in ids]
    assert results == [*range(5)]
    assert [event.name for event in notes.events()][-1] == "then"
    assert [event.name for event in notes.starts("then")] == ["then"]
    assert not await app.redis.keys(f"{app.queue}:batch:*")


async def test_each_end_counts(app: App, notes: Notes) -> None:
    """Done, failed, aborted while it runs and before, purged, expired."""
    sends = [
        app.client.enqueue(fail, "fails"),
        *calls(app, "done"),
        app.client.enqueue(job, "long", 600),
        app.client.enqueue("plain", n=1, _defer_by=600),
        *calls(app, "expires", _expires=0.1),
        *calls(app, "deferred", _defer_by=600),
    ]
    last = await app.gather_then(sends, then=app.client.job(then))
    data = await app.lookup.get_job_status(last.job_id)
    assert data and data["status"] == "deferred"
    [ids] = data["args"]
    await until(lambda: _is_gone(app, ids[4]))
    async with app.worker(fail, job, then, max_tries=2):
        await notes.started("long")
        assert await app.lookup.abort_job(ids[2])
        await app.result_of(ids[4])
        await app.result_of(ids[0])
        assert await app.operations.retry_job(ids[0])  # which ends a second time
        await notes.started("fails", 3)
        assert await app.operations.purge(Which(task="plain")) == 1
        assert not notes.starts("then")
        assert await app.lookup.abort_job(ids[5])
        assert await last.result(20) == ids
        await until(lambda: _has_ended(app, ids[0]))
        assert await app.operations.retry_job(ids[0])
        await notes.started("fails", 5)
        await until(lambda: _has_ended(app, ids[0]))
        assert await app.operations.discard_job(ids[0])
    assert len(notes.starts("then")) == 1


async def _is_gone(app: App, job_id: str) -> bool:
    return not await app.redis.exists(f"arq:job:{job_id}")


async def _is_empty(app: App) -> bool:
    return await app.queued() == 0


async def _has_ended(app: App, job_id: str) -> bool:
    return bool(await app.failed(job_id))


async def test_a_batch_of_none(app: App, notes: Notes) -> None:
    last = await app.gather_then([], then=app.client.job(then))
    async with app.worker(then):
        assert await last.result(20) == []


async def test_an_id_that_is_taken(app: App, notes: Notes) -> None:
    """Nothing is queued then; nor while the first batch goes on."""
    once = app.client.job(then, _job_id="once")
    first = await app.gather_then(calls(app, 1), then=once)
    assert first.job_id == "once"
    assert await app.gather.gather_then(calls(app, 2, 3), then=once) is None
    other = await app.gather_then(calls(app, 4), then=app.client.job(then))
    assert await app.queued() == 4
    async with app.worker(job, then):
        await other.result(20)
        await first.result(20)
        assert await app.gather.gather_then(calls(app, 2), then=once) is None
    assert {event.name for event in notes.ends()} == {"1", "4"}


async def test_the_other_job_ended_before(app: App, notes: Notes) -> None:
    """Aborted, or run by hand: it does not come a second time."""
    aborted = await app.gather_then(calls(app, 1), then=app.client.job(then))
    begun = await app.gather_then(calls(app, 2), then=app.client.job(then))
    assert await app.lookup.abort_job(aborted.job_id)
    assert await app.operations.run_now(begun.job_id)
    async with app.worker(job, then):
        await begun.result(20)
        await notes.ended(1)
        await notes.ended(2)
        await until(lambda: _is_empty(app))
    assert len(notes.starts("then")) == 1


async def test_a_purge_of_all(app: App) -> None:
    await app.gather_then(calls(app, *range(600)), then=app.client.job(then))
    await app.gather_then(calls(app, 1, _defer_by=60), then=app.client.job(then))
    assert await app.operations.purge(Which()) == 603
    assert await app.queued() == 0


async def test_priorities(app: App, notes: Notes) -> None:
    """What a call asks for besides holds for those of a batch."""
    first = await app.gather_then(
        calls(app, "a", _priority=2), then=app.client.job(then, _priority=9)
    )
    await app.enqueue(job, "b", _priority=5)
    for n in range(20):
        await app.enqueue(job, n)
    async with app.worker(job, then, max_jobs=1):
        await first.result(20)
        await notes.ended(19)
    order = [event.name for event in notes.starts()]
    assert order[:2] == ["b", "a"] and order.index("then") < order.index("19")


async def test_calls_that_are_none_for_a_batch(app: App) -> None:
    async def two(ids: list[str]) -> Any:
        for n in ids:
            await app.client.enqueue(then, [n])

    enqueue, gather_then = app.client.enqueue, app.gather_then
    to_then = app.client.job(then)
    with pytest.raises(TypeError, match="not awaited, as enqueue"):
        await gather_then([enqueue(job, 1), None], then=to_then)
    with pytest.raises(ValueError, match="have no _job_id"):
        await gather_then(calls(app, 1, _job_id="own"), then=to_then)
    with pytest.raises(TypeError, match="say then=job"):
        await gather_then([], then=to_then([]))
    with pytest.raises(ValueError, match="one call, not 2"):
        await gather_then(calls(app, 1, 2), then=two)
    for options in ({"_defer_by": 1}, {"_expires": 60}):
        with pytest.raises(ValueError, match="takes no time"):
            await gather_then(calls(app, 1), then=partial(enqueue, then, **options))
    with pytest.raises(ValueError, match="takes no _replace"):
        replacing = partial(enqueue, then, _job_id="a", _replace=True)
        await gather_then(calls(app, 1), then=replacing)
    with pytest.raises(ValueError, match="at most 1000 calls, not 1001"):
        await gather_then([app.client.enqueue_many("plain", [{}] * 1001)], then=to_then)
    app.settings(job, then)
    app.settings(fail, queue_name="arq:queue:other")
    with pytest.raises(ValueError, match="one queue, not of 'arq:queue:other', 'arq"):
        await gather_then([*calls(app, 1), enqueue(fail, "a")], then=to_then)
    with pytest.raises(ValueError, match="no task 'jib'; did you mean 'job'"):
        await gather_then([enqueue("jib"), *calls(app, 1)], then=to_then)
    with pytest.raises(TypeError, match="then: missing"):
        await gather_then(calls(app, 1), then=lambda ids: enqueue("then"))
    assert await app.queued() == 0


async def test_a_thousand_calls(app: App, notes: Notes) -> None:
    many = app.client.enqueue_many("plain", [{"n": n} for n in range(1000)])
    last = await app.gather_then([many], then=partial(app.client.enqueue, "then"))
    data = await app.lookup.get_job_status(last.job_id)
    assert data and len({*data["args"][0]}) == 1000
    assert await app.queued() == 1001


# Nothing listens there.
tested = App("redis://127.0.0.1:1/0")
Tested = tested.settings(job, then, fail, max_tries=2)
queue, run_jobs, inline_jobs = testing.fixtures(tested.queues)


async def test_in_a_projects_tests(run_jobs: testing.RunJobs, notes: Notes) -> None:
    last = await tested.gather_then(
        [*calls(tested, "a", "b"), tested.client.enqueue(fail, "c", 1)],
        then=tested.client.job(then),
    )
    await tested.enqueue(job, "d")
    assert await run_jobs() == 5
    assert len(await last.result()) == 3
    assert [event.name for event in notes.events()][-1] == "then"


async def test_in_a_projects_tests_inline(
    inline_jobs: testing.InlineJobs, notes: Notes
) -> None:
    last = await tested.gather_then(
        calls(tested, "a", "b"), then=tested.client.job(then)
    )
    ids = await last.result()
    assert ids == [one.job_id for one in inline_jobs][:2]
    assert [event.name for event in notes.starts()] == ["a", "b", "then"]
