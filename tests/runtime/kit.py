"""What the tests of the runtime share: an application's queue, and workers in the loop.

A worker is a task of the test's own event loop, and the tasks are functions beside the
test. Processes are for what only a process can show: see tests/processes.py.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar

from arq_runtime.client.client import Client
from arq_runtime.client.gather import Gather
from arq_runtime.client.job import Job
from arq_runtime.client.status import Lookup
from arq_runtime.connection import connect, parse_redis_url
from arq_runtime.operate.jobs import Operations
from arq_runtime.queue import Queue, Queues
from arq_runtime.serializer import Serializer
from arq_runtime.server import Server
from arq_runtime.worker.install import get_kwargs
from arq_runtime.worker.options import WorkerOptions
from arq_runtime.worker.worker import Worker

QUEUE = "arq:queue:test"

WAIT_S = 25
"""How long a test waits, on a busy machine too; workers that sleep do so for 30 s."""


class App:
    """What core/arq.py and core/arq_worker.py make in a project.

    Args:
        url: Of the Redis database.
        queue: The default queue's name.
        format: How jobs are written: json or pickle.
    """

    def __init__(self, url: str, queue: str = QUEUE, format: Any = "json") -> None:
        self.url = url
        self.queue = queue
        self.redis_settings = parse_redis_url(url)
        self.serializer = Serializer(format)
        self.server = Server(self.redis_settings, self.serializer, queue)
        self.queues = Queues(Queue(queue, self.server))
        self.client = Client(self.queues)
        self.gather = Gather(self.client)
        self.lookup = Lookup(self.queues)
        self.operations = Operations(self.queues)
        self.redis: Any = connect(self.redis_settings, default_queue_name=queue)

    async def close(self) -> None:
        await self.queues.close()
        await self.redis.aclose()

    async def enqueue(self, function: Any, /, *args: Any, **kwargs: Any) -> Job:
        """A new job: it must not be None."""
        job = await self.client.enqueue(function, *args, **kwargs)
        assert job is not None
        return job

    async def gather_then(self, calls: Any, then: Any) -> Job:
        """A new batch, and the job after it, which must not be None."""
        last = await self.gather.gather_then(calls, then=then)
        assert last is not None
        return last

    # --- Workers

    def base(self) -> type[WorkerOptions]:
        """BaseWorkerSettings of this application; waits that are short."""
        app = self

        class BaseWorkerSettings(WorkerOptions):
            queues: ClassVar = app.queues
            queue_name: ClassVar = app.queue
            redis_settings: ClassVar = app.redis_settings
            job_serializer: ClassVar = app.serializer.serialize
            job_deserializer: ClassVar = app.serializer.deserialize
            retry_delay: ClassVar = 0.05
            job_completion_wait: ClassVar = 5

        return BaseWorkerSettings

    def settings(self, *functions: Any, **attributes: Any) -> type[WorkerOptions]:
        """Worker settings with these tasks: any argument of the worker can be given."""
        return type(
            "WorkerSettings", (self.base(),), {"functions": functions, **attributes}
        )

    def new_worker(self, *functions: Any, **attributes: Any) -> Worker:
        """A worker that does not run yet."""
        options = get_kwargs(self.settings(*functions, **attributes))
        return Worker(**options | {"handle_signals": False})

    @asynccontextmanager
    async def worker(
        self, *functions: Any, is_ready: bool = True, **attributes: Any
    ) -> AsyncIterator[Worker]:
        """A worker in the running event loop, for the length of the block.

        It takes jobs by then, unless it need not be ready.
        """
        worker = self.new_worker(*functions, **attributes)
        task = worker.main_task = asyncio.create_task(worker.main())
        started = asyncio.create_task(
            until(lambda: "redis" in worker.ctx or not is_ready)
        )
        await asyncio.wait({task, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if task.done():
            await task
        try:
            yield worker
        finally:
            await worker.close()
            with suppress(asyncio.CancelledError):
                await task

    async def burst(self, *functions: Any, **attributes: Any) -> Worker:
        """Run what is queued, and end."""
        worker = self.new_worker(*functions, burst=True, **attributes)
        try:
            await worker.async_run()
        finally:
            await worker.close()
        return worker

    # --- What is in Redis

    async def now(self) -> float:
        """Redis' time, in milliseconds since 1970."""
        seconds, microseconds = await self.redis.time()
        return float(seconds) * 1000 + float(microseconds) / 1000

    async def put(self, job_id: str, content: bytes) -> None:
        """Queue what others might."""
        await self.redis.set(f"arq:job:{job_id}", content)
        await self.redis.zadd(self.queue, {job_id: await self.now()})
        await self.wake()

    async def wake(self) -> None:
        """Wake an idle worker."""
        await self.redis.rpush(f"{self.queue}:wake", "")

    async def waiting(self) -> set[str]:
        """The connections on which workers wait for jobs."""
        clients = await self.redis.client_list()
        wait = [one for one in clients if one["cmd"] == "blpop" and "b" in one["flags"]]
        return {one["id"] for one in wait}

    async def stored(self, job_id: str) -> dict[str, Any] | None:
        """The stored result as it is: JSON; None while there is none."""
        data = await self.redis.get(f"arq:result:{job_id}")
        return json.loads(data) if data else None

    async def result_of(self, job_id: str, timeout: float = WAIT_S) -> dict[str, Any]:
        """The stored result, once there is one."""
        await until(lambda: self.redis.exists(f"arq:result:{job_id}"), timeout)
        result = await self.stored(job_id)
        assert result is not None
        return result

    async def failed(self, job_id: str) -> dict[str, str]:
        """What is kept of a job that failed for good."""
        data = await self.redis.hgetall(f"arq:failed:{job_id}")
        return {key.decode(): value.decode() for key, value in data.items()}

    async def queued(self) -> int:
        return int(await self.redis.zcard(self.queue))


async def until(
    condition: Callable[[], Any | Awaitable[Any]], timeout: float = WAIT_S
) -> None:
    """Poll until the condition, which may be awaitable, holds.

    The longer it waits, the less often it looks: each 10 to 100 ms.

    Raises:
        AssertionError: It does not within so many seconds.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        holds = condition()
        if asyncio.iscoroutine(holds) or asyncio.isfuture(holds):
            holds = await holds
        if holds:
            return
        waited = loop.time() - began
        if waited > timeout:
            raise AssertionError(f"waited {timeout} s")
        await asyncio.sleep(min(0.01 + waited / 20, 0.1))
