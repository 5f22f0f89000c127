"""Worker settings of a process that says when it ends as Python does."""

import atexit

from fault_tasks import WorkerSettings as WorkerSettings

atexit.register(print, "at exit")
