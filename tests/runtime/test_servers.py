"""The client in the processes and event loops of servers and test runners."""

import asyncio
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from httpx import AsyncClient
from kit import App, until
from processes import PATHS
from support import ARQ, environment, free_port

pytestmark = pytest.mark.slow

Ctx = dict[str, Any]

SERVERS = {
    "uvicorn": "uvicorn served:web --workers 2 --port PORT",
    "gunicorn": "gunicorn served:web -k uvicorn_worker.UvicornWorker --workers 2"
    " --preload --bind 127.0.0.1:PORT",
}
#: uvicorn's own: it leaves standard input open, and the socket that it listens at.
UVICORNS = (
    r".*ResourceWarning: unclosed (file .* name=0 .*|<socket\S* [^>]*laddr=\S* \d+\)>)"
    r"\n.*tracemalloc.*\n"
)


@pytest.fixture(scope="session")
def servers_env() -> Path:
    """An environment with the servers."""
    return environment("servers", [ARQ, "fastapi", "gunicorn", "uvicorn-worker"])


def started(
    command: list[str], url: str, log: Path, **env: str
) -> "subprocess.Popen[bytes]":
    """A process that finds the runtime, and the modules beside this one."""
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=PATHS[1],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
                "ARQ_REDIS_URL": url,
                **env,
            },
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


@asynccontextmanager
async def served(command: list[str], url: str, log: Path) -> AsyncIterator[None]:
    """The application is served by two processes; they have ended well after that."""
    server = started(command, url, log, PYTHONWARNINGS="always")
    try:
        await until(lambda: log.read_text().count("serving") == 2, 120)
        yield
    finally:
        server.terminate()
        code = await asyncio.to_thread(server.wait, 60)
        assert code in (0, -15), log.read_text()


async def count(ctx: Ctx, name: str) -> None:
    await ctx["redis"].hincrby("counted", name, 1)


@pytest.mark.parametrize("name", SERVERS)
async def test_a_server_with_more_processes(
    app: App, servers_env: Path, tmp_path: Path, name: str
) -> None:
    port = free_port()
    program, *arguments = SERVERS[name].replace("PORT", str(port)).split()
    log = tmp_path / "web.log"
    redis: Any = app.redis
    database = str(redis.connection_pool.connection_kwargs["db"])

    async def clients() -> int:
        """In this test's database: other tests use the same server."""
        return sum(one["db"] == database for one in await redis.client_list())

    async def post() -> int:
        # a connection of its own: either process gets some; no certificates to load
        async with AsyncClient(verify=False, timeout=30) as client:
            answer = await client.post(f"http://127.0.0.1:{port}/count")
            return int(answer.json())

    before = await clients()
    pids: Counter[str] = Counter()
    async with served([f"{servers_env}/bin/{program}", *arguments], app.url, log):
        for _ in range(10):
            found = await asyncio.gather(*[post() for _ in range(10)])
            pids.update(map(str, found))
        while len(pids) < 2 and pids.total() < 2000:  # one may be quicker to accept
            pids[str(await post())] += 1

    async def all_are_gone() -> bool:
        return await clients() == before

    await until(all_are_gone)
    await app.burst(count)
    stored = await redis.hgetall("counted")
    counted = {pid.decode(): int(number) for pid, number in stored.items()}
    assert counted.pop("imported") == (1 if name == "gunicorn" else 2)
    assert counted == pids
    assert len(pids) == 2 and pids.total() >= 100
    text = re.sub(UVICORNS, "", log.read_text())
    for wrong in ("Warning", "Traceback", "Task was destroyed", "never awaited"):
        assert wrong not in text, text


def test_pytest_asyncio_with_a_loop_for_each_test(
    redis_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    # without this repository's configuration; pytest-asyncio wants to be told its scope
    options = "-q -W error -c /dev/null -p no:cacheprovider -o asyncio_mode=auto"
    scope = "asyncio_default_fixture_loop_scope=function"
    command = [sys.executable, "-m", "pytest", *options.split(), "-o", scope]
    pytest_ = started([*command, "loops_in_tests.py"], redis_url, log)
    assert pytest_.wait(300) == 0, log.read_text()
    assert "21 passed" in log.read_text()
    assert "warning" not in log.read_text()
