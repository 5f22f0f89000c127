"""RQ, for orientation: a synchronous client; pickle is its default."""

from functools import partial

import redis
from common import URL, record, synchronous
from rq import Queue, SimpleWorker

queue = Queue(connection=redis.Redis.from_url(URL))


def noop():
    record()


connect, enqueue, enqueue_many = synchronous(
    partial(queue.enqueue, "rq_tasks.noop", result_ttl=3600)
)

if __name__ == "__main__":
    # The one that does not fork for each job: there are no slots.
    worker = SimpleWorker([queue], connection=queue.connection)
    worker.work(logging_level="WARNING")
