"""What the caller is about travels with the job."""

import json

import redis
from support import Shop

TASKS = """
    from core.arq_worker import BaseWorkerSettings
    from core.logging import get_logger

    logger = get_logger(__name__)


    async def speak(ctx):
        logger.info("spoken")


    async def chain(ctx):
        from core.arq import enqueue

        await enqueue(speak, _job_id="chained")
        await ctx["redis"].copy("arq:job:chained", "sent along")


    class WorkerSettings(BaseWorkerSettings):
        functions = [speak, chain]
"""
ENQUEUE = """
    import structlog
    from opentelemetry import trace

    import core.tasks

    span = trace.NonRecordingSpan(trace.SpanContext(
        trace_id=0xABC, span_id=0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1)
    ))
    with (
        trace.use_span(span),
        structlog.contextvars.bound_contextvars(request_id="r-1", tenant=7, weight=1.5),
    ):
        await enqueue("speak", _job_id="first")
        await enqueue("chain", _job_id="second")
    with structlog.contextvars.bound_contextvars(request_id="x" * 2000):
        await enqueue("speak", _job_id="big")
    await enqueue("speak", _job_id="bare")
    pool = await get_pool()
    result = [
        json.loads(await pool.get(f"arq:job:{name}")).get("c")
        for name in ("first", "big", "bare")
    ]
"""


def test_log_context_and_trace_travel_with_the_job(
    own_shop_with_queue: Shop, redis_url: str
) -> None:
    shop = own_shop_with_queue
    shop.write_tasks(TASKS)
    first, big, bare = shop.python(ENQUEUE, redis_url)
    assert first["log"] == {"request_id": "r-1", "tenant": 7, "weight": 1.5}
    traceparent = f"00-{0xABC:032x}-{0xDEF:016x}-01"
    assert first["trace"]["traceparent"] == traceparent
    assert big is None and bare is None
    with shop.worker(redis_url, LOG_FORMAT="json") as worker:
        worker.wait_for('"job_id": "chained"')
        worker.wait_for('"job_id": "bare"')
    spoken = {
        line["job_id"]: line
        for line in map(json.loads, worker.text.splitlines())
        if line["event"] == "spoken"
    }
    assert spoken["first"]["request_id"] == spoken["chained"]["request_id"] == "r-1"
    assert spoken["first"]["tenant"] == 7
    assert "request_id" not in spoken["big"] and "request_id" not in spoken["bare"]
    assert spoken["chained"]["job_try"] == 1
    with redis.Redis.from_url(redis_url) as client:
        travelled = json.loads(client.get("sent along") or "")["c"]
    # not the job_id and job_try of the job that enqueued it
    assert travelled["log"] == {"request_id": "r-1", "tenant": 7, "weight": 1.5}


def test_what_travels_cannot_harm_the_job(
    shop_with_queue: Shop, redis_url: str
) -> None:
    """It comes from Redis, where anyone may have written it."""
    code = """
    from core.arq_context import current_context, job_context
    import structlog

    class Broken:
        def __str__(self):
            raise ValueError

    result = 0
    for data in (None, [], "x", {"log": 1, "trace": 2}, {"log": {"event": "e", "a": {}}},
                 {"trace": {"traceparent": "?"}}, {"log": {"job_id": "other"}}):
        with job_context(data, job_id="j", job_try=1):
            result += structlog.contextvars.get_contextvars()["job_id"] == "j"
    with structlog.contextvars.bound_contextvars(a=Broken(), b=float("nan"), c=b"x"):
        result = [result, current_context()["log"]["a"]]
        assert await enqueue("process_webhook", payload={})
    assert structlog.contextvars.get_contextvars() == {}
    """
    assert shop_with_queue.python(code, redis_url) == [7, "Broken"]
