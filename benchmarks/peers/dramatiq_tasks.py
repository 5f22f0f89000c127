"""Dramatiq, for orientation: a synchronous client; JSON is its default.

It keeps no results unless told to.
"""

import os

import dramatiq
from common import URL, record, synchronous
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

broker = RedisBroker(url=URL)
options = {}
if "BENCH_RESULTS" in os.environ:
    broker.add_middleware(Results(backend=RedisBackend(url=URL)))
    options = {"store_results": True, "result_ttl": 3_600_000}
dramatiq.set_broker(broker)


@dramatiq.actor(**options)
def noop():
    record()


connect, enqueue, enqueue_many = synchronous(noop.send)
