"""The worker is defined, then Sentry is initialized: as at the end of a tasks.py."""

from sentry_tasks import WorkerSettings  # noqa: I001
import sentry_setup  # noqa: F401

__all__ = ["WorkerSettings"]
