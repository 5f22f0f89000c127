"""What is enqueued arrives as it was sent."""

import json

import pytest
from support import Shop

# --- Any value ------------------------------------------------------------------------

ANY_VALUE = """
import json
from datetime import date, datetime, time
from hypothesis import HealthCheck, example, given, settings, strategies as st
from core.arq_calls import prepare
from core.arq_serializer import deserialize, serialize

TAG = st.sampled_from(["__arq__", "value", "date", "tuple", "dict", "k"])
TEXT = st.text(st.characters()) | TAG
PLAIN = (
    st.none() | st.booleans() | st.integers() | st.integers(-(10**40), 10**40) | TEXT
    | st.floats(allow_nan=False, allow_infinity=False)
)
SCALARS = (
    PLAIN | st.binary() | st.dates() | st.timedeltas() | st.uuids()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.times(timezones=st.none() | st.timezones()) | st.decimals(allow_nan=False)
)
HASHABLE = st.recursive(SCALARS, lambda x: st.tuples(x, x) | st.frozensets(x, max_size=3))
VALUES = st.recursive(
    SCALARS | st.sets(HASHABLE, max_size=3) | HASHABLE,
    lambda x: st.lists(x, max_size=4) | st.tuples(x, x)
    | st.dictionaries(TEXT, x, max_size=4)
    | st.fixed_dictionaries({"__arq__": TEXT | st.just("date"), "value": x}),
    max_leaves=12,
)
JSON = st.recursive(
    PLAIN, lambda x: st.lists(x, max_size=4) | st.dictionaries(TEXT, x, max_size=4)
    | st.fixed_dictionaries({"__arq__": TAG, "value": x}), max_leaves=12,
)

def same(a, b):
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return [*a] == [*b] and all(same(a[key], b[key]) for key in a)
    if isinstance(a, datetime | time):
        return (repr(a.replace(tzinfo=None)), str(a.tzinfo)) == (
            repr(b.replace(tzinfo=None)), str(b.tzinfo)) and a == b
    return a == b and (isinstance(a, set | frozenset) or repr(a) == repr(b))

checks = settings(
    max_examples=600, deadline=None, database=None, print_blob=False,
    suppress_health_check=list(HealthCheck),
)

@checks
@given(VALUES, VALUES, st.dictionaries(TEXT, VALUES, max_size=2))
@example({"__arq__": "date", "value": "?"}, {"__arq__": "date", "value": "2026-01-01"},
         {"__arq__": "dict", "value": []})
def arrives(position, name, extra):
    job = deserialize(prepare("q", "f", position, name=name, more=extra).content)
    assert same(job["a"], (position,))
    assert same(job["k"], {"name": name, "more": extra})
    data = {"t": 1, "f": "f", "a": (), "k": {}, "et": 1, "s": True, "r": position}
    assert same(deserialize(serialize(data))["r"], position)

@checks
@given(JSON, st.dictionaries(TEXT, JSON, max_size=3))
def an_outsiders_is_taken_as_it_is(value, named):
    data = {"t": 1, "f": "f", "a": [value], "k": named, "et": 1, "r": value}
    job = deserialize(json.dumps(data).encode())
    assert same(job["a"], (value,)) and same(job["k"], named) and same(job["r"], value)

arrives()
an_outsiders_is_taken_as_it_is()
print("held")
"""


@pytest.mark.slow
def test_whatever_is_accepted_arrives_as_it_was(shop_with_queue: Shop) -> None:
    env = shop_with_queue.settings("")
    output = shop_with_queue.run("python", "-W", "ignore", "-c", ANY_VALUE, env=env)
    assert output == "held\n"


REFUSED = {
    "{1: 'a'}": "JSON has strings as keys, not 1",
    "[{None: 1}]": "JSON has strings as keys, not None",
    "bytearray(b'x')": "bytearray is no type that can be stored: bytearray(b'x')",
    "float('nan')": "JSON has no nan",
    "[float('inf')]": "JSON has no inf",
    "{User(id=1)}": "User is no type that can be stored",
    "{(1, Point(1))}": "Point is no type that can be stored",
    "object": "type is no type that can be stored: <class 'object'>",
    "Color.RED": "<Color.RED: 'red'> would come back as its value: pass that",
    "Name('x')": "Name is no type that can be stored: 'x'",
    "OrderedDict(a=1)": "OrderedDict is no type that can be stored",
    "ValueError('x')": "ValueError is no type that can be stored",
    "1j": "complex is no type that can be stored: 1j",
    "range(3)": "range is no type that can be stored",
    "nested(101)": "it is nested more than 100 levels deep",
    "endless": "it is nested more than 100 levels deep",
    "[10 ** 4300]": "it is an integer of more than 4,300 digits",
}
TYPES = """
import json
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from pydantic import BaseModel
from core.arq_calls import prepare

class User(BaseModel, frozen=True):
    id: int

@dataclass(frozen=True)
class Point:
    x: int

class Color(Enum):
    RED = "red"

class Name(str): ...

def nested(n):
    return [nested(n - 1)] if n else []

endless = []
endless.append(endless)
"""


def test_what_could_not_come_back_is_an_error_at_the_call(
    shop_with_queue: Shop,
) -> None:
    code = (
        TYPES
        + f"""
errors = []
for value in {list(REFUSED)}:
    try:
        prepare("q", "f", 1, payload=eval(value))
        errors.append("accepted")
    except TypeError as exc:
        errors.append(str(exc))
print(json.dumps(errors))
"""
    )
    output = shop_with_queue.run("python", "-c", code, env=shop_with_queue.settings(""))
    for error, (value, reason) in zip(json.loads(output), REFUSED.items(), strict=True):
        assert error.startswith(f"f: argument 'payload': {reason}"), value


def test_a_tests_or_drivers_own_type_will_do_if_nothing_is_lost(
    shop_with_queue: Shop,
) -> None:
    """As asyncpg's UUID, and freezegun's datetime."""
    code = """
from datetime import datetime, timedelta, timezone, tzinfo
from uuid import UUID
from asyncpg.pgproto.pgproto import UUID as Drivers
from core.arq_calls import prepare
from core.arq_serializer import deserialize

class Frozen(datetime): ...

class Finer(datetime):
    def __eq__(self, other): return False
    __hash__ = None

class Odd(tzinfo):
    def utcoffset(self, when): return timedelta(hours=1)

uuid = "12345678-1234-5678-1234-567812345678"
values = [Drivers(uuid), Frozen(2026, 1, 2), datetime(2026, 1, 2, tzinfo=Odd())]
job = deserialize(prepare("q", "f", *values).content)
assert job["a"] == (UUID(uuid), datetime(2026, 1, 2), values[2])
assert [type(value) for value in job["a"]] == [UUID, datetime, datetime]
try:
    prepare("q", "f", Finer(2026, 1, 2))
except TypeError as exc:
    print(exc)
"""
    output = shop_with_queue.run("python", "-c", code, env=shop_with_queue.settings(""))
    assert output.startswith("f: argument '1': Finer is no type that can be stored")


# --- Models ---------------------------------------------------------------------------

MODELS = """
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path

from pydantic import AnyUrl, BaseModel, Field

from core.arq_worker import BaseWorkerSettings


class Color(Enum):
    RED = "red"


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


async def show(ctx, order: Order, point: Point | None = None, *,
               colors: list[Color] = [], plain=None):
    return repr((order, point, colors, plain))


class WorkerSettings(BaseWorkerSettings):
    functions = [show]
    max_tries = 1
"""


def test_a_task_receives_the_models_it_is_annotated_with(
    own_shop_with_queue: Shop, redis_url: str
) -> None:
    own_shop_with_queue.write_tasks(MODELS)
    code = """
from core.tasks import Color, Item, Order, Path, Point, date, show
order = Order(orderNumber=7, due=date(2026, 1, 2), items=(Item(sku="a", colors=["red"]),))
jobs = [
    await enqueue(show, order, Point(1, Path("/x")), colors=[Color.RED], plain=Point(2)),
    await enqueue("show", order={"orderNumber": 7, "due": "2026-01-02", "items": []}),
]
result = [await job.result(timeout=20, poll_delay=0.05) for job in jobs]
result.append(repr((order, Point(1, Path("/x")), [Color.RED], {"x": 2, "path": "/"})))
result.append(repr((Order(orderNumber=7, due=date(2026, 1, 2), items=()), None, [], None)))
"""
    with own_shop_with_queue.worker(redis_url):
        first, second, *expected = own_shop_with_queue.python(code, redis_url)
    assert [first, second] == expected


def test_data_that_does_not_fit_the_model_is_an_error_with_the_field_named(
    own_shop_with_queue: Shop, redis_url: str
) -> None:
    """At the call; and for jobs of others, in the job, which fails at once."""
    own_shop_with_queue.write_tasks(MODELS)
    code = """
from core.tasks import Special, date, show
result = []
special = Special(orderNumber=7, due=date(2026, 1, 2), items=(), discount=5)
for order in ({"orderNumber": "x", "due": "2026-01-02", "items": []}, special):
    try:
        await enqueue(show, order)
    except TypeError as exc:
        result.append(str(exc))
from arq import ArqRedis
pool = await get_pool()
job = await pool.enqueue_job("show", {"orderNumber": 1, "due": "2026-01-02", "items": [{}]})
try:
    await job.result(timeout=20, poll_delay=0.05)
except Exception as exc:
    result.append(str(exc))
"""
    with own_shop_with_queue.worker(redis_url):
        at_call, lost, in_job = own_shop_with_queue.python(code, redis_url)
    assert at_call.startswith("order.orderNumber: Input should be a valid integer")
    assert lost.startswith("show: argument 'order' would arrive as Order(number=7")
    assert in_job.startswith("ArgumentError: order.items.0.sku: Field required")
