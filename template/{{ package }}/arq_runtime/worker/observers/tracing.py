"""OpenTelemetry: a try is a span in the trace of its job's caller."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ...context import is_traced, otel_context, propagate, trace
from ...values import error_text
from ..job import ClaimedJob
from .observer import Observer


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


def _texts(carrier: dict[str, Any]) -> dict[str, str]:
    """What of it can be used: it comes from Redis, where anyone may have written it."""
    return {key: text for key, text in carrier.items() if isinstance(text, str)}


@contextmanager
def _span(job: ClaimedJob, queue: str) -> Iterator[None]:
    carrier = job.context.get("trace")
    token = None
    if isinstance(carrier, dict):
        token = otel_context.attach(propagate.extract(_texts(carrier)))
    try:
        if not is_traced():
            yield
            return
        parent = None
        if isinstance(job.carrier, dict):
            parent = propagate.extract(_texts(job.carrier))
        with trace.get_tracer(__name__).start_as_current_span(
            job.function_name,
            context=parent,
            kind=trace.SpanKind.CONSUMER,
            attributes={
                "messaging.system": "arq",
                "messaging.destination.name": queue,
                "messaging.message.id": job.job_id,
            },
        ):
            yield
    finally:
        if token is not None:
            otel_context.detach(token)
