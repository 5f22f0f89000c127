"""Batches while workers and Redis fail, as their jobs have noted it in a file."""

from __future__ import annotations

from functools import partial

import pytest
from chaos import run_through
from gathered_tasks import member, then
from kit import App
from noting import Notes
from processes import Processes
from support import OwnRedis

BATCHES, OF_EACH = 40, 12


@pytest.mark.slow
async def test_each_batch_is_followed_once(
    own_app: App, own_redis: OwnRedis, own_processes: Processes, notes: Notes
) -> None:
    """But for what ran as its worker was killed, which runs a second time."""
    own_app.settings(member, then)
    call = own_app.client.enqueue

    async def send() -> None:
        for batch in range(BATCHES):
            calls = [call(member, batch, n) for n in range(OF_EACH)]
            await own_app.gather_then(calls, then=partial(call, then, batch=batch))

    def followed() -> set[str]:
        return {one.name for one in notes.ends() if one.name.startswith("then")}

    await run_through(
        *(own_app, own_redis, own_processes, send),
        lambda: len(followed()) / BATCHES,
        settings="gathered_tasks.WorkerSettings",
        lease=15,  # the processes may get no time for as long on a busy machine
        max_jobs=10,
        max_tries=3,
    )
    assert not notes.events(what="early")
    killed = {one.name for one in notes.events(what="killed")}
    for name in followed():
        *before, _ = notes.starts(name)
        assert {one.who for one in before} <= killed, name
    assert not await own_app.redis.keys(f"{own_app.queue}:batch:*")
