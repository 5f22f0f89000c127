"""What the jobs of every peer do; runs in the peer's own environment."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

URL = os.environ["BENCH_URL"]
SLOTS = int(os.environ["BENCH_SLOTS"])

_file = os.open(os.environ["BENCH_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def record(sent: float = 0.0) -> None:
    """Write a line: which process ran a job, when, and how long after it was sent.

    A file takes 2 µs, and lines of several processes stay whole; a command to Redis
    would be a good part of what is measured.
    """
    now = time.monotonic()
    os.write(_file, f"{os.getpid()} {now:.6f} {now - sent:.6f}\n".encode())


# --- The tasks, as arq takes them: ours, the rival's and its own ----------------------


async def noop(ctx):
    record()


async def latency(ctx, sent):
    record(sent)


async def sleep(ctx, seconds):
    await asyncio.sleep(seconds)
    record()


async def sized(ctx, size):
    record()
    return "x" * int(size)


# --- For clients ----------------------------------------------------------------------


async def in_hundreds(call: Callable[..., Awaitable[object]], calls: list) -> None:
    """A batch of peers that have none: as fast as each, a hundred at once."""
    for i in range(0, len(calls), 100):
        await asyncio.gather(*[call(*args) for args in calls[i : i + 100]])


def synchronous(send: Callable[[], object]) -> tuple[Callable, Callable, Callable]:
    """`connect`, `enqueue` and `enqueue_many` of a peer that sends its no-op jobs so."""

    async def connect():
        return None

    async def enqueue(_, name):
        send()

    async def enqueue_many(_, name, calls):
        for _call in calls:
            send()

    return connect, enqueue, enqueue_many
