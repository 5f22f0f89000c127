"""The command as a process of its own: python -m operate_queue, as core.arq is one."""

import os

from arq_runtime import server
from arq_runtime.operate.command import main
from kit import App

server.DEADLINE_S = 0.5
app = App(os.environ["ARQ_REDIS_URL"])
main(app.operations, app.lookup.abort_job, "python -m operate_queue")
