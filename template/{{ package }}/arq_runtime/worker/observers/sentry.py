"""Sentry: one event for a job that has failed for good, and one trace with its caller.

Nothing happens unless the project has Sentry, and calls sentry_sdk.init() at import
time, in settings.py or main.py and tasks.py say.

Sentry's own ArqIntegration, which is on by default, wraps the tasks: of a job that is
tried three times it would send three events, and none of one that timed out or never
started. What it sends is held back here, and the event goes out once it is recorded
that the job has failed for good.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ...context import ORIGIN, sentry
from ..job import ClaimedJob
from .observer import Observer, texts


class Sentry(Observer):
    """Runs a try as a transaction of its own, in the trace of its job's caller."""

    def around(self, job: ClaimedJob, queue: str) -> AbstractContextManager[Any] | None:
        """The transaction of the try."""
        return None if (sdk := sentry()) is None else _transaction(sdk, job, queue)

    def failed(self, job: ClaimedJob, exc: BaseException) -> None:
        """Send the event."""
        if (sdk := sentry()) is None:
            return
        with sdk.new_scope() as scope:
            scope.set_transaction_name(job.function_name)
            scope.set_tag("arq_task_id", job.job_id)
            scope.set_tag("arq_task_retry", job.job_try > 1)
            if scope.transaction is not None:
                scope.transaction.set_status("internal_error")
            scope.capture_exception(exc)

    def ended(self, job: ClaimedJob, queue: str, outcome: str, seconds: float) -> None:
        """Tries that are not the last have neither failed nor succeeded."""
        sdk = sentry()
        transaction = sdk and sdk.get_current_scope().transaction
        if transaction is not None and outcome in ("retried", "released", "aborted"):
            transaction.set_status("aborted")


def _hold_back(event: dict[str, Any], hint: dict[str, Any]) -> dict[str, Any] | None:
    errors = event.get("exception", {}).get("values", [])
    if not any(one.get("mechanism", {}).get("type") == "arq" for one in errors):
        return event
    if (dedupe := sentry().get_client().get_integration("dedupe")) is not None:
        dedupe._last_seen.set(None)  # or it would drop ours as the same once more
    return None


@contextmanager
def _transaction(sdk: Any, job: ClaimedJob, queue: str) -> Iterator[None]:
    with sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()
        scope.add_event_processor(_hold_back)
        if last_error := job.last_failure[1]:
            scope.add_breadcrumb(category="arq", level="warning", message=last_error)
        transaction = sdk.continue_trace(
            texts(job.context.get("sentry")),
            op="queue.task.arq",
            name=job.function_name,
            source="task",
            origin=ORIGIN,
        )
        with sdk.start_transaction(transaction):
            transaction.set_status("ok")
            transaction.set_data("messaging.message.id", job.job_id)
            transaction.set_data("messaging.destination.name", queue)
            yield
