"""Nothing that is in Redis ends the worker, or keeps other jobs from running."""

import json
from collections.abc import Iterator

import pytest
from faults import QUEUE, Faults
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Shop

pytestmark = pytest.mark.slow

GOOD = json.dumps({"t": None, "f": "plain", "a": [1], "k": {}, "et": 1_700_000_000_000})

ids = st.one_of(
    st.sampled_from([b"a", b"b", b"\xff\xfe", b"", b"a b", "ü".encode(), b"{x}"]),
    st.binary(max_size=12),
)
scores = st.one_of(
    st.sampled_from([0.0, 1.5, -1.0, 1e300, -1e300, float("-inf"), float("inf")]),
    st.floats(allow_nan=False, max_value=1e12),
)
json_values = st.recursive(
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
values = st.one_of(
    st.tuples(st.just("set"), st.binary(max_size=12)),
    st.tuples(st.just("set"), st.integers(-5, 5).map(lambda n: str(n).encode())),
    st.tuples(st.just("rpush"), st.binary(max_size=4)),
    st.tuples(st.just("hset"), st.binary(max_size=4)),
    st.tuples(st.just("sadd"), st.binary(max_size=4)),
    st.tuples(st.just("zadd"), st.binary(max_size=4)),
)
OWN = ["failed", "workers", "paused", "claim"]
entries = st.tuples(
    st.lists(st.tuples(ids, scores, st.none() | payloads), min_size=1, max_size=5),
    st.lists(st.tuples(st.sampled_from(KINDS), ids, values), max_size=5),
    st.lists(
        st.tuples(st.sampled_from(["arq:abort", f"{QUEUE}:failed"]), values), max_size=1
    ),
)


@pytest.fixture(scope="module")
def running(
    fault_shop: Shop, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Faults]:
    faults = Faults(fault_shop, database_url, tmp_path_factory.mktemp("data"))
    faults.client.flushdb()
    faults.start(max_tries=2, retry_delay=0, health_check_interval=0.1, keep_result=60)
    yield faults
    faults.client.flushdb()
    faults.close()


def write(faults: Faults, key: bytes | str, kind: str, value: bytes) -> None:
    client = faults.client
    client.delete(key)
    if kind == "hset":
        client.hset(key, "field", value)
    elif kind == "zadd":
        client.zadd(key, {value: 1})
    else:
        getattr(client, kind)(key, value)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(entries)
def test_whatever_is_in_redis(running: Faults, found: tuple) -> None:
    jobs, foreign, queues = found
    client = running.client
    client.flushdb()
    for kind, job_id, (command, value) in foreign:
        write(running, f"arq:{kind}:".encode() + job_id, command, value)
    for key, (command, value) in queues:
        write(running, key, command, value)
    with client.pipeline() as pipe:
        for job_id, score, payload in jobs:
            if payload is not None:
                pipe.set(b"arq:job:" + job_id, payload)
            pipe.zadd(QUEUE, {job_id: score})
        pipe.execute()
    good = running.put("plain", 1, job_id="the good one")
    assert running.wait_result(good)["r"] == 1
    due = client.zcount(QUEUE, "-inf", running.now())
    running.wait(lambda: client.zcount(QUEUE, "-inf", running.now()) == 0 or not due)
    assert running.workers[0].lives
    if "Traceback" in running.workers[0].text:
        text = running.workers[0].text
        assert "could not be finished" not in text


@pytest.mark.parametrize("key", [QUEUE, f"{QUEUE}:paused", f"{QUEUE}:workers"])
def test_a_key_of_the_queue_is_of_another_type(running: Faults, key: str) -> None:
    client = running.client
    client.flushdb()
    client.set(key, "no") if key != f"{QUEUE}:paused" else client.rpush(key, "no")
    client.publish(f"{QUEUE}:wake", "")
    if key == QUEUE:
        running.workers[0].wait_for("WRONGTYPE")
    client.delete(key)
    good = running.put("plain", 1)
    assert running.wait_result(good)["r"] == 1
    assert running.workers[0].lives


def test_a_tasks_name_that_is_no_text(running: Faults) -> None:
    running.client.flushdb()
    running.client.set("arq:unknown:odd", 1)  # no worker has known it, for long
    running.put("\udc80", job_id="odd")
    assert running.wait_failed("odd")["reason"] == "unknown"
    assert running.wait_result(running.put("plain", 1))["r"] == 1


@pytest.mark.parametrize("error", ["?", "1", "{}", '{"try": [], "error": 1}'])
@pytest.mark.parametrize("tries", [1, 9])
def test_errors_that_others_have_written(
    faults: Faults, tries: int, error: str
) -> None:
    """They take no slot from other jobs."""
    faults.start(max_jobs=1, max_tries=2)
    faults.client.set("arq:retry:odd", tries)
    faults.client.rpush("arq:errors:odd", error)
    odd = faults.put("plain", 1, job_id="odd")
    other = faults.put("plain", 2)
    assert faults.wait_result(other)["r"] == 2
    assert faults.wait_result(odd)["s"] == (tries == 1)


def test_scripts_are_gone(running: Faults) -> None:
    """As after a restart without them, or on a replica."""
    running.client.script_flush()
    good = running.put("plain", 2)
    assert running.wait_result(good)["r"] == 2
