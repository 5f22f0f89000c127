"""Tasks with annotations that cannot all be resolved when they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from arq_runtime.worker.job import Context
    from test_unresolved import Parcel, Receipt


class Order(BaseModel):
    number: int


async def ship(ctx: Context, order: Order, *, gift: Order | None = None) -> Receipt:
    return f"{order!r} {gift!r}"  # type: ignore[return-value]


async def ship_all(ctx: Context, *orders: Order, **others: list[Order]) -> str:
    return f"{orders!r} {others!r}"


async def send(ctx: Context, parcel: Parcel, weight: int = 1) -> str:
    return f"{parcel!r} {weight}"
