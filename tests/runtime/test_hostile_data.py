"""Nothing that is in Redis ends the worker, or keeps other jobs from running."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from arq_runtime.worker.worker import Worker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import QUEUE, App, until
from noting import fail, plain

GOOD = json.dumps({"t": None, "f": "plain", "a": [1], "k": {}, "et": 1_700_000_000_000})

ids = st.one_of(
    st.sampled_from([b"a", b"b", b"\xff\xfe", b"", b"a b", "ü".encode(), b"{x}"]),
    st.binary(max_size=12),
)
scores = st.one_of(
    st.sampled_from([0.0, 1.5, -1.0, 1e300, -1e300, float("-inf"), float("inf")]),
    st.floats(allow_nan=False, max_value=1e12),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
payloads = st.one_of(
    st.binary(max_size=40),
    st.just(GOOD.encode()),
    st.integers(0, len(GOOD)).map(lambda size: GOOD[:size].encode()),  # truncated
    json_values.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {
            "t": json_values | st.none(),
            "f": json_values | st.sampled_from(["plain", "fail"]),
            "a": json_values | st.lists(json_values, max_size=3),
            "k": json_values | st.dictionaries(st.text(max_size=4), json_values),
            "et": json_values | st.integers(0, 1 << 41),
        },
        optional={"c": json_values, "x": json_values},
    ).map(lambda job: json.dumps(job).encode()),
)
KINDS = [
    "job",
    "in-progress",
    "retry",
    "abort",
    "result",
    "errors",
    "failed",
    "unknown",
]
COMMANDS = ["set", "rpush", "hset", "sadd", "zadd"]
values = st.one_of(
    st.tuples(st.just("set"), st.binary(max_size=12)),
    st.tuples(st.just("set"), st.integers(-5, 5).map(lambda n: str(n).encode())),
    st.tuples(st.just("rpush"), st.binary(max_size=4)),
    st.tuples(st.just("hset"), st.binary(max_size=4)),
    st.tuples(st.just("sadd"), st.binary(max_size=4)),
    st.tuples(st.just("zadd"), st.binary(max_size=4)),
)
entries = st.tuples(
    st.lists(st.tuples(ids, scores, st.none() | payloads), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(KINDS), ids, values), max_size=5),
    st.lists(
        st.tuples(st.sampled_from(["arq:abort", f"{QUEUE}:failed"]), values), max_size=1
    ),
)


@pytest.fixture
async def worker(
    app: App, notes: object, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Worker]:
    """One that has to go on to the end of the test."""
    async with app.worker(
        *(plain, fail), max_tries=2, retry_delay=0, health_check_interval=0.1
    ) as worker:
        yield worker
        assert worker.main_task and not worker.main_task.done()
    assert "could not be finished" not in caplog.text


async def write(app: App, key: bytes | str, kind: str, value: bytes) -> None:
    await app.redis.delete(key)
    if kind == "hset":
        await app.redis.hset(key, "field", value)
    elif kind == "zadd":
        await app.redis.zadd(key, {value: 1})
    else:
        await getattr(app.redis, kind)(key, value)


@pytest.mark.slow
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(entries)
async def test_whatever_is_in_redis(app: App, worker: Worker, found: Any) -> None:
    jobs, foreign, queues = found
    client = app.redis
    await client.flushdb()
    for kind, job_id, (command, value) in foreign:
        await write(app, f"arq:{kind}:".encode() + job_id, command, value)
    for key, (command, value) in queues:
        await write(app, key, command, value)
    async with client.pipeline() as pipe:
        for job_id, score, payload in jobs:
            if payload is not None:
                pipe.set(b"arq:job:" + job_id, payload)
            pipe.zadd(QUEUE, {job_id: score})
        await pipe.execute()
    await app.enqueue(plain, 1, _job_id="the good one")
    assert (await app.result_of("the good one"))["r"] == 1
    due = await client.zcount(QUEUE, "-inf", await app.now())
    await until(lambda: none_is_due(app) if due else True)


async def none_is_due(app: App) -> bool:
    return not await app.redis.zcount(QUEUE, "-inf", await app.now())


@pytest.mark.parametrize("key", [QUEUE, f"{QUEUE}:paused", f"{QUEUE}:workers"])
async def test_a_key_of_the_queue_is_of_another_type(
    app: App, worker: Worker, caplog: pytest.LogCaptureFixture, key: str
) -> None:
    await app.redis.delete(key)
    if key == f"{QUEUE}:paused":
        await app.redis.rpush(key, "no")
    else:
        await app.redis.set(key, "no")
    await app.wake()
    if key == QUEUE:
        await until(lambda: "WRONGTYPE" in caplog.text)
    await app.redis.delete(key)
    assert await (await app.enqueue(plain, 1)).result(25) == 1


async def test_a_key_of_a_job_is_of_another_type(app: App, worker: Worker) -> None:
    names = [f"{kind} {command}" for kind in KINDS for command in COMMANDS]
    for name in names:
        kind, _, command = name.partition(" ")
        await write(app, f"arq:{kind}:{name}", command, b"1")
        if kind != "job":
            await app.redis.set(f"arq:job:{name}", GOOD)
    due = await app.now()
    await app.redis.zadd(QUEUE, dict.fromkeys(names, due))
    await app.wake()
    await until(lambda: none_is_due(app))
    assert await (await app.enqueue(plain, 1)).result(25) == 1


async def test_a_tasks_name_that_is_no_text(app: App, worker: Worker) -> None:
    await app.redis.set("arq:unknown:odd", 1)  # no worker has known it, for long
    await app.put("odd", GOOD.replace("plain", r"\udc80").encode())
    await until(lambda: app.redis.exists("arq:failed:odd"))
    assert (await app.failed("odd"))["reason"] == "unknown"
    assert await (await app.enqueue(plain, 1)).result(25) == 1


@pytest.mark.parametrize("error", ["?", "1", "{}", '{"try": [], "error": 1}'])
@pytest.mark.parametrize("tries", [1, 9])
async def test_errors_that_others_have_written(
    app: App, tries: int, error: str
) -> None:
    """They take no slot from other jobs."""
    await app.put("odd", GOOD.encode())
    await app.redis.set("arq:retry:odd", tries)
    await app.redis.rpush("arq:errors:odd", error)
    async with app.worker(plain, max_jobs=1, max_tries=2):
        assert await (await app.enqueue(plain, 2)).result(25) == 2
        assert (await app.result_of("odd"))["s"] == (tries == 1)


async def test_scripts_are_gone(app: App, worker: Worker) -> None:
    """As after a restart without them, or on a replica."""
    await app.redis.script_flush()
    assert await (await app.enqueue(plain, 2)).result(25) == 2
