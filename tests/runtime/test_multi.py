"""Several queues in one process: jobs, shares, outages of one, stops, probes."""

import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from arq_runtime.worker import alive
from arq_runtime.worker.multi import MultiQueueOptions, shares
from kit import App, until
from noting import Notes, job
from processes import Processes, WorkerProcess
from support import OwnRedis

LOW, HIGH = "arq:queue:low", "arq:queue:high"


async def start(
    started: Processes, *options: str, ready: bool = True, **more: Any
) -> WorkerProcess:
    """Both queues are on one server, unless the environment names another."""
    more["settings"] = "multi_tasks.AllSettings"
    worker = await started.start(*options, ready=False, **more)
    if ready:
        await worker.wait_for("redis_version=", times=2)
    return worker


# --- Settings ---------------------------------------------------------------------------


def settings(app: App, **weights: int) -> dict[Any, int]:
    """Settings classes of these queues, and their weights."""
    return {
        app.settings(job, queue_name=name): weight for name, weight in weights.items()
    }


@pytest.mark.parametrize(
    ("max_jobs", "weights", "expected"),
    [
        (20, {"a": 3, "b": 1}, [15, 5]),
        (10, {"a": 1, "b": 1, "c": 1}, [4, 3, 3]),
        (4, {"a": 1000, "b": 1}, [3, 1]),
        (1, {"a": 2, "b": 1}, [1, 1]),
    ],
)
def test_shares(
    redis_url: str, max_jobs: int, weights: dict[str, int], expected: list[int]
) -> None:
    class AllSettings(MultiQueueOptions):
        pass

    AllSettings.weights = settings(App(redis_url), **weights)
    AllSettings.max_jobs = max_jobs
    assert [*shares(AllSettings).values()] == expected


class Elsewhere:
    functions: ClassVar = [job]


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        (
            {"weights": {}},
            "AllSettings.weights must name worker settings and the weigh",
        ),
        ({"weights": ["a"]}, "must name worker settings and the weight of each, as in"),
        ({"weights": {Elsewhere: 1}}, "Elsewhere'>, which is no worker settings class"),
        (
            {"weights": {"a": 1}},
            "AllSettings.weights has 'a', which is no worker setti",
        ),
        ({"weight": {}}, "is no setting of a worker; did you mean 'weights'?"),
        ({"max_jobs": 0}, "AllSettings.max_jobs must be a whole number of 1 or more"),
        ({"job_timeout": 5}, "AllSettings.job_timeout belongs to one queue: set it in"),
        ({"functions": [job]}, "AllSettings.functions belongs to one queue"),
    ],
)
def test_settings_that_cannot_be(attributes: dict[str, Any], error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        type("AllSettings", (MultiQueueOptions,), attributes)


@pytest.mark.parametrize("weight", [0, -1, 1.5, True, None])
def test_a_weight_that_cannot_be(app: App, weight: Any) -> None:
    with pytest.raises(
        ValueError, match="the weight of WorkerSettings must be a whole"
    ):
        type("A", (MultiQueueOptions,), {"weights": settings(app, a=weight)})


def test_the_same_queue_twice(app: App) -> None:
    class OtherSettings(app.base()):  # type: ignore[misc]
        functions: ClassVar = [job]

    weights = settings(app, **{app.queue: 1}) | {OtherSettings: 1}
    error = "A.weights: WorkerSettings and OtherSettings have the same queue, 'arq:que"
    with pytest.raises(ValueError, match=error):
        type("A", (MultiQueueOptions,), {"weights": weights})


def test_a_class_without_tasks(app: App) -> None:
    error = "A.weights has BaseWorkerSettings, which has no tasks"
    with pytest.raises(TypeError, match=error):
        type("A", (MultiQueueOptions,), {"weights": {app.base(): 1}})


async def test_it_has_no_queue_of_its_own(app: App) -> None:
    """Jobs go where they went without it."""
    type("A", (MultiQueueOptions,), {"weights": settings(app, a=1, b=1)})
    assert [queue.name for queue in app.queues.known()] == [app.queue, "a", "b"]


# --- In a process -----------------------------------------------------------------------


@pytest.fixture
async def other(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[App]:
    """The application of the second queue, on a server that may be broken."""
    monkeypatch.setenv("OTHER_URL", own_redis.url)
    app = App(own_redis.url)
    yield app
    await app.close()


@pytest.mark.slow
async def test_both_run_and_drain(
    app: App, other: App, processes: Processes, notes: Notes
) -> None:
    worker = await start(processes, env={"TICKS": "yes"})
    for one, queue in ((app, LOW), (other, HIGH)):
        found = await one.enqueue("redis_of", _queue_name=queue)
        port = one.redis_settings.port
        assert await found.result(20) == [queue, port, queue, "by both"]
        thread = await one.enqueue("sync", queue, _queue_name=queue)
        assert await thread.result(20) == queue
    await notes.started("tick", timeout=30)
    for one, queue, seconds in ((app, LOW, 4.0), (other, HIGH, 2.0)):
        await one.enqueue("job", f"slow {queue}", seconds, _queue_name=queue)
        await notes.started(f"slow {queue}", timeout=30)
    assert await worker.stop(timeout=60) == 0
    events = notes.events()
    assert {event.who for event in events} == {str(worker.pid)}
    assert len(notes.ends(f"slow {LOW}")) == len(notes.ends(f"slow {HIGH}")) == 1
    for hook in ("startup", "shutdown"):
        assert Counter(event.name for event in notes.events(what=hook)) == {
            LOW: 1,
            HIGH: 1,
        }
    # No hook of one closes what the jobs of the other use.
    assert [event.what for event in events[-2:]] == ["shutdown", "shutdown"]
    for one, queue in ((app, LOW), (other, HIGH)):
        assert not await one.redis.exists(f"{queue}:workers")


@pytest.mark.slow
async def test_a_second_signal_does_not_wait(
    app: App, processes: Processes, notes: Notes
) -> None:
    worker = await start(processes)
    for queue in (LOW, HIGH):
        await app.enqueue("job", queue, 600.0, _queue_name=queue)
        await notes.started(queue, timeout=30)
    worker.send(signal.SIGINT)
    await worker.wait_for("shutdown on SIGINT", times=2)
    assert await worker.stop(signal.SIGINT) == 0
    for queue in (LOW, HIGH):
        assert await app.redis.zcard(queue) == 1


@pytest.mark.slow
async def test_shares_hold_under_load(
    app: App, processes: Processes, notes: Notes
) -> None:
    """Of eight slots the one has six and the other two; nobody takes another's."""
    for n in range(20):
        for queue in (LOW, HIGH):
            await app.enqueue("job", f"{queue} {n}", 0.5, _queue_name=queue)
    worker = await start(processes, max_jobs=8)
    await until(lambda: len(notes.ends()) >= 40, 60)
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for event in notes.events():
        queue = event.name.partition(" ")[0]
        if event.what in ("start", "end") and queue in (LOW, HIGH):
            running[queue] += 1 if event.what == "start" else -1
            most[queue] = max(most[queue], running[queue])
    assert most == {HIGH: 6, LOW: 2}
    assert await worker.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["refused", "frozen"])
async def test_an_outage_of_one_is_none_of_the_other(
    app: App,
    other: App,
    own_redis: OwnRedis,
    processes: Processes,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
    how: str,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(alive, "SILENCE_S", 5)
    worker = await start(processes)
    await until(lambda: not alive.problem(is_ready=True), 30)
    own_redis.stop() if how == "refused" else own_redis.freeze()
    await until(lambda: "has not reached" in alive.problem(is_ready=True), 30)
    for n in range(3):
        found = await app.enqueue("job", n, _queue_name=LOW)
        assert await found.result(20) == n
    own_redis.start() if how == "refused" else own_redis.thaw()
    found = await other.enqueue("job", "back", _queue_name=HIGH)
    assert await found.result(30) == "back"
    await until(lambda: not alive.problem(is_ready=True), 30)
    assert await worker.stop() == 0


@pytest.mark.slow
async def test_a_redis_that_cannot_be_used(
    app: App,
    own_redis: OwnRedis,
    other: App,
    processes: Processes,
    notes: Notes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is tried again while the other queue is served; alone, it ends the worker."""
    await other.redis.config_set("requirepass", "secret")
    constants = {"arq_runtime.worker.multi.LOG_EVERY": 0.5}
    worker = await start(processes, ready=False, constants=constants)
    await worker.wait_for("Redis cannot be used: ", times=2)
    assert (await (await app.enqueue("job", 1, _queue_name=LOW)).result(20)) == 1
    await other.redis.config_set("requirepass", "")
    found = await other.enqueue("job", 2, _queue_name=HIGH)
    assert await found.result(30) == 2
    assert await worker.stop() == 0
    url = f"{app.url.rpartition('/')[0]}/9999"
    monkeypatch.delenv("OTHER_URL")
    worker = await start(processes, ready=False, url=url)
    assert await worker.exit_code(60) == 1
    assert worker.text.count("Redis cannot be used: ") == 2
    assert "Traceback" not in worker.text


@pytest.mark.slow
async def test_the_check_asks_for_each(
    app: App, other: App, own_redis: OwnRedis, processes: Processes, notes: Notes
) -> None:
    async def check() -> WorkerProcess:
        asked = await start(processes, "--check", ready=False)
        await asked.exit_code(60)
        return asked

    worker = await start(processes)
    await until(lambda: other.redis.exists(f"{HIGH}:health-check"), 30)
    await until(lambda: app.redis.exists(f"{LOW}:health-check"), 30)
    asked = await check()
    assert asked.process.returncode == 0, asked.text
    for queue in (LOW, HIGH):
        assert re.search(rf"successful: .*\({queue}\)", asked.text)
    own_redis.stop()
    asked = await check()
    assert asked.process.returncode == 1
    assert re.search(rf"failed, see ARQ_REDIS_URL: .*\({HIGH}\)", asked.text)
    assert re.search(rf"successful: .*\({LOW}\)", asked.text)
    worker.kill()


@pytest.mark.slow
async def test_a_burst_ends_when_both_are_empty(
    app: App, other: App, own_redis: OwnRedis, processes: Processes, notes: Notes
) -> None:
    """Also where a job adds to the other queue; an outage of one is said at the end."""
    await app.enqueue("pass_on", 4, _queue_name=LOW)
    worker = await start(processes, "--burst", ready=False, env={"OTHER_URL": ""})
    assert await worker.exit_code(60) == 0
    hops = [event.name for event in notes.starts()]
    assert hops == ["4", "3", "2", "1", "0"]
    own_redis.stop()
    await app.enqueue("job", "alone", _queue_name=LOW)
    worker = await start(processes, "--burst", ready=False)
    assert await worker.exit_code(60) == 1
    assert len(notes.ends("alone")) == 1
    assert worker.text.count("Redis is not reachable") == 1
    assert "Traceback" not in worker.text


@pytest.mark.slow
async def test_an_error_of_one_at_the_start_ends_both(
    app: App, processes: Processes, notes: Notes
) -> None:
    worker = await start(processes, ready=False, env={"BROKEN": HIGH})
    assert await worker.exit_code(60) == 1
    assert "RuntimeError: no database" in worker.text


@pytest.mark.slow
async def test_several_processes_that_are_replaced(
    app: App, processes: Processes, notes: Notes
) -> None:
    """Five jobs of one queue, and the process is; a job of the other is not cut short."""
    worker = await start(processes, ready=False, processes=2, max_jobs_per_process=5)
    await worker.wait_for("redis_version=", 60, times=4)
    await app.enqueue("job", "long", 7.0, _queue_name=HIGH, _job_id="long")
    [long] = await notes.started("long", timeout=30)
    for n in range(15):
        await app.enqueue("job", n, _queue_name=LOW, _job_id=f"j{n}")
    for n in range(15):
        assert (await app.result_of(f"j{n}", 60))["r"] == n
    assert (await app.result_of("long", 60))["r"] == "long"
    [ended] = notes.ends("long")
    assert long.who == ended.who
    of_low = {event.who for event in notes.ends() if event.name.isdigit()}
    assert len(of_low) >= 3
    assert await worker.stop(timeout=60) == 0
