"""Each parameter's annotation is resolved by itself, whatever the others say."""

import re
from typing import Any, NamedTuple

import pytest
from kit import App
from pydantic import BaseModel
from unresolved_tasks import Order, send, ship, ship_all


class Parcel(BaseModel):
    size: int


class Receipt(NamedTuple):
    text: str


async def test_a_model_beside_what_cannot_be_resolved(app: App) -> None:
    """Neither ctx nor the return type is known at run time."""
    async with app.worker(ship, ship_all):
        order = Order(number=1)
        job = await app.enqueue(ship, order, gift=Order(number=2))
        assert await job.result(25) == "Order(number=1) Order(number=2)"
        job = await app.enqueue("ship", {"number": 3})
        assert await job.result(25) == "Order(number=3) None"
        job = await app.enqueue(ship_all, order, Order(number=4), more=[order])
        text = "(Order(number=1), Order(number=4)) {'more': [Order(number=1)]}"
        assert await job.result(25) == text


@pytest.mark.parametrize(
    ("task", "args", "kwargs", "error"),
    [
        (ship_all, ({"number": "x"},), {}, "orders.number: Input should be"),
        (ship_all, (), {"more": [{}]}, "others.0.number: Field required"),
        (send, (Parcel(size=1),), {}, "send: argument 'parcel' would arrive as a dict"),
        (send, (), {"parcel": Parcel(size=1)}, "annotation of 'parcel' is not known"),
        (send, ({"size": 1}, "x"), {}, "send: argument 'weight': must be int, not 'x'"),
    ],
)
async def test_what_could_not_arrive_is_refused_at_the_call(
    app: App, task: Any, args: Any, kwargs: Any, error: str
) -> None:
    app.settings(ship, ship_all, send)
    with pytest.raises(TypeError, match=re.escape(error)):
        await app.client.enqueue(task, *args, **kwargs)
    assert await app.queued() == 0


async def test_what_needs_no_annotation_arrives(app: App) -> None:
    async with app.worker(send):
        job = await app.enqueue(send, {"size": 1})
        assert await job.result(25) == "{'size': 1} 1"
