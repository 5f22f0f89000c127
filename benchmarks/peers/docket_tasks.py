"""docket (pydocket): its own worker and add_many; cloudpickle is all it has.

How a job ended is kept, as are results; for the no-op there is none.
"""

import asyncio
from datetime import timedelta

from common import URL, record
from docket import Docket


async def noop() -> None:
    record()


async def latency(sent: float) -> None:
    record(sent)


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)
    record()


tasks = [noop, latency, sleep]
TASKS = {task.__name__: task for task in tasks}


async def connect():
    docket = Docket(name="docket", url=URL, execution_ttl=timedelta(hours=1))
    await docket.__aenter__()
    for task in tasks:
        docket.register(task)
    return docket


async def enqueue(docket, name, *args):
    await docket.add(TASKS[name])(*args)


async def enqueue_many(docket, name, calls):
    await docket.add_many([docket.call(TASKS[name])(*args) for args in calls])
