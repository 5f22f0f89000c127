"""Worker settings for processes of their own, see processes.py."""

import json
import os
from pkgutil import resolve_name

from arq_runtime.worker.install import install
from kit import QUEUE, App
from noting import block, deadly, fail, job, once_slow, plain, sync

app = App(os.environ["ARQ_REDIS_URL"], os.environ.get("ARQ_QUEUE_NAME", QUEUE))
WorkerSettings = app.settings(
    *(job, plain, once_slow, block, sync, fail, deadly),
    **json.loads(os.environ["OPTIONS"]),
)
install()
for constant, value in json.loads(os.environ.get("CONSTANTS", "{}")).items():
    module, _, constant_name = constant.rpartition(".")
    vars(resolve_name(module))[constant_name] = value
