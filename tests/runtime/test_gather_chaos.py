"""Batches while workers and Redis fail, as their jobs have noted it in a file."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from gathered_tasks import member, then
from kit import App, until
from noting import Notes
from processes import Processes, WorkerProcess
from support import OwnRedis

BATCHES, OF_EACH = 40, 12
#: In seconds; the processes may get no time for as long on a busy machine.
LEASE_S = 10


@pytest.mark.slow
async def test_each_batch_is_followed_once(
    own_app: App, own_redis: OwnRedis, own_processes: Processes, notes: Notes
) -> None:
    """But for what ran as its worker was killed, which runs a second time."""
    options = {"lease": LEASE_S, "max_jobs": 10, "max_tries": 3}
    killed: set[str] = set()

    def start() -> asyncio.Task[WorkerProcess]:
        settings = "gathered_tasks.WorkerSettings"
        return asyncio.create_task(own_processes.start(settings=settings, **options))

    def kill(worker: WorkerProcess) -> None:
        worker.kill()
        killed.add(str(worker.pid))

    def followed() -> set[str]:
        return {one.name for one in notes.ends() if one.name.startswith("then")}

    async def ended(count: int) -> None:
        await until(lambda: len(followed()) >= count, 90)

    own_app.settings(member, then)
    call = own_app.client.enqueue
    workers = await asyncio.gather(*(start() for _ in range(3)))
    for batch in range(BATCHES):
        calls = [call(member, batch, n) for n in range(OF_EACH)]
        await own_app.gather_then(calls, then=partial(call, then, batch=batch))
    await ended(BATCHES // 8)
    kill(workers[0])
    other = start()
    await ended(BATCHES // 4)
    own_redis.freeze()
    await asyncio.sleep(1)
    own_redis.thaw()
    await ended(BATCHES // 3)
    own_redis.kill()
    own_redis.start()
    await ended(BATCHES // 2)
    kill(workers[1])
    await other
    await ended(BATCHES)
    await until(lambda: _is_empty(own_app), 90)
    assert not notes.events(what="early")
    for name in followed():
        *before, _ = notes.starts(name)
        assert {one.who for one in before} <= killed, name
    assert not await own_app.redis.keys(f"{own_app.queue}:batch:*")


async def _is_empty(app: App) -> bool:
    return await app.queued() == 0
