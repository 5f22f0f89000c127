"""Celery, for orientation: a synchronous client; JSON is its default.

Results are written by its Redis backend.
"""

from celery import Celery
from common import URL, record, synchronous

app = Celery("bench", broker=URL, backend=URL)
app.conf.result_expires = 3600


@app.task
def noop():
    record()


connect, enqueue, enqueue_many = synchronous(noop.delay)
