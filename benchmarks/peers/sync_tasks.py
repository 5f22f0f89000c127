"""RQ, Dramatiq and Celery, for orientation: one client, synchronous."""

import os

from common import URL, done

PEER = os.environ["BENCH_PEER"]

if PEER == "rq":
    import redis
    from rq import Queue

    queue = Queue(connection=redis.Redis.from_url(URL))

    def noop():
        done()

    def send():
        queue.enqueue(noop, result_ttl=3600)

elif PEER == "dramatiq":
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker

    dramatiq.set_broker(RedisBroker(url=URL))

    @dramatiq.actor
    def noop():
        done()

    send = noop.send

else:
    from celery import Celery

    app = Celery("bench", broker=URL, backend=URL)

    @app.task
    def noop():
        done()

    send = noop.delay


async def connect():
    return None


async def enqueue(_, name, *args):
    send()


async def enqueue_many(_, name, calls):
    for _call in calls:
        send()
