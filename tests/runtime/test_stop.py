"""Stopping: jobs get their time, nothing is left behind, and the exit code is 0."""

import asyncio
import signal

import pytest
from kit import QUEUE, App
from processes import Processes
from proxy import Proxy
from support import OwnRedis


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_worker_finishes_its_jobs(
    app: App, processes: Processes, stop: signal.Signals
) -> None:
    worker = await processes.start()
    jobs = [await app.enqueue("job", n, 0.7) for n in range(3)]
    for n in range(3):
        await processes.started(n)
    worker.send(stop)
    await worker.wait_for(stop.name)
    late = await app.enqueue("job", "late")
    assert await worker.exit_code() == 0
    for job in jobs:
        assert (await app.result_of(job.job_id))["s"]
    assert not processes.events("late")
    assert await app.redis.zrange(QUEUE, 0, -1) == [late.job_id.encode()]
    assert not await app.redis.keys("arq:in-progress:*")
    assert "Traceback" not in worker.text
