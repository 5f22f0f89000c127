"""OpenTelemetry: a try is a span in the trace of its job's caller."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ...context import is_traced, otel_context, propagate, trace
from ...values import error_text
from ..job import ClaimedJob
from .observer import Observer, texts


class Tracing(Observer):
    """Goes on with the caller's trace, where the project has OpenTelemetry."""

    def around(self, job: ClaimedJob, queue: str) -> AbstractContextManager[Any] | None:
        """A span of the try."""
        if propagate is None or not ("trace" in job.context or is_traced()):
            return None
        return _span(job, queue)

    def raised(self, job: ClaimedJob, exc: BaseException) -> None:
        """The exception goes into the span."""
        if not is_traced():
            return
        span = trace.get_current_span()
        span.record_exception(exc)
        span.set_status(trace.StatusCode.ERROR, error_text(exc))


@contextmanager
def _span(job: ClaimedJob, queue: str) -> Iterator[None]:
    here = otel_context.get_current()
    known = propagate.extract(texts(job.context.get("trace")), here)
    token = otel_context.attach(known)
    try:
        if not is_traced():
            yield
            return
        with trace.get_tracer(__name__).start_as_current_span(
            job.function_name,
            context=propagate.extract(texts(job.carrier), known),
            kind=trace.SpanKind.CONSUMER,
            attributes={
                "messaging.system": "arq",
                "messaging.destination.name": queue,
                "messaging.message.id": job.job_id,
            },
        ):
            yield
    finally:
        otel_context.detach(token)
