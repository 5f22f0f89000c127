"""Sentry is initialized, then the worker is defined: as at the top of a tasks.py."""

import sentry_setup  # noqa: F401
from sentry_tasks import WorkerSettings

__all__ = ["WorkerSettings"]
