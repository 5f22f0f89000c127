"""Plain functions as tasks: each runs in a thread, which nobody can stop."""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any


class Threads:
    """Runs functions in threads, and counts those that outlive their jobs.

    Args:
        size: How many at the same time.
        on_free: Called in the event loop when one of those that were left is done.
    """

    def __init__(self, size: int, on_free: Callable[[], None]) -> None:
        self._executor = ThreadPoolExecutor(size, thread_name_prefix="arq")
        self._on_free = on_free
        self.busy = 0
        """How many run."""
        self.left = 0
        """How many run on, though their jobs have ended: each is a slot not free."""

    def as_coroutine(self, task: Any) -> Any:
        """A plain function as a coroutine function, that runs it in a thread."""
        if not inspect.isroutine(task) or inspect.iscoroutinefunction(task):
            return task

        @functools.wraps(task)
        async def run(*args: Any, **kwargs: Any) -> Any:
            context = contextvars.copy_context()

            def call() -> Any:
                try:
                    return context.run(task, *args, **kwargs)
                except StopIteration as exc:  # a future does not take it
                    raise RuntimeError("the task raised StopIteration") from exc

            return await self._wait_for(self._executor.submit(call))

        return run

    async def _wait_for(self, future: "Future[Any]") -> Any:
        loop = asyncio.get_running_loop()
        was_left = False

        def done() -> None:
            self.busy -= 1
            if was_left:
                self.left -= 1
                self._on_free()

        def done_there(_: object) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(done)

        self.busy += 1
        future.add_done_callback(done_there)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if not future.done():
                was_left = True
                self.left += 1

    def close(self) -> None:
        """Begin no more, and wait for none."""
        self._executor.shutdown(wait=False, cancel_futures=True)
