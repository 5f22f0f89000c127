"""An app with the jobs page, as uvicorn serves it, with a worker and a real server.

They run in a thread with an event loop of its own: the browser's interface is
synchronous, and so are the tests.
"""

import asyncio
import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import redis
import uvicorn
from arq import cron, func
from arq_runtime.operate.page import jobs_page
from arq_runtime.worker.observers.progress import set_progress
from fastapi import FastAPI
from kit import QUEUE, App
from pydantic import SecretStr
from support import free_port, wait_for
from test_operations import record_of

NOW = int(time.time() * 1000)
PASSWORD = "correct horse battery"
Ctx = dict[str, Any]


async def mend(ctx: Ctx, name: str) -> str:
    if not Path(name).exists():
        raise FileNotFoundError(f"no {name}")
    return f"{name} is there"


async def fail(ctx: Ctx, text: str) -> None:
    raise ValueError(text)


async def resize(ctx: Ctx) -> None:
    await set_progress(ctx, 40, "resizing <b>")
    await asyncio.sleep(60)


async def nightly(ctx: Ctx) -> None: ...


TASKS = (
    *(func(mend, name="mend", max_tries=1), func(fail, name="fail", max_tries=1)),
    resize,
)


# --- The app and the worker, in a thread: the browser's interface is synchronous --------


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Site:
    """An app that uvicorn serves."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def ask(
        self,
        path: str,
        method: str = "GET",
        *,
        password: str = PASSWORD,
        **headers: str,
    ) -> Answer:
        """As the page itself asks, except for what is said otherwise."""
        secret = base64.b64encode(f"me:{password}".encode()).decode()
        sent = {"X-Arq-Page": "1", "Authorization": f"Basic {secret}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                method, path, headers={k: v for k, v in sent.items() if v}
            )
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def api(self, path: str, method: str = "GET", **parameters: str) -> Answer:
        return self.ask(f"/arq/api/{path}?{urlencode(parameters)}", method)


def web_of(app: App, password: str = PASSWORD, **options: Any) -> FastAPI:
    """An app with the page, and the same app below /shop."""
    web = FastAPI()
    options = {"show_arguments": True, **options}
    secret = SecretStr(password) if password else None
    web.include_router(
        jobs_page(app.operations, app.lookup, password=secret, **options)
    )
    web.mount("/shop", web)
    return web


@contextmanager
def served(
    app: App, *tasks: Any, password: str = PASSWORD, **options: Any
) -> Iterator[Site]:
    """Serve the page; and run a worker, if there are tasks."""
    config = uvicorn.Config(
        web_of(app, password, **options), port=free_port(), log_config=None
    )
    server = uvicorn.Server(config)

    async def serve() -> None:
        if not tasks:
            await server.serve()
        else:
            job = cron(nightly, name="nightly", hour=3, minute=0)
            about: dict[str, Any] = {"cron_jobs": [job], "health_check_interval": 1}
            async with app.worker(*tasks, **about, job_completion_wait=0):
                await server.serve()
        await app.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    wait_for(lambda: server.started or not thread.is_alive(), 60)
    yield Site(config.port)
    server.should_exit = True
    thread.join()


def put(db: redis.Redis, job_id: str, task: str, *args: Any, due: int = 1) -> None:
    """Enqueue a job, as lua/enqueue.lua does."""
    job: dict[str, Any] = {"t": None, "f": task, "a": args, "k": {}, "et": 1}
    db.set(f"arq:job:{job_id}", json.dumps(job, separators=(",", ":")), px=600_000)
    db.zadd(QUEUE, {job_id: due})
    db.rpush(f"{QUEUE}:wake", "")


def keep_failed(db: Any, job_id: str, task: str, at: int, **more: str) -> None:
    """Put a failed job there, by a connection or a pipeline."""
    db.hset(f"arq:failed:{job_id}", mapping=record_of(task, at, **more))
    db.zadd(f"{QUEUE}:failed", {job_id: at})
