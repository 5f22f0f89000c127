"""What is enqueued arrives as it was sent, or is refused."""

import json
import re
from collections import OrderedDict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from arq_runtime.client.calls import prepare
from asyncpg.pgproto.pgproto import UUID as DriversUUID  # type: ignore[import-untyped]
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from kit import App
from pydantic import AnyUrl, BaseModel, Field

Ctx = dict[str, Any]

# --- Any value ------------------------------------------------------------------------

TAG = st.sampled_from(["__arq__", "value", "date", "tuple", "dict", "k"])
TEXT = st.text(st.characters()) | TAG
PLAIN: SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | TEXT
    | st.floats(allow_nan=False, allow_infinity=False)
)
ZONES = st.none() | st.timezones()
SCALARS: SearchStrategy[Any] = (
    PLAIN
    | st.binary()
    | st.dates()
    | st.timedeltas()
    | st.uuids()
    | st.datetimes(timezones=ZONES)
    | st.times(timezones=ZONES)
    | st.decimals(allow_nan=False)
)
HASHABLE: SearchStrategy[Any] = st.recursive(
    SCALARS, lambda x: st.tuples(x, x) | st.frozensets(x, max_size=3)
)
VALUES: SearchStrategy[Any] = st.recursive(
    SCALARS | st.sets(HASHABLE, max_size=3) | HASHABLE,
    lambda x: (
        st.lists(x, max_size=4)
        | st.tuples(x, x)
        | st.dictionaries(TEXT, x, max_size=4)
        | st.fixed_dictionaries({"__arq__": TEXT | st.just("date"), "value": x})
    ),
    max_leaves=12,
)
JSON: SearchStrategy[Any] = st.recursive(
    PLAIN,
    lambda x: (
        st.lists(x, max_size=4)
        | st.dictionaries(TEXT, x, max_size=4)
        | st.fixed_dictionaries({"__arq__": TAG, "value": x})
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Are they equal, and of the same types?"""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return [*a] == [*b] and all(same(a[key], b[key]) for key in a)
    if isinstance(a, datetime | time):
        shown = [(repr(x.replace(tzinfo=None)), str(x.tzinfo)) for x in (a, b)]
        return shown[0] == shown[1] and bool(a == b)
    return bool(a == b) and (isinstance(a, set | frozenset) or repr(a) == repr(b))


APP = App("redis://localhost")  # nothing is sent there


def sent(*args: Any, **kwargs: Any) -> bytes:
    """The bytes of a job of a task of which nothing is known."""
    return prepare(APP.queues.target("f", None), None, *args, **kwargs).content


checks = settings(
    max_examples=300,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@checks
@given(VALUES, VALUES, st.dictionaries(TEXT, VALUES, max_size=2))
@example(
    {"__arq__": "date", "value": "?"},
    {"__arq__": "date", "value": "2026-01-01"},
    {"__arq__": "dict", "value": []},
)
def test_whatever_is_accepted_arrives_as_it_was(
    position: Any, name: Any, extra: Any
) -> None:
    job = APP.serializer.deserialize(sent(position, name=name, more=extra))
    assert same(job["a"], (position,))
    assert same(job["k"], {"name": name, "more": extra})
    data = {"t": 1, "f": "f", "a": (), "k": {}, "et": 1, "s": True, "r": position}
    back = APP.serializer.deserialize(APP.serializer.serialize(data))
    assert same(back["r"], position)


@pytest.mark.slow
@checks
@given(JSON, st.dictionaries(TEXT, JSON, max_size=3))
def test_what_an_outsider_has_sent_is_taken_as_it_is(value: Any, named: Any) -> None:
    data = {"t": 1, "f": "f", "a": [value], "k": named, "et": 1, "r": value}
    job = APP.serializer.deserialize(json.dumps(data).encode())
    assert same(job["a"], (value,))
    assert same(job["k"], named)
    assert same(job["r"], value)


# --- Refused --------------------------------------------------------------------------


class User(BaseModel, frozen=True):
    id: int


@dataclass(frozen=True)
class Spot:
    x: int


class Color(Enum):
    RED = "red"


class Name(str): ...


def nested(n: int) -> list[Any]:
    return [nested(n - 1)] if n else []


endless: list[Any] = []
endless.append(endless)

REFUSED = [
    ({1: "a"}, "JSON has strings as keys, not 1"),
    ([{None: 1}], "JSON has strings as keys, not None"),
    (bytearray(b"x"), "bytearray is no type that can be stored: bytearray(b'x')"),
    (float("nan"), "JSON has no nan"),
    ([float("inf")], "JSON has no inf"),
    ({User(id=1)}, "User is no type that can be stored"),
    ({(1, Spot(1))}, "Spot is no type that can be stored"),
    (object, "type is no type that can be stored: <class 'object'>"),
    (Color.RED, "<Color.RED: 'red'> would come back as its value: pass that"),
    (Name("x"), "Name is no type that can be stored: 'x'"),
    (OrderedDict(a=1), "OrderedDict is no type that can be stored"),
    (ValueError("x"), "ValueError is no type that can be stored"),
    (1j, "complex is no type that can be stored: 1j"),
    (range(3), "range is no type that can be stored"),
    (nested(101), "it is nested more than 100 levels deep"),
    (endless, "it is nested more than 100 levels deep"),
    ([10**4300], "it is an integer of more than 4,300 digits"),
]


@pytest.mark.parametrize(("value", "reason"), REFUSED, ids=[*range(len(REFUSED))])
def test_what_could_not_come_back_is_an_error_at_the_call(
    value: Any, reason: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(f"f: argument 'payload': {reason}")):
        sent(1, payload=value)


class Frozen(datetime): ...


class Finer(datetime):
    """It may have lost something, since it does not come back equal."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


class Odd(tzinfo):
    """A time zone that nobody else has."""

    dst = tzname = lambda self, when: None

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=1)


def test_a_tests_or_drivers_own_type_will_do_if_nothing_is_lost() -> None:
    """As asyncpg's UUID, and freezegun's datetime."""
    uuid = "12345678-1234-5678-1234-567812345678"
    values = [DriversUUID(uuid), Frozen(2026, 1, 2), datetime(2026, 1, 2, tzinfo=Odd())]
    job = APP.serializer.deserialize(sent(*values))
    assert job["a"] == (UUID(uuid), datetime(2026, 1, 2), values[2])
    assert [type(value) for value in job["a"]] == [UUID, datetime, datetime]
    with pytest.raises(TypeError, match="argument '1': Finer is no type that can be"):
        sent(Finer(2026, 1, 2))


# --- Models ---------------------------------------------------------------------------


class Item(BaseModel):
    sku: str
    colors: list[Color] = []


class Order(BaseModel):
    number: int = Field(alias="orderNumber")
    due: date
    items: tuple[Item, ...]
    site: AnyUrl = AnyUrl("http://example.com/")


class Special(Order):
    discount: int


@dataclass
class Point:
    x: int
    path: Path = Path("/")


async def show(
    ctx: Ctx,
    order: Order,
    point: Point | None = None,
    *,
    colors: list[Color] = [],  # noqa: B006
    plain: Any = None,
) -> str:
    return repr((order, point, colors, plain))


DUE = date(2026, 1, 2)


async def test_a_task_receives_the_models_it_is_annotated_with(app: App) -> None:
    items = (Item(sku="a", colors=[Color.RED]),)
    order = Order(orderNumber=7, due=DUE, items=items)
    point = Point(1, Path("/x"))
    data = {"orderNumber": 7, "due": "2026-01-02", "items": []}
    async with app.worker(show):
        job = await app.enqueue(show, order, point, colors=[Color.RED], plain=Point(2))
        assert await job.result(25) == repr(
            (order, point, [Color.RED], {"x": 2, "path": "/"})
        )
        job = await app.enqueue("show", order=data)
        bare = Order(orderNumber=7, due=DUE, items=())
        assert await job.result(25) == repr((bare, None, [], None))


async def test_data_that_does_not_fit_the_model_is_an_error_with_the_field_named(
    app: App,
) -> None:
    """At the call; and for jobs of others, in the job, which fails at once."""
    app.settings(show)
    wrong = {"orderNumber": "x", "due": "2026-01-02", "items": []}
    with pytest.raises(
        TypeError, match=r"^order\.orderNumber: Input should be a valid"
    ):
        await app.enqueue(show, wrong)
    special = Special(orderNumber=7, due=DUE, items=(), discount=5)
    lost = r"^show: argument 'order' would arrive as Order\(number=7"
    with pytest.raises(TypeError, match=lost):
        await app.enqueue(show, special)
    async with app.worker(show) as worker:
        theirs = {"orderNumber": 1, "due": "2026-01-02", "items": [{}]}
        job = await worker.pool.enqueue_job("show", theirs)
        assert job is not None
        await app.wake()
        with pytest.raises(
            Exception, match=r"ArgumentError: order\.items\.0\.sku: Fie"
        ):
            await job.result(25, poll_delay=0.02)
    assert (await app.failed(job.job_id))["tries"] == "1"


# --- Annotations ----------------------------------------------------------------------


async def annotated(
    ctx: Ctx, n: int, x: float | None = None, *texts: str, at: int = 0, **others: str
) -> list[Any]:
    return [n, x, texts, at, others]


class Count(int): ...


@pytest.mark.parametrize(
    ("args", "kwargs", "error"),
    [
        (("7",), {}, "'n': must be int, not '7'"),
        ((True,), {}, "'n': must be int, not True"),
        ((1.0,), {}, "'n': must be int, not 1.0"),
        ((1, "1"), {}, "'x': must be float or int or NoneType, not '1'"),
        ((1, 1, "a", 2), {}, "'4': must be str, not 2"),
        ((1,), {"at": "1"}, "'at': must be int, not '1'"),
        ((1,), {"other": 1}, "'other': must be str, not 1"),
    ],
)
async def test_what_an_annotation_excludes_is_an_error_at_the_call(
    app: App, args: Any, kwargs: Any, error: str
) -> None:
    app.settings(annotated)
    with pytest.raises(TypeError, match=re.escape(f"annotated: argument {error}")):
        await app.client.enqueue("annotated", *args, **kwargs)
    assert await app.queued() == 0


async def test_what_annotations_allow_arrives(app: App) -> None:
    async with app.worker(annotated):
        job = await app.enqueue(annotated, 1, 2, "a", "b", at=3, other="c")
        assert await job.result(25) == [1, 2, ("a", "b"), 3, {"other": "c"}]
        job = await app.enqueue(annotated, 1, None, n2="x")
        assert await job.result(25) == [1, None, (), 0, {"n2": "x"}]
