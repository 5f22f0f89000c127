"""What enqueue checks and writes down, before anything is sent."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import lru_cache
from secrets import token_hex
from typing import Any, NamedTuple

from arq.utils import timestamp_ms, to_unix_ms
from pydantic import BaseModel

from ..keys import EXPIRES_MS, with_tag_of
from ..limits import check_priority, counted, with_control
from ..models import Parameters
from ..queue import Target, Task
from ..serializer import Serializer
from ..values import pack, untagged

_MAX_MS = 100 * 365 * 24 * 60 * 60 * 1000


class Call(NamedTuple):
    """A job as lua/enqueue.lua takes it."""

    job_id: bytes
    own_id: str
    """"" for a new id, "own" for one of the caller's, "replace" to replace a job;
    "gathered" for one of the batch that the last call before waits for."""
    delay: int
    """Milliseconds from now, unless there is a time."""
    due: int
    """Milliseconds since 1970, or 0."""
    expires: int
    """Milliseconds from now."""
    content: bytes


# --- Arguments ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shape:
    """What is known of a task's parameters, ctx aside."""

    bind: Callable[..., Any]
    """Raises TypeError when the task does not take the arguments."""
    required: frozenset[str]
    named: frozenset[str]
    """Those that can be given by name."""
    parameters: Parameters


def _anything(ctx: Any, *args: Any, **kwargs: Any) -> None:
    """What a task that is not known here takes."""


@lru_cache(maxsize=1024)
def _shape(task: Task) -> _Shape:
    signature = inspect.signature(task, follow_wrapped=False)
    kinds = [parameter.kind.name for parameter in signature.parameters.values()]
    bind = signature.bind
    if hasattr(task, "__wrapped__") and kinds[-2:] == ["VAR_POSITIONAL", "VAR_KEYWORD"]:
        # A decorator that passes all on; what is missing may come from it.
        signature = inspect.signature(task)
        bind = signature.bind_partial
    parameters = [*signature.parameters.values()][1:]
    parameters = [one for one in parameters if not one.kind.name.startswith("VAR")]
    positional_only = inspect.Parameter.POSITIONAL_ONLY
    return _Shape(
        bind=bind,
        required=frozenset(one.name for one in parameters if one.default is one.empty),
        named=frozenset(one.name for one in parameters if one.kind != positional_only),
        parameters=Parameters(task),
    )


def _content(
    serializer: Serializer,
    name: str,
    task: Task | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: dict[str, Any] | None,
) -> bytes:
    """The job's bytes.

    Raises:
        TypeError: The task does not take the arguments, or one cannot be stored.
    """
    shape = _shape(task or _anything)
    parameters = shape.parameters
    # Binding takes longer than all else here, and most calls can do without.
    if args or not shape.required <= kwargs.keys() <= shape.named:
        unknown = kwargs.keys() - shape.named
        if unknown and not parameters.others:
            there = ", ".join(sorted(shape.named)) or "none"
            raise TypeError(
                f"{name}: unexpected argument {min(unknown)!r}; there is {there}"
            )
        try:
            shape.bind(None, *args, **kwargs)
        except TypeError as exc:
            raise TypeError(f"{name}: {exc}") from None
    job: dict[str, Any] = {"t": None, "f": name, "a": args, "k": kwargs}
    job["et"] = timestamp_ms()
    if context:
        job["c"] = context
    if serializer.format == "json":
        job["a"] = [
            _pack(name, parameters, parameters.of_position(index), f"{index + 1}", one)
            for index, one in enumerate(args)
        ]
        packed = {
            key: _pack(name, parameters, parameters.of_name(key), key, value)
            for key, value in kwargs.items()
        }
        job["k"] = untagged(packed)
    content = serializer.dump(job)
    if parameters.adapters:
        back = serializer.deserialize(content)
        arrived, by_name = parameters.convert(back["a"], back["k"])
        sent = [
            (parameters.of_position(index), value, after)
            for index, (value, after) in enumerate(zip(args, arrived, strict=True))
        ]
        sent += [(parameters.of_name(key), kwargs[key], by_name[key]) for key in kwargs]
        for parameter, value, after in sent:
            if parameters.is_typed(parameter) and _differ(value, after):
                raise TypeError(
                    f"{name}: argument {parameter!r} would arrive as {after!r:.200}"
                )
    return content


def _pack(
    name: str, parameters: Parameters, parameter: str, argument: str, value: Any
) -> Any:
    if parameter not in ("", parameters.rest, parameters.others):
        argument = parameter
    if (
        parameters.unresolved
        and parameter in parameters.unresolved
        and _is_typed(value)
    ):
        raise TypeError(
            f"{name}: argument {argument!r} would arrive as a dict, since the "
            f"annotation of {parameter!r} is not known when the task runs (imported "
            "under TYPE_CHECKING, say)"
        )
    try:
        parameters.check(parameter, value)
        return pack(value, loose=parameters.is_typed(parameter))
    except TypeError as exc:
        raise TypeError(f"{name}: argument {argument!r}: {exc}") from None


def _is_typed(value: Any) -> bool:
    return isinstance(value, BaseModel | Enum) or (
        is_dataclass(value) and not isinstance(value, type)
    )


def _differ(value: Any, arrived: Any) -> bool:
    """Is it a model, dataclass or enum that did not come back equal?"""
    if is_dataclass(value) and type(value).__eq__ is object.__eq__:
        return type(value) is not type(arrived)
    if _is_typed(value):
        return type(value) is not type(arrived) or bool(value != arrived)
    return False


# --- Calls ----------------------------------------------------------------------------


def _milliseconds(name: str, value: float | timedelta) -> int:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} is a number of seconds or a timedelta, not {value!r}")
    if not 0 <= seconds * 1000 <= _MAX_MS:  # nor is NaN
        raise ValueError(f"{name} is from 0 to 100 years in seconds, not {value!r}")
    return round(seconds * 1000)


def prepare(
    target: Target,
    context: dict[str, Any] | None,
    /,
    *args: Any,
    _job_id: str | None = None,
    _replace: bool = False,
    _defer_by: float | timedelta | None = None,
    _defer_until: datetime | None = None,
    _expires: float | timedelta | None = None,
    _priority: int | None = None,
    **kwargs: Any,
) -> Call:
    """Check a call of enqueue, and write its job down; to be sent.

    Args:
        target: Where it goes.
        context: What the job takes along besides its arguments.
        others: As enqueue.

    Raises:
        TypeError, ValueError: As enqueue says.
    """
    if _defer_by is not None and _defer_until is not None:
        raise ValueError("use either _defer_by or _defer_until, not both")
    if _replace and _job_id is None:
        raise ValueError("_replace goes with a _job_id")
    if _job_id is not None and (not isinstance(_job_id, str) or not _job_id):
        raise TypeError(f"_job_id must be a non-empty string, not {_job_id!r}")
    if _priority is not None:
        check_priority(_priority)
    delay = due = 0
    if _defer_by is not None:
        delay = _milliseconds("_defer_by", _defer_by)
    elif _defer_until is not None:
        if _defer_until.tzinfo is None:
            _defer_until = _defer_until.replace(tzinfo=UTC)
        due = to_unix_ms(_defer_until)
        delay = max(0, due - timestamp_ms())
    expires = delay + EXPIRES_MS
    if _expires is not None:
        expires = _milliseconds("_expires", _expires)
        if expires <= delay:
            raise ValueError(f"it expires after {_expires!r} s, before it is due")
    queue, name, task, limits = target
    content = _content(queue.serializer, name, task, args, kwargs, context)
    if limits is not None:
        counts = counted(task, name, queue.name, limits, args, kwargs)
        if _priority is None:
            _priority = getattr(task, "priority", 0)
        content = with_control(content, counts, _priority)
    job_id = with_tag_of(queue.name, _job_id or token_hex(16)).encode()
    own_id = "" if _job_id is None else "replace" if _replace else "own"
    return Call(job_id, own_id, delay, due, expires, content)
