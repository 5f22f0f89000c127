"""opentelemetry-instrumentation-arq: of arq's own calls, and no span twice."""

import asyncio
import os
from typing import Any

from kit import App
from opentelemetry import trace
from opentelemetry.instrumentation.arq import ArqInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

Ctx = dict[str, Any]
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
ArqInstrumentor().instrument()


async def works(ctx: Ctx) -> None:
    with trace.get_tracer("shop").start_as_current_span("inside"):
        pass


async def recovers(ctx: Ctx) -> None:
    if ctx["job_try"] == 1:
        raise ValueError("the first try")


async def main() -> None:
    app = App(os.environ["ARQ_REDIS_URL"])
    with trace.get_tracer("shop").start_as_current_span("request"):
        await app.enqueue("works")
        await (await app.server.pool()).redis.enqueue_job("recovers")
    await app.burst(works, recovers)
    await app.close()
    found = exporter.get_finished_spans()
    by_id = {span.context.span_id: span for span in found}
    lines = [
        f"{by_id[span.parent.span_id].name if span.parent else ''} > {span.name}"
        for span in found
    ]
    assert sorted(lines) == sorted(
        [
            " > request",
            "request > enqueue works",
            "enqueue works > works",
            "works > inside",
            "request > recovers",
            "recovers > recovers",
            "recovers > recovers",
        ]
    ), lines


asyncio.run(main())
