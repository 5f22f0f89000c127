"""What travels with a job besides its arguments, so that its logs and traces connect.

That is what is bound in structlog's contextvars, a request id say, and the trace that
OpenTelemetry or Sentry has of the caller, where the project uses them.
"""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from importlib import import_module
from typing import Any

logger = logging.getLogger(__name__)

_MAX_BYTES = 1024


def installed(name: str) -> Any:
    """The module; None where the project does without."""
    try:
        return import_module(name)
    except ImportError:
        return None


structlog = installed("structlog")
propagate = installed("opentelemetry.propagate")
otel_context = installed("opentelemetry.context")
trace = installed("opentelemetry.trace")


def is_traced() -> bool:
    """Has the project set OpenTelemetry up? FastAPI alone brings its API along."""
    return trace is not None and not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider
    )


#: Where Sentry's spans come from.
ORIGIN = "auto.queue.arq"


def sentry() -> Any:
    """The SDK, where it was initialized: not imported, which would take its time."""
    sdk = sys.modules.get("sentry_sdk")
    return sdk if sdk is not None and sdk.get_client().is_active() else None


def _size(context: dict[str, Any]) -> int:
    return len(json.dumps(context).encode())


def _current_context(sdk: Any) -> dict[str, Any] | None:
    """What the job that is being enqueued takes along; None when there is nothing.

    At most 1 kB as JSON: what is more is left out, with a warning.
    """
    context: dict[str, Any] = {}
    if otel_context is not None and otel_context.get_current():
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        if carrier:
            context["trace"] = carrier
    if sdk is not None:
        headers = {"sentry-trace": sdk.get_traceparent(), "baggage": sdk.get_baggage()}
        if headers := {name: value for name, value in headers.items() if value}:
            context["sentry"] = headers
    if structlog and (bound := structlog.contextvars.get_contextvars()):
        bound = {key: _plain(value) for key, value in bound.items() if key not in _OWN}
        if _size(context | {"log": bound}) > _MAX_BYTES:
            logger.warning("What structlog has bound is too big to go with the job")
        elif bound:
            context["log"] = bound
    return context if context and _size(context) <= _MAX_BYTES else None


#: Of the job that enqueues another, which has its own.
_OWN = ("job_id", "job_try", "arq_queue")


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    try:
        return str(value)
    except Exception:
        return type(value).__name__


def enqueue_span(
    task: str, queue: str
) -> AbstractContextManager[dict[str, Any] | None]:
    """Show in the caller's trace that it enqueues; has what the job takes along."""
    traced, sdk = is_traced(), sentry()
    if not traced and sdk is None:  # every enqueue would pay for the stack
        return nullcontext(_current_context(None))
    return _enqueue_spans(task, queue, traced, sdk)


@contextmanager
def _enqueue_spans(
    task: str, queue: str, traced: bool, sdk: Any
) -> Iterator[dict[str, Any] | None]:
    with ExitStack() as stack:
        if traced:
            span = trace.get_tracer(__name__).start_as_current_span(
                f"enqueue {task}",
                kind=trace.SpanKind.PRODUCER,
                attributes={
                    "messaging.system": "arq",
                    "messaging.destination.name": queue,
                },
            )
            stack.enter_context(span)
        if sdk is not None:
            span = sdk.start_span(op="queue.submit.arq", name=task, origin=ORIGIN)
            stack.enter_context(span).set_data("messaging.destination.name", queue)
        yield _current_context(sdk)
