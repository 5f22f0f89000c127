"""What the client promises, on a real server."""

import pytest
from support import Shop
from tasks import TASKS


@pytest.fixture(scope="module")
def shared_shop(
    shop_with_queue: Shop, tmp_path_factory: pytest.TempPathFactory
) -> Shop:
    """For tests that need no worker. Not to be changed."""
    shop = shop_with_queue.copy_to(tmp_path_factory.mktemp("client") / "shop")
    shop.write_tasks(TASKS)
    return shop


@pytest.fixture
def tasks_shop(own_shop_with_queue: Shop) -> Shop:
    own_shop_with_queue.write_tasks(TASKS)
    return own_shop_with_queue


# --- Pool ---------------------------------------------------------------------------


def test_pools_of_closed_loops_are_dropped(
    shop_with_queue: Shop, redis_url: str
) -> None:
    """Also where nobody closes them: a loop that ends closes its pool."""
    code = """
import asyncio, gc, os
from core import arq_pool
from core.arq import enqueue
from fastapi import FastAPI
from fastapi.testclient import TestClient
for _ in range(300):
    asyncio.run(enqueue("process_webhook", payload={}))
app = FastAPI()
@app.get("/")
async def route() -> str:
    return (await enqueue("process_webhook", payload={})).job_id
for _ in range(20):
    TestClient(app).get("/").raise_for_status()
loop = asyncio.new_event_loop()  # closed without a word
loop.run_until_complete(enqueue("process_webhook", payload={}))
loop.close()
asyncio.run(enqueue("process_webhook", payload={}))
gc.collect()
sockets = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
           if os.path.exists(f"/proc/self/fd/{n}")]
print(len(arq_pool._pools), sum(name.startswith("socket:") for name in sockets))
"""
    output = shop_with_queue.run(
        *("python", "-W", "ignore", "-c", code), env=shop_with_queue.settings(redis_url)
    )
    assert output == "1 0\n"


STRICT = """
import asyncio
import logging
from core.arq import enqueue
logging.getLogger("asyncio").setLevel("ERROR")  # it warns where a machine is slow
for _ in range(3):
    asyncio.run(enqueue("process_webhook", payload={}))
print("done")
"""


def test_no_warning_where_the_loop_is_ended_by_asyncio(
    shop_with_queue: Shop, redis_url: str
) -> None:
    strict = ("python", "-X", "dev", "-W", "error", "-c", STRICT)
    output = shop_with_queue.run(*strict, env=shop_with_queue.settings(redis_url))
    assert output == "done\n"


def test_a_pool_of_the_users_own(shop_with_queue: Shop, redis_url: str) -> None:
    code = """
        from arq import ArqRedis
        from core.arq import set_pool

        mine = ArqRedis.from_url("redis://localhost:1")
        await set_pool(mine)
        result = [await get_pool() is mine]
        await close_pool()
        result.append(await get_pool() is mine)
    """
    assert shop_with_queue.python(code, redis_url) == [True, False]


# --- Enqueue ------------------------------------------------------------------------


MISTAKES = {
    "add, object()": "TypeError: add: argument 'a': object is no type that can be stored",
    "'add', object()": "TypeError: add: argument 'a': object is no",
    "'ad', 1": "ValueError: no task 'ad' on queue 'arq:queue:shop'; it has add",
    "'add'": "TypeError: add: missing a required argument: 'a'",
    "add": "TypeError: add: missing a required argument: 'a'",
    "add, 1, 2, 3": "TypeError: add: too many positional arguments",
    "'add', a=1, c=2": "TypeError: add: got an unexpected keyword argument 'c'",
    "'add', 1, a=1": "TypeError: add: multiple values for argument 'a'",
    "'add', 1, _defer_by=1, _defer_until=1": "ValueError: use either",
    "'add', 1, _defer_by=-1": "ValueError: _defer_by is from 0",
    "'add', 1, _defer_by=float('nan')": "ValueError: _defer_by is from 0",
    "'add', 1, _defer_by='1'": "TypeError: _defer_by is a number",
    "'add', 1, _expires=0": "ValueError: it expires after 0 s, before it is due",
    "'add', 1, _expires=5, _defer_by=6": "ValueError: it expires after 5 s, before",
    "'add', 1, _expires=float('inf')": "ValueError: _expires is from 0",
    "'add', 1, _again=True": "ValueError: _again goes with a _job_id",
    "'add', 1, _job_id=7": "TypeError: _job_id is a text",
}


@pytest.mark.parametrize("call", MISTAKES)
def test_a_mistake_is_an_error_at_the_call(
    shared_shop: Shop, redis_url: str, call: str
) -> None:
    code = """
        from core.tasks import add

        try:
            await enqueue(CALL)
        except Exception as exc:
            result = f"{type(exc).__name__}: {exc}"
        assert await (await get_pool()).dbsize() == 0
    """.replace("CALL", call)
    assert MISTAKES[call] in shared_shop.python(code, redis_url)


def test_one_mistake_among_many_queues_nothing(
    shared_shop: Shop, redis_url: str
) -> None:
    code = """
        import core.tasks

        try:
            await enqueue_many("add", [{"a": 1}, {"b": 1}])
        except TypeError as exc:
            result = str(exc)
        assert await (await get_pool()).dbsize() == 0
    """
    result = shared_shop.python(code, redis_url)
    assert result == "add: missing a required argument: 'a'"


def test_a_task_is_known_by_its_own_name_whenever_it_was_registered(
    shared_shop: Shop, redis_url: str
) -> None:
    code = """
from functools import wraps
from arq import func
from core.tasks import WorkerSettings, add

async def late(ctx, x): ...
async def plain(ctx, x): ...

def passing_on(task):
    @wraps(task)
    async def wrapper(*args, **kwargs):
        return await task(*args, injected=1, **kwargs)
    return wrapper

@passing_on
async def wrapped(ctx, x, *, injected): ...

for task in (late, plain, wrapped):
    task.__qualname__ = task.__name__
WorkerSettings.functions = [*WorkerSettings.functions, func(late, name="later.on")]
names = [(await (await enqueue(late, 1)).info()).function]
WorkerSettings.functions.append(plain)
WorkerSettings.functions.append(wrapped)
names.append((await (await enqueue("plain", 1)).info()).function)
names.append((await (await enqueue(wrapped, 1)).info()).function)
errors = []
for name, kwargs in (("later.on", {}), ("plain", {"y": 1}), ("wrapped", {"y": 1})):
    try:
        await enqueue(name, **kwargs)
    except TypeError as exc:
        errors.append(str(exc))
result = [names, errors]
"""
    names, errors = shared_shop.python(code, redis_url)
    assert names == ["later.on", "plain", "wrapped"]
    assert errors == [
        "later.on: missing a required argument: 'x'",
        "plain: missing a required argument: 'x'",
        "wrapped: got an unexpected keyword argument 'y'",
    ]


def test_any_number_of_arguments(shared_shop: Shop, redis_url: str) -> None:
    code = """
    job = await enqueue("x", *range(200), _queue_name="unheard of")
    result = (await job.info()).args
    """
    assert shared_shop.python(code, redis_url) == list(range(200))


# --- Job ids --------------------------------------------------------------------------


def test_an_id_can_be_used_again_once_its_job_has_ended(
    tasks_shop: Shop, redis_url: str
) -> None:
    code = """
async def take(**options):
    return await enqueue("add", 1, _job_id="nightly", **options) is not None
async def ended():
    while (await get_job_status("nightly"))["status"] != "complete":
        await asyncio.sleep(0.02)
pool = await get_pool()
result = [await take(_again=True, _defer_by=1), await take(_again=True), await take()]
await ended()
await pool.hset("arq:failed:nightly", "error", "of last night")
await pool.zadd("arq:queue:shop:failed", {"nightly": 1})
result += [await take(), await take(_again=True), await pool.exists("arq:failed:nightly")]
result.append(await pool.zcard("arq:queue:shop:failed"))
await ended()
result += [await forget_job("nightly"), await forget_job("nightly"), await take()]
"""
    with tasks_shop.worker(redis_url):
        result = tasks_shop.python(code, redis_url)
    assert result == [True, False, False, False, True, 0, 0, True, False, True]


def test_an_id_is_never_aborted_for_an_earlier_job(
    tasks_shop: Shop, redis_url: str
) -> None:
    """Neither unknown nor ended jobs are marked; an old mark goes with a new job."""
    code = """
pool = await get_pool()
result = [await abort_job("unknown", timeout=0)]
await pool.zadd("arq:abort", {"mine": 1, "gone": 1})
result.append(await abort_job("gone", timeout=0))
job = await enqueue("add", 1, _job_id="mine")
result.append(await pool.zcard("arq:abort"))
result.append(await job.result(timeout=10, poll_delay=0.05))
result.append(await abort_job("mine", timeout=0))
result.append(await pool.zcard("arq:abort"))
"""
    with tasks_shop.worker(redis_url):
        assert tasks_shop.python(code, redis_url) == [False, False, 0, 1, False, 0]


def test_a_waiting_job_is_aborted_in_whatever_queue_without_a_worker(
    shared_shop: Shop, redis_url: str
) -> None:
    code = """
import core.tasks
pool = await get_pool()
await enqueue("add", 1, _job_id="here")
await enqueue("add", 1, _job_id="there", _queue_name="high")
await enqueue("x", _job_id="elsewhere", _queue_name="unheard of")
await enqueue("x", _job_id="elsewhere2", _queue_name="unheard of")
result = [await abort_job("here"), await abort_job("there")]
result.append(await abort_job("here"))  # as one whose answer was lost is sent again
result.append(await abort_job("elsewhere", _queue_name="unheard of"))
result.append(await abort_job("elsewhere2", timeout=0))  # left to its worker
result.append((await get_job_status("there"))["result"])
marks = await pool.zrange("arq:abort", 0, -1)
keys = sorted(key.decode() for key in await pool.keys())
result += [[mark.decode() for mark in marks], [k for k in keys if "sent" not in k]]
"""
    *outcomes, error, marks, keys = shared_shop.python(code, redis_url)
    assert outcomes == [True, True, True, True, False]
    assert error == "CancelledError: aborted before it began"
    assert marks == ["elsewhere2"]
    results = [f"arq:result:{name}" for name in ("elsewhere", "here", "there")]
    assert keys == ["arq:abort", "arq:job:elsewhere2", *results, "unheard of"]


def test_a_job_in_a_queue_unknown_here_is_aborted_by_its_worker(
    tasks_shop: Shop, redis_url: str
) -> None:
    tasks_shop.write(
        "core/others.py",
        """
        from core.arq_worker import BaseWorkerSettings


        async def leave_a_trace(ctx):
            await ctx["redis"].set("trace", 1)


        class OtherSettings(BaseWorkerSettings):
            functions = [leave_a_trace]
            queue_name = "others"
        """,
    )
    code = """
    for name in ("aborted", "runs"):
        await enqueue("leave_a_trace", _job_id=name, _queue_name="others")
    result = await abort_job("aborted", timeout=0)
    """
    assert tasks_shop.python(code, redis_url) is False
    env = tasks_shop.settings(redis_url)
    tasks_shop.run("arq", "core.others.OtherSettings", "--burst", env=env)
    code = """
    result = [(await get_job_status(name))["success"] for name in ("aborted", "runs")]
    result.append(await (await get_pool()).zcard("arq:abort"))
    result.append(await abort_job("aborted"))
    """
    assert tasks_shop.python(code, redis_url) == [False, True, 0, True]
