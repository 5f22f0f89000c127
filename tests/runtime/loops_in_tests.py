"""Tests as a user has them, for a pytest of their own, see test_servers.py."""

import asyncio
import os

import pytest
from kit import App
from leaks import sockets

app = App(os.environ["ARQ_REDIS_URL"])
loops: list[asyncio.AbstractEventLoop] = []


@pytest.mark.parametrize("n", range(20))
async def test_in_a_loop_of_its_own(n: int) -> None:
    loops.append(asyncio.get_running_loop())
    job = await app.enqueue("count", name=str(n))
    status = await app.lookup.get_job_status(job.job_id)
    assert status and status["status"] == "queued"


def test_nothing_is_left() -> None:
    assert len(set(map(id, loops))) == 20
    assert len(app.server._pools) <= 1
    assert len(sockets()) <= 2  # none of a loop that is closed; pytest may have a pair
