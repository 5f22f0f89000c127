"""Tasks of a project, for the tests of its client and of its worker."""

TASKS = """
    import asyncio
    import logging

    from arq import func

    from core.arq_worker import BaseWorkerSettings
    from core.logging import get_logger

    logger = get_logger(__name__)


    async def add(ctx, a, b=0):
        logger.info("adding", a=a)
        return a + b


    async def echo(ctx, value):
        return value


    async def names(ctx, function, queue):
        return [function, queue]


    async def types(ctx, value):
        return repr(value)


    async def slow(ctx, seconds=60):
        logger.info("slow begins")
        await asyncio.sleep(seconds)


    async def flaky(ctx, fail_times):
        if ctx["job_try"] <= fail_times:
            raise ValueError(f"no luck {ctx['job_try']}")
        return ctx["job_try"]


    async def once(ctx):
        raise ValueError("never again")


    async def chained(ctx, value):
        from core.arq import enqueue

        job = await enqueue(echo, value * 2)
        return job.job_id


    class WorkerSettings(BaseWorkerSettings):
        functions = [
            add, echo, names, types, slow, flaky, chained, func(once, max_tries=1)
        ]
        retry_delay = 0.1


    class HighPriorityWorkerSettings(WorkerSettings):
        queue_name = "high"
"""
