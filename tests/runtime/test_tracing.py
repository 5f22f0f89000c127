"""OpenTelemetry: a trace goes from the request through its jobs."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from kit import App
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel

Ctx = dict[str, Any]


class Order(BaseModel):
    at: datetime


async def works(ctx: Ctx, order: Order) -> datetime:
    with trace.get_tracer("shop").start_as_current_span("inside"):
        return order.at


async def recovers(ctx: Ctx) -> None:
    if ctx["job_try"] == 1:
        raise ValueError("the first try")


def in_a_thread(ctx: Ctx) -> int:
    with trace.get_tracer("shop").start_as_current_span("inside a thread"):
        return 1


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """What is exported; the SDK is set up for the test alone."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # set_tracer_provider() works only once in a process
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


async def test_a_trace_goes_from_the_request_through_its_jobs(
    app: App, spans: InMemorySpanExporter
) -> None:
    with trace.get_tracer("shop").start_as_current_span("request"):
        await app.enqueue("works", Order(at=datetime(2026, 1, 1)))
        await app.client.enqueue_many("recovers", [{}])
        await app.enqueue("in_a_thread")
        # arq's own enqueue_job takes nothing along, unless it is instrumented
        await (await app.server.pool()).redis.enqueue_job("recovers")
    await app.burst(works, recovers, in_a_thread)
    found = spans.get_finished_spans()
    by_id = {span.context.span_id: span for span in found if span.context}

    def line(span: ReadableSpan) -> str:
        return f"{by_id[span.parent.span_id].name if span.parent else ''} > {span.name}"

    assert sorted(map(line, found)) == sorted(
        [
            " > request",
            "request > enqueue works",
            "enqueue works > works",
            "works > inside",
            "request > enqueue recovers",
            "enqueue recovers > recovers",
            "enqueue recovers > recovers",
            "request > enqueue in_a_thread",
            "enqueue in_a_thread > in_a_thread",
            "in_a_thread > inside a thread",
            " > recovers",
            " > recovers",
        ]
    )
    kinds = {span.name: span.kind for span in found}
    assert kinds["in_a_thread"] == trace.SpanKind.CONSUMER
    assert kinds["enqueue works"] == trace.SpanKind.PRODUCER
    errors = [span for span in found if not span.status.is_ok]
    assert [span.name for span in errors] == ["recovers", "recovers"]
    for span in errors:
        assert span.status.description == "ValueError: the first try"
        assert [event.name for event in span.events] == ["exception"]


async def test_without_the_sdk_there_is_nothing(app: App) -> None:
    """FastAPI alone brings OpenTelemetry's API along."""
    job = await app.enqueue("recovers")
    stored = await app.redis.get(f"arq:job:{job.job_id}")
    assert b'"c":' not in stored
    await app.burst(recovers)
    assert await app.stored(job.job_id)
