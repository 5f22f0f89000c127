"""RQ, Dramatiq and Celery, for orientation: one client, synchronous.

RQ stores pickle, the others JSON. Results are kept for an hour; Dramatiq keeps none
unless told to. Celery's are written by its Redis backend.
"""

import os

from common import URL, record

PEER = os.environ["BENCH_PEER"]

if PEER == "rq":
    import redis
    from rq import Queue, SimpleWorker

    queue = Queue(connection=redis.Redis.from_url(URL))

    def noop():
        record()

    def send():
        queue.enqueue("sync_tasks.noop", result_ttl=3600)

    if __name__ == "__main__":
        # The one that does not fork for each job: there are no slots.
        worker = SimpleWorker([queue], connection=queue.connection)
        worker.work(logging_level="WARNING")

elif PEER == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker = RedisBroker(url=URL)
    keeps_results = "BENCH_RESULTS" in os.environ
    if keeps_results:
        broker.add_middleware(Results(backend=RedisBackend(url=URL)))
    dramatiq.set_broker(broker)
    options = {"store_results": True, "result_ttl": 3_600_000} if keeps_results else {}

    @dramatiq.actor(**options)
    def noop():
        record()

    send = noop.send

else:
    from celery import Celery

    app = Celery("bench", broker=URL, backend=URL)
    app.conf.result_expires = 3600

    @app.task
    def noop():
        record()

    send = noop.delay


async def connect():
    return None


async def enqueue(_, name, *args):
    send()


async def enqueue_many(_, name, calls):
    for _call in calls:
        send()
