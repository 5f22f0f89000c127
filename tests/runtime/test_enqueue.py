"""What enqueue takes, and what it refuses."""

from collections.abc import Awaitable, Callable
from functools import partial, wraps
from typing import Any

import pytest
from arq import func
from kit import QUEUE, App

Ctx = dict[str, Any]


async def add(ctx: Ctx, a: int, b: int = 0) -> int:
    return a + b


async def show(ctx: Ctx, x: Any) -> str:
    return repr(x)


async def late(ctx: Ctx, x: int) -> None: ...


async def plain(ctx: Ctx, x: int) -> None: ...


def passing_on(task: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @wraps(task)
    async def wrapper(*args: Any, **kwargs: Any) -> None:
        await task(*args, injected=1, **kwargs)

    return wrapper


@passing_on
async def wrapped(ctx: Ctx, x: int, *, injected: int) -> None: ...


# --- Mistakes -------------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")
MISTAKES: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
    ((show, object()), {}, "TypeError: show: argument 'x': object is no type that can"),
    (("show", object()), {}, "TypeError: show: argument 'x': object is no"),
    (("add", "1"), {}, "TypeError: add: argument 'a': must be int, not '1'"),
    (("add", 1), {"b": True}, "TypeError: add: argument 'b': must be int, not True"),
    (("ad", 1), {}, "ValueError: no task 'ad'; did you mean 'add'?"),
    (("x", 1), {}, "ValueError: no task 'x'; there is add, show"),
    ((late, 1), {}, "ValueError: no task 'late'; there is add, show"),
    ((None, 1), {}, "TypeError: a task, or its name, is what to enqueue, not None"),
    ((partial(add, a=1),), {}, "ValueError: no task 'functools.partial(<function add"),
    (("add",), {}, "TypeError: add: missing a required argument: 'a'"),
    ((add,), {}, "TypeError: add: missing a required argument: 'a'"),
    ((add, 1, 2, 3), {}, "TypeError: add: too many positional arguments"),
    (
        ("add",),
        {"a": 1, "c": 2},
        "TypeError: add: unexpected argument 'c'; there is a, b",
    ),
    (("add", 1), {"a": 1}, "TypeError: add: multiple values for argument 'a'"),
    (("add", 1), {"_defer_by": 1, "_defer_until": 1}, "ValueError: use either"),
    (("add", 1), {"_defer_by": -1}, "ValueError: _defer_by is from 0"),
    (("add", 1), {"_defer_by": NAN}, "ValueError: _defer_by is from 0"),
    (("add", 1), {"_defer_by": "1"}, "TypeError: _defer_by is a number"),
    (("add", 1), {"_expires": 0}, "ValueError: it expires after 0 s, before it is due"),
    (
        ("add", 1),
        {"_expires": 5, "_defer_by": 6},
        "ValueError: it expires after 5 s, before",
    ),
    (("add", 1), {"_expires": INF}, "ValueError: _expires is from 0"),
    (("add", 1), {"_replace": True}, "ValueError: _replace goes with a _job_id"),
    (("add", 1), {"_job_id": 7}, "TypeError: _job_id must be a non-empty string"),
    (("add", 1), {"_job_id": ""}, "TypeError: _job_id must be a non-empty string"),
    (
        ("add", 1),
        {"_queue_name": "hihg"},
        "ValueError: no queue 'hihg': no worker settings have it, and it is not "
        "external; did you mean 'high'?",
    ),
    (
        ("add", 1),
        {"_queue_name": "high"},
        "ValueError: no task 'add' on queue 'high'; there is late",
    ),
]


@pytest.mark.parametrize(("args", "kwargs", "error"), MISTAKES)
async def test_a_mistake_is_an_error_at_the_call(
    app: App, args: Any, kwargs: Any, error: str
) -> None:
    app.settings(add, show)
    if "_queue_name" in kwargs:
        app.settings(late, queue_name="high")
    with pytest.raises((TypeError, ValueError)) as caught:
        await app.client.enqueue(*args, **kwargs)
    assert f"{caught.type.__name__}: {caught.value}".startswith(error)
    assert await app.redis.dbsize() == 0


async def test_one_mistake_among_many_queues_nothing(app: App) -> None:
    app.settings(add)
    with pytest.raises(TypeError, match="add: missing a required argument"):
        await app.client.enqueue_many("add", [{"a": 1}, {"b": 1}])
    assert await app.redis.dbsize() == 0


# --- Tasks and queues -----------------------------------------------------------------


async def test_a_task_is_known_by_its_own_name_whenever_it_was_registered(
    app: App,
) -> None:
    functions: list[Any] = [add, func(late, name="later.on")]
    settings = app.settings(*functions)
    settings.functions = functions

    async def name_of(task: Any) -> str:
        info = await (await app.enqueue(task, 1)).info()
        assert info is not None
        return info.function

    assert await name_of(late) == "later.on"
    functions += [plain, wrapped]
    assert await name_of("plain") == "plain"
    assert await name_of(wrapped) == "wrapped"
    calls: list[tuple[str, dict[str, Any], str]] = [
        ("later.on", {}, "later.on: missing a required argument: 'x'"),
        ("plain", {"y": 1}, "plain: unexpected argument 'y'; there is x"),
        ("wrapped", {"y": 1}, "wrapped: unexpected argument 'y'; there is injected, x"),
    ]
    for name, arguments, error in calls:
        with pytest.raises(TypeError, match=f"^{error}$"):
            await app.client.enqueue(name, **arguments)


async def test_a_task_goes_to_the_queue_of_the_class_that_has_it(app: App) -> None:
    app.settings(add, late)
    app.settings(plain, late, queue_name="high")
    for task, queue in ((plain, "high"), ("plain", "high"), (late, QUEUE)):
        job = await app.enqueue(task, 1)
        assert await app.redis.zscore(queue, job.job_id)
    job = await app.enqueue(late, 1, _queue_name="high")
    assert await app.redis.zscore("high", job.job_id)


async def test_a_task_of_several_queues_is_to_say_which(app: App) -> None:
    app.settings(add)
    app.settings(plain, queue_name="high")
    app.settings(plain, queue_name="low")
    with pytest.raises(ValueError, match="_queue_name='high', 'low'"):
        await app.client.enqueue("plain", 1)


async def test_any_number_of_arguments(app: App) -> None:
    """Also for a queue of which nothing is known here, as where there are no tasks."""
    job = await app.enqueue("x", *range(200), _queue_name="unheard of")
    info = await job.info()
    assert info is not None
    assert info.args == tuple(range(200))


async def test_many_more_than_fit_into_a_round_trip(app: App) -> None:
    jobs = await app.client.enqueue_many("add", ({"a": n} for n in range(2500)))
    assert len({job.job_id for job in jobs if job}) == 2500
    assert await app.queued() == 2500
