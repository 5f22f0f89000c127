"""Rare ways in which a server is busy or full, and in which a task tries to end all."""

import asyncio
import socket
from contextlib import ExitStack

import pytest
import redis
from arq_runtime.server import QueueUnavailableError
from kit import App, until
from noting import Notes, job
from outcomes import shorten
from processes import Processes
from support import OwnRedis

pytestmark = pytest.mark.slow

#: Of another client, which keeps Redis busy until it is killed.
LONG = "while true do end"


async def is_busy(app: App) -> bool:
    try:
        await app.redis.ping()
    except redis.ResponseError as exc:
        return "BUSY" in str(exc)
    return False


async def test_another_clients_long_script_is_waited_for(
    own_app: App,
    own_redis: OwnRedis,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Redis answers BUSY meanwhile."""
    shorten(monkeypatch, deadline=60, attempt=2)
    await own_app.redis.config_set("lua-time-limit", 50)
    await own_app.enqueue("job", 0)

    def block() -> None:
        with (
            redis.Redis(port=own_redis.port) as client,
            pytest.raises(redis.ResponseError, match="killed"),
        ):
            client.eval(LONG, 0)

    async with own_app.worker(job):
        blocked = asyncio.create_task(asyncio.to_thread(block))
        await until(lambda: is_busy(own_app))
        enqueuing = asyncio.gather(*(own_app.enqueue("job", n) for n in range(1, 4)))
        await asyncio.sleep(3)
        await own_app.redis.script_kill()
        jobs = await enqueuing
        await own_app.lookup.get_job_status("x")
        assert await own_app.operations.list_jobs("failed") == []
        for waiting in jobs:
            await waiting.result(25)
        await blocked


async def test_a_server_without_a_connection_left_is_named_so(
    own_redis: OwnRedis,
    own_processes: Processes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shorten(monkeypatch, deadline=0.6, attempt=0.3)
    app = App(own_redis.url)
    with ExitStack() as stack, redis.Redis(port=own_redis.port) as admin:
        admin.config_set("maxclients", 5)
        for _ in range(6):
            connection = socket.create_connection(("127.0.0.1", own_redis.port))
            stack.enter_context(connection)

        async def says_why() -> bool:
            with pytest.raises(QueueUnavailableError) as error:
                await app.enqueue("job")
            return "max number of clients" in str(error.value)

        await until(says_why)
        worker = await own_processes.start(ready=False)
        await worker.wait_for("max number of clients")
        admin.config_set("maxclients", 100)
    await worker.wait_for("Redis is back")
    assert await worker.stop() == 0
    await app.server.close()


@pytest.mark.parametrize("task", ["stop_loop", "exit_in_a_task"])
async def test_a_task_does_not_end_the_worker(
    app: App, processes: Processes, notes: Notes, task: str
) -> None:
    worker = await processes.start(settings="exits.WorkerSettings")
    await app.enqueue("job", "beside", 1.0, _job_id="beside")
    await app.enqueue(task, "a", _job_id="a")
    assert (await app.result_of("a"))["s"]
    assert (await app.result_of("beside"))["s"]
    assert len(notes.starts("beside")) == len(notes.starts("a")) == 1
    assert "A task tried to end the worker" in worker.text
    assert await worker.stop() == 0
    assert "at exit" in worker.text
