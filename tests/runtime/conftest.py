"""An application's queue in an empty database of the shared server, or on its own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kit import App
from noting import FILE, Notes
from postgresql import postgres
from processes import Processes
from support import OwnRedis


@pytest.fixture
async def app(redis_url: str) -> AsyncIterator[App]:
    """An application, its queue empty."""
    app = App(redis_url)
    yield app
    await app.close()


@pytest.fixture
async def own_app(own_redis: OwnRedis) -> AsyncIterator[App]:
    """An application on a server that may be broken."""
    app = App(own_redis.url)
    yield app
    await app.close()


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker without jobs looks around twice a second, not only each three seconds."""
    monkeypatch.setattr("arq_runtime.worker.loop.WAIT_S", 0.5)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notes:
    """What tasks note, here and in the processes that are started."""
    file = tmp_path / "notes"
    monkeypatch.setenv(FILE, str(file))
    return Notes(file)


@pytest.fixture
def processes(redis_url: str, notes: Notes, tmp_path: Path) -> Iterator[Processes]:
    """Worker processes on the application's queue."""
    found = Processes(redis_url, tmp_path)
    yield found
    found.close()


@pytest.fixture
def own_processes(
    own_redis: OwnRedis, notes: Notes, tmp_path: Path
) -> Iterator[Processes]:
    """Worker processes on a server that may be broken."""
    found = Processes(own_redis.url, tmp_path)
    yield found
    found.close()


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """URL of a PostgreSQL, which the tests share."""
    with postgres() as url:
        yield url
