"""A plugin for arq's own tests, see test_arq_suite.py: they get this worker.

It is loaded before they are, and they import arq.worker.Worker.
"""

import gc
import os
import sys
import types
from collections.abc import Sequence
from typing import Any, Self

import arq.worker
from arq_runtime.worker.install import install
from arq_runtime.worker.options import no_retry
from arq_runtime.worker.worker import Worker

install()
assert vars(arq.worker)["Worker"] is Worker


class RedisContainer:
    """Stands in for testcontainers: the server runs already."""

    port = int(os.environ["ARQ_SUITE_PORT"])

    def __init__(self, image: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        pass

    def get_container_host_ip(self) -> str:
        return "127.0.0.1"

    def get_exposed_port(self, port: int) -> int:
        return port


for name in ("testcontainers", "testcontainers.redis"):
    sys.modules[name] = types.ModuleType(name)
vars(sys.modules["testcontainers.redis"])["RedisContainer"] = RedisContainer


class FailsAtOnce(Worker):
    """As arq does: a plain exception is not tried again."""

    def __init__(self, functions: Sequence[Any] = (), **kwargs: Any) -> None:
        functions = [arq.worker.func(function) for function in functions]
        for function in functions:
            if hasattr(function.coroutine, "__dict__"):
                no_retry(Exception)(function.coroutine)
        super().__init__(functions, **{"retry_delay": 0, **kwargs})

    async def _poll_iteration(self) -> None:
        if not self.is_open:  # some of the tests do without main()
            self._open()
        await super()._poll_iteration()


for module in (arq, arq.worker):
    vars(module)["Worker"] = FailsAtOnce


gc.disable()


def pytest_runtest_setup() -> None:
    os.environ.pop("WATCHFILES_CHANGES", None)  # left by test_run_watch
    # Some leave tasks, of which asyncio complains in the log when they are collected:
    # between two tests, since others look at the end of theirs.
    gc.collect()
