"""Find jobs: by text, time, task and error; and say what was looked at."""

from typing import Any

import pytest
from arq import func
from arq.utils import ms_to_datetime, to_unix_ms
from arq_runtime.operate import find, look
from arq_runtime.operate.info import Which
from arq_runtime.operate.look import UnknownNameError
from kit import QUEUE, App, until
from test_operations import FAIL, OPTIONS, TASKS, keep_failed

Ctx = dict[str, Any]


async def found(app: App, text: str, state: Any = None, **more: Any) -> set[str]:
    it = await app.operations.find_jobs(state, which=Which(text=text, **more))
    return {job.job_id for job in it.jobs}


async def test_text_in_all_states(app: App) -> None:
    async with app.worker(*TASKS, **OPTIONS):
        await app.enqueue("fine", seconds=60, customer="Ada Löw", _job_id="running")
        await app.enqueue("fail", text="no Ada Löw here", _job_id="failed")
        await app.enqueue(
            "fine", customer='ADA LöW "the"', _job_id="deferred", _defer_by=60
        )
        await app.enqueue("fine", customer="Bob", _job_id="other")
        await app.enqueue("fine", customer="ada löw", _job_id="done")
        for name in ("failed", "other", "done"):
            await app.result_of(name)
        await until(lambda: app.redis.exists("arq:in-progress:running"))
        await app.operations.pause_queue()
        await app.enqueue("fine", customer="x", _job_id="Ada Löw 5")
        everywhere = {"running", "failed", "deferred", "done", "Ada Löw 5"}
        assert await found(app, "ada löw") == everywhere
        assert await found(app, "ada löw", "deferred") == {"deferred"}
        assert await found(app, 'Löw "the') == {"deferred"}
        assert await found(app, "ValueError: no ada") == {"failed"}
        assert await found(app, "nobody") == set()
        assert await found(app, "ada", task="fail") == {"failed"}

        async def is_said() -> bool:
            [running] = await app.operations.list_jobs("in_progress")
            return ":" in running.worker and running.started is not None

        await until(is_said)


async def test_failures_since(app: App) -> None:
    for name, at in (("old", 1000), ("new", 900_000)):
        await keep_failed(app.redis, name, "fail", at)
    since = ms_to_datetime(500_000)
    assert await found(app, "", "failed", since=since) == {"new"}
    assert await found(app, "", "failed", until=since) == {"old"}
    assert await app.operations.retry_failed(which=Which(until=since)) == 1


async def test_what_was_looked_at(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "MOST", 1000)
    async with app.redis.pipeline(transaction=False) as pipe:
        for i in range(2600):
            await keep_failed(pipe, f"j{i}", "fail", i + 1)
        await pipe.execute()
    which = Which(text="j7 ")
    await keep_failed(app.redis, "j7 ", "fail", 8)
    one = await app.operations.find_jobs("failed", which=which)
    assert (one.jobs, one.looked_at, one.total) == ([], 1000, 2601)
    two = await app.operations.find_jobs("failed", which=which, start=one.next)
    assert (two.jobs, two.looked_at) == ([], 2000)
    three = await app.operations.find_jobs("failed", which=which, start=two.next)
    assert [job.job_id for job in three.jobs] == ["j7 "]
    assert (three.looked_at, three.next) == (2601, "")
    anywhere = await app.operations.find_jobs(which=which, start=two.next)
    assert [job.job_id for job in anywhere.jobs] == ["j7 "]
    with pytest.raises(ValueError, match="start is 'x'"):
        await app.operations.find_jobs("failed", start="x")
    page = await app.operations.find_jobs("failed", offset=2590)
    assert (len(page.jobs), page.more) == (11, False)
    assert (await app.operations.find_jobs("failed", offset=2500)).more


async def calls(app: App, name: str) -> int:
    return int((await app.redis.info("commandstats"))[f"cmdstat_{name}"]["calls"])


async def test_a_look_does_not_hold_up_redis(app: App) -> None:
    async with app.redis.pipeline(transaction=False) as pipe:
        for i in range(2000):
            await keep_failed(
                pipe, f"j{i}", "fail", i, error=f"ValueError: no {i}" * 50
            )
            pipe.set(f"arq:job:q{i}", b'{"t":null,"f":"fine","a":[],"k":{},"et":1}')
            pipe.zadd(QUEUE, {f"q{i}": i + 1})
        await pipe.execute()
    await found(app, "nobody")
    before = await calls(app, "evalsha")
    await found(app, "nobody")
    assert await calls(app, "evalsha") - before >= 4000 / find.STEP
    before = await calls(app, "evalsha")
    await app.operations.error_groups()
    assert await calls(app, "evalsha") - before >= 2000 / find.FEW


# --- Errors ---------------------------------------------------------------------------


ERRORS = {
    "a1": "OSError: 503 from 'https://one.example/7' (id 1f0c-22)\nand more",
    "a2": "OSError: 504 from 'https://two.example' (id 99ab-1)",
    "b": "OSError: refused",
    "c": 'KeyError: can\'t find "x"',
}
MASKED = "OSError: N from '…' (id N)"


async def test_errors_by_kind(app: App) -> None:
    for at, (name, error) in enumerate(ERRORS.items()):
        await keep_failed(app.redis, name, "fail", 1000 + at, error=error)
    await keep_failed(app.redis, "d", "other", 1, error=ERRORS["a1"])
    groups = await app.operations.error_groups()
    first = groups[0]
    assert (first.task, first.error, first.count) == ("fail", MASKED, 2)
    assert times(first) == (1000, 1001)
    assert {group.error for group in groups[1:]} == {
        *("OSError: refused", 'KeyError: can\'t find "…"', MASKED),
    }
    one = Which(task="fail", group=MASKED)
    listed = await app.operations.find_jobs("failed", which=one)
    assert [job.job_id for job in listed.jobs] == ["a2", "a1"]
    assert await app.operations.retry_failed(which=one) == 2
    assert await app.operations.discard_failed(which=Which(error="OSError")) == 2
    assert [job.job_id for job in await app.operations.list_jobs("failed")] == ["c"]


def times(group: Any) -> tuple[int, int]:
    return to_unix_ms(group.first), to_unix_ms(group.last)


async def test_an_odd_error_has_a_group_that_finds_it(app: App) -> None:
    for name, error in {"long": "ä" * 400, "empty": "", "odd": "\udc80 x"}.items():
        text = error.encode(errors="surrogatepass").decode(errors="replace")
        await keep_failed(app.redis, name, "fail", 1000, error=text)
    for group in await app.operations.error_groups():
        which = Which(task=group.task, group=group.error)
        if group.error:
            assert (
                len((await app.operations.find_jobs("failed", which=which)).jobs) == 1
            )


# --- Honest answers -------------------------------------------------------------------


async def test_a_job_of_another_queue(app: App) -> None:
    other = f"{QUEUE}:other"
    await app.enqueue("fine", _job_id="waits")
    await app.enqueue("fail", _job_id="fails")
    await app.enqueue("fine", _job_id="done")
    await app.burst(FAIL, func(fine_once, name="fine"), max_burst_jobs=3)
    await app.enqueue("fine", _job_id="waits", _replace=True, _defer_by=60)
    for name in ("waits", "fails", "done"):
        assert await app.operations.get_job(name) is not None
        assert await app.operations.get_job(name, queue=other) is None


async def fine_once(ctx: Ctx) -> None: ...


async def test_names_that_are_not_known(app: App) -> None:
    app.settings(*TASKS)
    await app.operations.check_names(None)
    await app.operations.check_names(QUEUE)
    await app.operations.check_names(None, "fine")
    await app.redis.zadd("busy", {"x": 1})
    await app.operations.check_names("busy")
    await keep_failed(app.redis, "x", "gone", 1000)
    await app.operations.check_names(None, "gone")
    with pytest.raises(UnknownNameError, match=f"did you mean '{QUEUE}'"):
        await app.operations.check_names(f"{QUEUE}s")
    with pytest.raises(UnknownNameError, match="did you mean 'fine'"):
        await app.operations.check_names(None, "fin")


async def test_large_arguments_are_left_out_of_lists(app: App) -> None:
    await app.enqueue("fine", blob="x" * 1_000_000, _job_id="waits", _defer_by=60)
    await app.enqueue("fail", text="x" * 100_000, _job_id="fails")
    await app.burst(FAIL, max_burst_jobs=1)
    for state, task in (("deferred", "fine"), ("failed", "fail")):
        it = await app.operations.find_jobs(state, brief=True)
        [job] = it.jobs
        assert (job.task, job.args, job.kwargs) == (task, (), {})
        assert job.bytes_left_out > 100_000
        [whole] = await app.operations.list_jobs(state)
        assert whole.kwargs and not whole.bytes_left_out


# --- Running jobs ---------------------------------------------------------------------


async def test_running_jobs_cost_no_look_at_each_waiting_one(app: App) -> None:
    now = await app.now()
    async with app.worker(*TASKS, **OPTIONS | {"max_jobs": 3}):
        for i in range(5):
            await app.enqueue("fine", seconds=60, _job_id=f"r{i}")
        await until(lambda: app.redis.exists("arq:in-progress:r2"))
        await app.redis.zadd(QUEUE, {f"d{i}": now + 600_000 + i for i in range(5000)})
        await app.redis.zadd(QUEUE, {f"q{i}": now - 1000 for i in range(5000)})
        before = await calls(app, "exists")
        stats = await app.operations.queue_stats()
        assert (stats.in_progress, stats.deferred, stats.queued) == (3, 5000, 5002)
        assert await calls(app, "exists") - before < 300
        running = await app.operations.list_jobs("in_progress")
        assert sorted(job.job_id for job in running) == ["r0", "r1", "r2"]


async def test_a_running_job_whose_id_is_not_utf_8(app: App) -> None:
    async with app.worker(*TASKS, **OPTIONS):
        content = b'{"t":null,"f":"fine","a":[60],"k":{},"et":1}'
        await app.redis.set(b"arq:job:\xff\xfe", content)
        await app.redis.zadd(QUEUE, {b"\xff\xfe": 1})
        await app.wake()

        async def is_said() -> bool:
            return any(
                it.running for it in (await app.operations.queue_stats()).workers
            )

        await until(is_said)
        [job] = await app.operations.list_jobs("in_progress")
        assert job.job_id == "\\xff\\xfe" and job.started
