"""What the tests of the worst hour share: tasks, their workers, and what they did."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import redis
from support import Shop, start, wait_for

QUEUE = "arq:queue:faults"

# What a job does is written to a file: Redis may be away.
TASKS = '''
    import asyncio
    import json
    import os
    import signal
    import time

    from arq import Retry, func
    from arq.worker import RetryJob
    from core import arq_engine
    from core.arq_worker import BaseWorkerSettings, no_retry


    def note(event, n):
        with open(os.environ["EVENTS"], "a") as file:
            name = str(n).replace(" ", "_")
            file.write(f"{event} {name} {os.getpid()} {time.time()}\\n")


    async def job(ctx, n, wait=0.0, pad=""):
        note("start", n)
        await asyncio.sleep(wait)
        note("end", n)
        return n


    async def plain(ctx, n):
        """Nothing but a result."""
        return n


    async def hang(ctx):
        await asyncio.sleep(600)


    async def once_slow(ctx, n, seconds=600.0, error=""):
        """Its first try takes long; it returns who ran it."""
        note("start", n)
        if ctx["job_try"] == 1:
            await asyncio.sleep(seconds)
            if error:
                raise ERRORS[error]("late")
        note("end", n)
        return os.getpid()


    async def block(ctx, n, seconds):
        """Its first try blocks the worker."""
        note("start", n)
        if ctx["job_try"] == 1:
            time.sleep(seconds)
        note("end", n)
        return os.getpid()


    def sync(ctx, n, seconds=0.0):
        note("start", n)
        time.sleep(seconds)
        note("end", n)
        return n


    class Odd(BaseException):
        pass


    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no text")


    ERRORS = {
        error.__name__: error
        for error in (
            *(ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, Odd, Mute),
            *(KeyError, TimeoutError, RetryJob, asyncio.CancelledError),
        )
    }


    async def fail(ctx, n, error, text="no", times=99, size=1):
        note("start", n)
        if ctx["job_try"] <= times:
            if error == "Mute":
                raise Mute
            raise ERRORS[error](text * size)
        return ctx["job_try"]


    @no_retry(TimeoutError, KeyError)
    async def picky(ctx, n, wait=0.0, error="KeyError"):
        note("start", n)
        await asyncio.sleep(wait)
        raise ERRORS[error](n)


    async def defer(ctx, n, seconds):
        note("start", n)
        if ctx["job_try"] == 1:
            raise Retry(defer=seconds)
        return ctx["job_try"]


    async def stubborn(ctx, n):
        """Its clean-up fails."""
        note("start", n)
        try:
            await asyncio.sleep(600)
        finally:
            raise ValueError("clean-up")


    async def deadly(ctx, n):
        note("start", n)
        os.kill(os.getpid(), signal.SIGKILL)


    class WorkerSettings(BaseWorkerSettings):
        functions = [
            *(job, plain, hang, once_slow, block, sync, fail, picky, defer, stubborn, deadly),
            func(job, name="brief", timeout=0.3),
            func(picky, name="picky_brief", timeout=0.3),
            func(fail, name="single", max_tries=1),
        ]
        queue_name = "arq:queue:faults"
        retry_delay = 0.1
        job_completion_wait = 5


    for name, value in json.loads(os.environ.get("OPTIONS", "{}")).items():
        setattr(WorkerSettings, name, value)
    for name, value in json.loads(os.environ.get("WAITS", "{}")).items():
        setattr(arq_engine, name, value)  # the engine's own waits, shortened
'''


@dataclass(frozen=True)
class Event:
    """A job of some name has started or ended."""

    what: str
    name: str
    pid: int
    at: float


class Faults:
    """A project with TASKS, its workers, their queue, and what they did."""

    def __init__(self, shop: Shop, url: str, directory: Path) -> None:
        self.shop = shop
        self.url = url
        self.directory = directory
        self.client = redis.Redis.from_url(url)
        self.file = directory / "events"
        self.file.touch()
        self.workers: list[Worker] = []

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.client.close()

    # --- Workers

    def start(
        self,
        *options: str,
        url: str = "",
        module: str = "tasks",
        name: str = "WorkerSettings",
        ready: bool = True,
        env: dict[str, str] | None = None,
        waits: dict[str, float] | None = None,
        command: Iterable[str | Path] = (),
        **settings: Any,
    ) -> Worker:
        """Start a worker with these settings; it takes jobs then, unless not ready.

        Args:
            waits: Shorter ones for constants of arq_engine.
            command: Instead of arq's.
        """
        log = self.directory / f"worker-{len(self.workers)}.log"
        arq = [self.shop.env / "bin/arq", f"core.{module}.{name}"]
        worker = Worker(
            [*(command or arq), *options],
            self.shop.root,
            log,
            {
                **os.environ,
                **self.shop.settings(url or self.url),
                "EVENTS": str(self.file),
                "OPTIONS": json.dumps(settings),
                "WAITS": json.dumps(waits or {}),
                **(env or {}),
            },
        )
        self.workers.append(worker)
        if ready:
            worker.wait_for("redis_version=", 30)
        return worker

    def start_many(self, count: int, *options: str, **settings: Any) -> list[Worker]:
        workers = [self.start(*options, ready=False, **settings) for _ in range(count)]
        for worker in workers:
            worker.wait_for("redis_version=", 30)
        return workers

    def write_module(self, name: str, code: str) -> None:
        """Add core/<name>.py to the project; the name is the test's own."""
        (self.shop / f"core/{name}.py").write_text(textwrap.dedent(code))

    # --- Jobs

    def put(
        self,
        task: str,
        *args: Any,
        job_id: str = "",
        due_in: float = 0,
        queue: str = QUEUE,
        **kwargs: Any,
    ) -> str:
        """Enqueue as a client does."""
        job_id = job_id or uuid4().hex
        self.put_many([(job_id, task, args, kwargs)], due_in=due_in, queue=queue)
        return job_id

    def put_many(
        self,
        jobs: list[tuple[str, str, Iterable[Any], dict[str, Any]]],
        *,
        due_in: float = 0,
        queue: str = QUEUE,
    ) -> None:
        now = self.now()
        with self.client.pipeline() as pipe:
            for job_id, task, args, kwargs in jobs:
                job = {"t": None, "f": task, "a": [*args], "k": kwargs, "et": now}
                pipe.psetex(f"arq:job:{job_id}", 7 * 86_400_000, json.dumps(job))
                pipe.zadd(queue, {job_id: now + int(due_in * 1000)})
            pipe.publish(f"{queue}:wake", "")
            pipe.execute()

    def now(self) -> int:
        """Of Redis, in milliseconds."""
        seconds, microseconds = self.client.time()
        return int(seconds) * 1000 + int(microseconds) // 1000

    # --- What happened

    def events(self, name: str | int | None = None, what: str = "") -> list[Event]:
        lines = [line.split() for line in self.file.read_text().splitlines()]
        events = [Event(a, b, int(c), float(d)) for a, b, c, d in lines]
        return [
            event
            for event in events
            if name in (None, event.name) or event.name == str(name).replace(" ", "_")
            if what in ("", event.what)
        ]

    def wait(
        self, condition: Callable[[], Any], timeout: float = 20, worker: int = -1
    ) -> None:
        """Wait for it; the worker's log tells why it did not come."""
        wait_for(condition, timeout, self.workers[worker].path)

    def wait_started(
        self, name: str | int, times: int = 1, timeout: float = 20
    ) -> None:
        self.wait(lambda: len(self.events(name, "start")) >= times, timeout)

    def result(self, job_id: str) -> Any:
        """The stored result as it is in Redis: JSON; None while there is none."""
        data = self.client.get(f"arq:result:{job_id}")
        return json.loads(data) if data else None

    def wait_result(self, job_id: str, timeout: float = 20) -> Any:
        self.wait(lambda: self.client.exists(f"arq:result:{job_id}"), timeout)
        return self.result(job_id)

    def failed(self, job_id: str) -> dict[str, str]:
        """What is kept of a job that failed for good."""
        data = self.client.hgetall(f"arq:failed:{job_id}")
        return {key.decode(): value.decode() for key, value in data.items()}

    def wait_failed(self, job_id: str, timeout: float = 20) -> dict[str, str]:
        self.wait(lambda: self.client.exists(f"arq:failed:{job_id}"), timeout)
        return self.failed(job_id)

    def queued(self) -> int:
        return int(self.client.zcard(QUEUE))

    def wait_drained(self, timeout: float = 20) -> None:
        self.wait(lambda: self.queued() == 0, timeout)


class Worker:
    """A worker process and what it prints."""

    def __init__(
        self,
        command: Iterable[str | Path],
        directory: Path,
        path: Path,
        env: dict[str, str],
    ) -> None:
        self.path = path
        with path.open("wb") as file:
            self.process = start(
                [*command],
                cwd=directory,
                env={**env, "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=file,
            )
        self.started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        return self.path.read_text(errors="replace")

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def wait_for(self, text: str, timeout: float = 20, times: int = 1) -> None:
        wait_for(
            lambda: self.text.count(text) >= times or not self.lives,
            timeout,
            self.path,
        )
        assert self.text.count(text) >= times, self.text

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        if self.lives:
            self.process.kill()
        self.process.wait()

    def exit_code(self, timeout: float = 20) -> int:
        """Wait for it to end by itself."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs\n{self.text}") from None

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 20) -> int:
        self.send(number)
        return self.exit_code(timeout)
