"""How values are stored in Redis: as JSON, which cannot run code.

What JSON lacks is tagged, and comes back as the type it had: see _TYPES. Exceptions
come back as TaskError. A pydantic model or dataclass is stored as a dict, and comes
back as one, unless the task says in its annotation what to make of it.
"""

import asyncio
import base64
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, to_jsonable_python


class TaskError(Exception):
    """How a failed task's exception comes back from Redis: its type and message."""


def error_text(exc: BaseException) -> str:
    """An exception in one line, as in `ValueError: no such user`. Never raises."""
    try:
        message = str(exc)
    except Exception as broken:
        message = f"(its text cannot be had: {type(broken).__name__})"
    return message if isinstance(exc, TaskError) else f"{type(exc).__name__}: {message}"


# --- Values ---------------------------------------------------------------------------

TAG = "__arq__"
_MAX_DEPTH = 100
_MAX_INT = 10**4300  # longer ones Python does not read


def _pack_time(value: Any) -> Any:
    """ISO 8601; a time zone by its name, since its offset is not the same all year."""
    if isinstance(value.tzinfo, ZoneInfo) and value.tzinfo.key:
        naive = value.replace(tzinfo=None).isoformat()
        return [naive, value.fold, value.tzinfo.key]
    return [value.isoformat(), value.fold] if value.fold else value.isoformat()


def _time_of(cls: Any) -> Callable[[Any], Any]:
    def read(data: Any) -> Any:
        if isinstance(data, str):
            return cls.fromisoformat(data)
        text, fold, *zone = data
        value = cls.fromisoformat(text).replace(fold=fold)
        return value.replace(tzinfo=ZoneInfo(*zone)) if zone else value

    return read


# How each type is written, and read again. A subclass comes first.
_TYPES: dict[type, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    datetime: (_pack_time, _time_of(datetime)),
    date: (date.isoformat, date.fromisoformat),
    time: (_pack_time, _time_of(time)),
    timedelta: (
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda data: timedelta(*data),
    ),
    Decimal: (str, Decimal),
    UUID: (str, UUID),
    bytes: (lambda data: base64.b64encode(data).decode(), base64.b64decode),
    asyncio.CancelledError: (str, asyncio.CancelledError),
    BaseException: (error_text, TaskError),
}
_ERRORS = (asyncio.CancelledError, BaseException)
_CONTAINERS: tuple[type, ...] = (tuple, set, frozenset)
_READERS: dict[str, Callable[[Any], Any]] = {
    **{cls.__name__: read for cls, (_, read) in _TYPES.items()},
    **{cls.__name__: cls for cls in (*_CONTAINERS, dict)},
}


def pack(
    value: Any, *, loose: bool = False, in_set: bool = False, depth: int = 0
) -> Any:
    """Make of a value what JSON has, with tags for what it lacks.

    Args:
        value: Argument or result.
        loose: Whether an enum may come back as its value, an exception as TaskError,
            and a URL, path or the like as text: in results and in models.
        in_set: Whether it has to be hashable when it comes back.
        depth: How deep it lies in another value.

    Raises:
        TypeError: It could not come back equal and of the same type; says why.
    """
    cls = type(value)
    if cls is str or cls is bool or value is None:
        return value
    if cls is int:
        if -_MAX_INT < value < _MAX_INT:
            return value
        raise TypeError("it is an integer of more than 4,300 digits")
    if cls is float:
        if math.isfinite(value):
            return value
        raise TypeError(f"JSON has no {value}")
    if depth > _MAX_DEPTH:
        raise TypeError(f"it is nested more than {_MAX_DEPTH} levels deep")
    depth += 1
    if cls is list:
        return [pack(item, loose=loose, depth=depth) for item in value]
    if cls is dict:
        return _pack_dict(value, loose, depth)
    if cls in _CONTAINERS:
        inner = in_set or cls is not tuple
        items = [pack(item, loose=loose, in_set=inner, depth=depth) for item in value]
        return {TAG: cls.__name__, "value": items}
    if isinstance(value, Enum):
        if loose:
            return pack(value.value, in_set=in_set, depth=depth)
        raise TypeError(f"{value!r} would come back as its value: pass that")
    if isinstance(value, BaseModel) and not in_set:
        return pack(value.model_dump(round_trip=True), loose=True, depth=depth)
    if is_dataclass(value) and not isinstance(value, type) and not in_set:
        data = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        return _pack_dict(data, True, depth)
    for known, (write, read) in _TYPES.items():
        if isinstance(value, known) and (loose or known not in _ERRORS):
            data = write(value)
            # A driver's UUID or a test's datetime will do, if nothing is lost.
            exact = cls is known and not _has_own_zone(value)
            if exact or known in _ERRORS or read(data) == value:
                return {TAG: known.__name__, "value": data}
    if loose and not isinstance(value, SecretStr | SecretBytes):
        with suppress(PydanticSerializationError):
            return pack(to_jsonable_python(value), depth=depth)
    raise TypeError(f"{cls.__name__} is no type that can be stored: {value!r:.100}")


def _has_own_zone(value: Any) -> bool:
    """Has it a time zone that is neither the standard library's nor a fixed offset?"""
    zone = getattr(value, "tzinfo", None)
    return zone is not None and type(zone).__module__ not in ("datetime", "zoneinfo")


def _pack_dict(value: dict[Any, Any], loose: bool, depth: int) -> Any:
    for key in value:
        if type(key) is not str:
            raise TypeError(f"JSON has strings as keys, not {key!r:.100}")
    return untagged(
        {key: pack(item, loose=loose, depth=depth) for key, item in value.items()}
    )


def untagged(packed: dict[str, Any]) -> Any:
    """A dict as it is, or in another way if it would be taken for a tag."""
    return {TAG: "dict", "value": [*packed.items()]} if TAG in packed else packed


def unpack(value: dict[str, Any]) -> Any:
    """What pack has made a tag of; the object_hook of json.loads."""
    if TAG in value and "value" in value:
        return _READERS[value[TAG]](value["value"])
    return value
