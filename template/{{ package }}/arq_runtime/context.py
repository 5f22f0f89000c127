"""What travels with a job besides its arguments, so that its logs and traces connect.

That is what is bound in structlog's contextvars, a request id say, and the trace that
OpenTelemetry or Sentry has of the caller, where the project uses them.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator
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


def sentry_headers() -> dict[str, str]:
    """What connects a job to the trace of its caller; empty without Sentry."""
    if (sdk := sentry()) is None:
        return {}
    headers = {"sentry-trace": sdk.get_traceparent(), "baggage": sdk.get_baggage()}
    return {name: value for name, value in headers.items() if value}


def _size(context: dict[str, Any]) -> int:
    return len(json.dumps(context).encode())


def current_context() -> dict[str, Any] | None:
    """What the job that is being enqueued takes along; None when there is nothing.

    At most 1 kB as JSON: what is more is left out, with a warning.
    """
    context: dict[str, Any] = {}
    if propagate is not None:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        if carrier:
            context["trace"] = carrier
    if headers := sentry_headers():
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
    function: str | Callable[..., Any], queue: str
) -> AbstractContextManager[None]:
    """Show in the caller's trace that it enqueues."""
    if not (is_traced() or sentry() is not None):
        return nullcontext()  # every enqueue would pay for the stack
    return _enqueue_spans(
        function if isinstance(function, str) else function.__qualname__, queue
    )


@contextmanager
def _enqueue_spans(task: str, queue: str) -> Iterator[None]:
    with ExitStack() as stack:
        if is_traced():
            span = trace.get_tracer(__name__).start_as_current_span(
                f"enqueue {task}",
                kind=trace.SpanKind.PRODUCER,
                attributes={
                    "messaging.system": "arq",
                    "messaging.destination.name": queue,
                },
            )
            stack.enter_context(span)
        if (sdk := sentry()) is not None:
            span = sdk.start_span(op="queue.submit.arq", name=task, origin=ORIGIN)
            stack.enter_context(span).set_data("messaging.destination.name", queue)
        yield
