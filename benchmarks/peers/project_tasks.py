"""tasks.py of a Paxx project: the code under test, and the rival's.

Put into the generated services/tasks.py, whose WorkerSettings stays as it is.
"""

from common import in_hundreds, latency, noop, sized, sleep  # noqa: F401


async def connect():
    from services.arq import get_pool

    return await get_pool()


async def enqueue(pool, name, *args):
    from services import arq

    await arq.enqueue(name, *args)


async def enqueue_many(pool, name, calls):
    from services import arq

    if hasattr(arq, "enqueue_many"):
        key = {"noop": "", "sleep": "seconds", "sized": "size"}[name]
        await arq.enqueue_many(name, [{key: call[0]} if key else {} for call in calls])
    else:
        await in_hundreds(lambda *args: arq.enqueue(name, *args), calls)
