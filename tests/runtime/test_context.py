"""What the caller is about travels with the job."""

import json
import logging
from typing import Any

import pytest
from arq_runtime.context import enqueue_span
from kit import App
from opentelemetry import propagate, trace
from structlog.contextvars import bound_contextvars, get_contextvars

Ctx = dict[str, Any]

SPAN = trace.NonRecordingSpan(
    trace.SpanContext(
        trace_id=0xABC,
        span_id=0xDEF,
        is_remote=False,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )
)
TRACEPARENT = f"00-{0xABC:032x}-{0xDEF:016x}-01"
BOUND = {"request_id": "r-1", "tenant": 7, "weight": 1.5}


class Lines(logging.Handler):
    """What structlog would add to each line of the worker's log."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append((record.getMessage(), get_contextvars()))


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level("INFO", "arq.worker")
    handler = Lines()
    logging.getLogger("arq.worker").addHandler(handler)
    yield handler.found
    logging.getLogger("arq.worker").removeHandler(handler)


async def speak(ctx: Ctx) -> dict[str, Any]:
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {"log": get_contextvars(), "trace": carrier.get("traceparent")}


async def travels(app: App, job_id: str) -> Any:
    """What is stored with a job that waits."""
    return json.loads(await app.redis.get(f"arq:job:{job_id}")).get("c")


async def test_log_context_and_trace_travel_with_the_job(
    app: App, lines: list[tuple[str, dict[str, Any]]]
) -> None:
    chained = []

    async def chain(ctx: Ctx) -> None:
        await app.enqueue(speak, _job_id="chained")
        chained.append(await travels(app, "chained"))

    settings = app.settings(speak, chain)
    with trace.use_span(SPAN), bound_contextvars(**BOUND):
        await app.enqueue(speak, _job_id="first")
        await app.enqueue(chain, _job_id="second")
    with bound_contextvars(request_id="x" * 2000):
        await app.enqueue(speak, _job_id="big")
    await app.enqueue(speak, _job_id="bare")
    first = await travels(app, "first")
    assert first["log"] == BOUND
    assert first["trace"]["traceparent"] == TRACEPARENT
    assert await travels(app, "big") is None
    assert await travels(app, "bare") is None

    async with app.worker(*settings.functions):
        spoken = {
            name: (await app.result_of(name))["r"]
            for name in ("first", "chained", "big", "bare")
        }
    for name in ("first", "chained"):
        own = {"job_id": name, "job_try": 1}
        assert spoken[name] == {"log": BOUND | own, "trace": TRACEPARENT}
    for name in ("big", "bare"):
        assert spoken[name]["log"] == {"job_id": name, "job_try": 1}
    # not the job_id and job_try of the job that enqueued it
    assert chained[0]["log"] == BOUND
    ends = [bound for line, bound in lines if "← first:speak" in line]
    assert ends == [BOUND | {"job_id": "first", "job_try": 1}]


ODD: list[Any] = [
    *(None, [], "x"),
    {"log": 1, "trace": 2},
    {"log": {"event": "e", "a": {}}},
    {"trace": {"traceparent": "?"}},
    {"trace": {"traceparent": 1}},
    {"log": {"job_id": "other"}},
    {"sentry": {"sentry-trace": 1}},
]


async def test_what_travels_cannot_harm_the_job(app: App) -> None:
    """It comes from Redis, where anyone may have written it."""
    app.settings(speak)
    for n, context in enumerate(ODD):
        job = await app.enqueue(speak, _job_id=f"{n}")
        key = f"arq:job:{job.job_id}"
        content = json.loads(await app.redis.get(key)) | {"c": context}
        await app.redis.set(key, json.dumps(content))
    await app.burst(speak)
    for n in range(len(ODD)):
        result = await app.result_of(f"{n}")
        assert result["s"] and result["r"]["log"]["job_id"] == f"{n}"
    assert get_contextvars() == {}


class Broken:
    def __str__(self) -> str:
        raise ValueError


async def test_what_is_bound_cannot_harm_the_call(app: App) -> None:
    with (
        bound_contextvars(a=Broken(), b=float("nan"), c=b"x"),
        enqueue_span("speak", "queue") as context,
    ):
        assert context and context["log"]["a"] == "Broken"
        await app.enqueue("speak")
