"""docs/leaving.md: the same tasks run under taskiq on RabbitMQ, while the queue drains."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support import TEMPLATE, Shop, free_port, run, start, wait_for

pytestmark = pytest.mark.slow

[MODULE] = re.findall(
    r"```python\n(.*?)```", (TEMPLATE / "docs/leaving.md").read_text(), re.DOTALL
)
SERVERS = sorted(Path("/usr/lib/rabbitmq/lib").glob("*/sbin/rabbitmq-server"))

TASKS = """
import asyncio
from pathlib import Path

from pydantic import BaseModel

from core.arq_worker import BaseWorkerSettings, Context


class User(BaseModel):
    name: str


def note(ctx: Context, *words: object) -> None:
    with Path("notes").open("a") as file:
        print(*words, ctx["job_try"], ctx["greeting"], file=file)


async def greet(ctx: Context, user: User, wait: float = 0) -> None:
    await asyncio.sleep(wait)
    note(ctx, "greet", user.name)


async def fails_once(ctx: Context) -> None:
    note(ctx, "fails_once")
    if ctx["job_try"] == 1:
        raise ValueError("no")


async def startup(ctx: Context) -> None:
    ctx["greeting"] = "hello"


class WorkerSettings(BaseWorkerSettings):
    functions = [greet, fails_once]
    on_startup = startup
"""


@pytest.fixture
def amqp_url(tmp_path: Path) -> Iterator[str]:
    """A RabbitMQ of this test."""
    if not SERVERS:
        pytest.skip("RabbitMQ is missing")
    port, distribution, epmd = free_port(), free_port(), free_port()
    (tmp_path / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
    (tmp_path / "plugins").write_text("[].\n")
    log = tmp_path / "rabbitmq.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            [SERVERS[-1]],
            stdout=file,
            stderr=file,
            start_new_session=True,
            env={
                **{"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
                "RABBITMQ_NODENAME": f"test{port}@localhost",
                "RABBITMQ_MNESIA_BASE": str(tmp_path / "mnesia"),
                "RABBITMQ_LOG_BASE": str(tmp_path / "log"),
                "RABBITMQ_CONFIG_FILE": str(tmp_path / "rabbitmq"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(tmp_path / "plugins"),
                "RABBITMQ_DIST_PORT": str(distribution),
                "ERL_EPMD_PORT": str(epmd),
                "ERL_EPMD_ADDRESS": "127.0.0.1",
            },
        )
    try:
        wait_for(lambda: "Starting broker... completed" in log.read_text(), 120, log)
        yield f"amqp://guest:guest@127.0.0.1:{port}/"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        # Erlang's port mapper, which it has started in a session of its own.
        kill = ["epmd", "-port", str(epmd), "-kill"]
        wait_for(lambda: "Killed" in run(kill, check=False).stdout, 60)


def test_the_same_tasks(
    own_shop_with_queue: Shop, redis_url: str, amqp_url: str, tmp_path: Path
) -> None:
    """What is on the old queue is run by the old worker meanwhile."""
    shop, env, log = (
        own_shop_with_queue,
        {"AMQP_URL": amqp_url},
        tmp_path / "engine.log",
    )
    shop.write_tasks(TASKS)
    shop.write("core/engine.py", MODULE)
    shop.python("result = await enqueue('greet', {'name': 'old'}, 1.0)", redis_url)
    code = """
        from core import engine
        from core.tasks import User, fails_once

        await engine.broker.startup()
        await engine.enqueue("greet", user=User(name="new"))
        await engine.enqueue(fails_once)
        try:
            await engine.enqueue("gret")
        except ValueError as exc:
            result = str(exc)
        await engine.broker.shutdown()
    """
    assert shop.python(code, redis_url, env=env) == "no task 'gret'"
    command = ("taskiq", "worker", "core.engine:broker", "--workers", "1")
    with log.open("wb") as file:
        engine = start(
            [shop.env / "bin" / command[0], *command[1:]],
            cwd=shop.root,
            env={**os.environ, **shop.settings(redis_url), **env},
            stdout=file,
            stderr=file,
        )
    try:
        with shop.worker(redis_url):
            notes = shop / "notes"
            wait_for(lambda: notes.exists() and len(lines(notes)) == 4, 60, log)
    finally:
        engine.terminate()
        engine.wait()
    assert sorted(lines(shop / "notes")) == [
        *("fails_once 1 hello", "fails_once 2 hello"),
        *("greet new 1 hello", "greet old 1 hello"),
    ]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()
