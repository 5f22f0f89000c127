"""Probes: a worker is alive while its event loop answers, and ready while Redis does."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from arq_runtime.operate.shown import print_stats
from arq_runtime.worker import alive
from kit import App, until
from noting import Notes
from processes import PATHS, Processes
from support import OwnRedis

pytestmark = pytest.mark.slow

PROGRAM = PATHS[0] / "arq_runtime/worker/alive.py"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of workers in a directory of their own; five seconds of silence are too many."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(alive, "SILENCE_S", 5)


def live() -> str:
    return alive.problem(is_ready=False)


def ready() -> str:
    return alive.problem(is_ready=True)


def probe(*options: str) -> tuple[int, str, float]:
    """As Docker and Kubernetes do it: the exit code, what it says, its CPU time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, PROGRAM, *options], capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return done.returncode, done.stdout + done.stderr, spent


async def test_the_probes(processes: Processes) -> None:
    assert probe()[:2] == (1, "no worker runs here\n")
    worker = await processes.start()
    await until(lambda: not ready())
    probes = [probe(*options) for options in ([], ["--ready"]) for _ in range(3)]
    assert {found[:2] for found in probes} == {(0, "")}
    assert min(spent for _, _, spent in probes) < 0.15
    assert await worker.stop() == 0
    assert live() == "no worker runs here"


@pytest.mark.parametrize("how", ["refused", "frozen"])
async def test_an_outage_makes_no_worker_look_dead(
    own_redis: OwnRedis, own_processes: Processes, how: str
) -> None:
    """It is not ready, until Redis is back."""
    worker = await own_processes.start()
    await until(lambda: not ready())
    own_redis.stop() if how == "refused" else own_redis.freeze()
    await until(lambda: "has not reached Redis for" in ready())
    await until(lambda: not live())
    own_redis.start() if how == "refused" else own_redis.thaw()
    await until(lambda: not ready())
    assert worker.lives


async def test_a_worker_that_has_not_found_redis_yet_is_alive(
    own_redis: OwnRedis, own_processes: Processes
) -> None:
    own_redis.stop()
    await own_processes.start(ready=False)
    await until(lambda: not live())
    await until(lambda: "has not reached Redis" in ready())
    own_redis.start()
    await until(lambda: not ready())


async def test_a_blocked_event_loop_is_not_alive(
    app: App, processes: Processes, notes: Notes
) -> None:
    worker = await processes.start()
    await until(lambda: not live())
    await app.enqueue("block", "a", 60.0)
    await until(live)
    assert f"worker {worker.pid} has given no sign of life for" in live()


async def test_two_workers_of_a_host(processes: Processes, tmp_path: Path) -> None:
    """That one is killed does not make the other unhealthy; that it hangs does."""
    first, second = [await processes.start() for _ in range(2)]
    await until(lambda: not ready())
    first.kill()
    await until(lambda: not live() and not ready())
    [directory] = tmp_path.glob("arq-workers-*")
    assert [path.name for path in directory.iterdir()] == [str(second.pid)]
    second.freeze()
    await until(live)
    second.thaw()
    await until(lambda: not live())


async def test_a_frozen_worker_is_marked_until_it_goes_on(
    app: App, processes: Processes, capsys: pytest.CaptureFixture[str]
) -> None:
    worker = await processes.start()

    async def is_listed(*, as_alive: bool) -> bool:
        found = (await app.operations.queue_stats()).workers
        return [one.is_alive for one in found] == [as_alive]

    await until(lambda: is_listed(as_alive=True), 60)
    worker.freeze()
    await until(lambda: is_listed(as_alive=False), 60)
    print_stats(await app.operations.queue_stats())
    worker.thaw()
    await until(lambda: is_listed(as_alive=True), 60)
    print_stats(await app.operations.queue_stats())
    assert capsys.readouterr().out.count("has said nothing since") == 1
