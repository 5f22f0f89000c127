"""What runs beside the main loop.

Now and then: does the event loop answer? Whoever asks is told, and what blocks it.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from typing import Any

from . import alive
from .leases import Leases
from .processes import is_orphan

logger = logging.getLogger("arq.worker")

#: How often that is looked at, in seconds: it is much of what an idle worker does.
TICK_S = 2
#: How long the loop may be blocked before that is said, in seconds.
BLOCKED_S = 2


@contextlib.contextmanager
def pulse(*workers: Leases) -> Iterator[None]:
    """Tell it of the workers of this process, for the length of the block."""
    loop = asyncio.get_running_loop()
    parent = os.getppid()
    ticking: asyncio.TimerHandle

    def tick(due: float) -> None:
        nonlocal parent, ticking
        blocked = loop.time() - due
        if blocked > BLOCKED_S:
            held = [job.ref for leases in workers for job in leases.held.values()]
            logger.warning(
                "The event loop was blocked for %.0f s, with these jobs: %s. Blocking "
                "code belongs in a plain `def` task, or in asyncio.to_thread",
                blocked,
                ", ".join(held) or "none",
            )
        with contextlib.suppress(OSError):  # of the disk, which is no trouble of jobs
            answered_at = min(leases.answered_at for leases in workers)
            alive.write(loop.time() - answered_at)
        if is_orphan(parent):
            parent = os.getppid()  # a second signal would not wait for running jobs
            os.kill(os.getpid(), signal.SIGTERM)
        due = loop.time() + TICK_S
        ticking = loop.call_at(due, tick, due)

    tick(loop.time())
    try:
        yield
    finally:
        ticking.cancel()
        alive.delete()


@contextlib.asynccontextmanager
async def beside(others: Iterable[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run them for the length of the block."""
    tasks = [asyncio.create_task(one) for one in others]
    try:
        yield
    finally:
        # Again where a cancellation got lost, as it can before Python 3.12.
        while running := [task for task in tasks if not task.done()]:
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=1)
