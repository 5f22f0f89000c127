"""What the jobs of every peer do; runs in the peer's own environment."""

import json
import os
import time

import redis

URL = os.environ["BENCH_URL"]
SLOTS = int(os.environ.get("BENCH_SLOTS", "10"))
TOTAL = int(os.environ.get("BENCH_TOTAL", "0"))
SHARED = os.environ.get("BENCH_PROCESSES", "1") != "1"

_client = redis.Redis.from_url(URL)
_first = 0.0
_count = 0


def done() -> None:
    """Count a job; with the last one, store the seconds since the first."""
    global _first, _count
    if SHARED:  # one more command for each job, the same for every peer
        _count = _client.incr("bench:count")
        if _count == 1:
            _client.set("bench:first", time.time())
        elif _count == TOTAL:
            first = float(_client.get("bench:first"))
            _client.set("bench:seconds", time.time() - first)
        return
    _count += 1
    if _count == 1:
        _first = time.perf_counter()
    elif _count == TOTAL:
        _client.set("bench:seconds", time.perf_counter() - _first)


def stamp(sent: float) -> None:
    """Store how long it took from enqueue to here, in milliseconds."""
    _client.rpush("bench:latency", (time.time() - sent) * 1000)


def report(**numbers: float) -> None:
    print(json.dumps(numbers))
