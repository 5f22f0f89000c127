"""Tasks' parameters: which arrive as a model, a dataclass or an enum."""

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from enum import Enum
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def _is_typed(annotation: Any) -> bool:
    """Is it a pydantic model, dataclass or enum, or made of one, as in list[User]?"""
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel | Enum) or is_dataclass(annotation)
    ):
        return True
    return any(_is_typed(part) for part in get_args(annotation))


_PLAIN: dict[Any, tuple[type, ...]] = {float: (float, int)}
_PLAIN |= {one: (one,) for one in (bool, int, str, type(None))}


def _plain(hint: Any) -> tuple[type, ...]:
    """What an annotation takes, as pydantic does when strict; empty if it says more."""
    parts = get_args(hint) if get_origin(hint) in (UnionType, Union) else (hint,)
    found = [_PLAIN.get(part) for part in parts]
    return () if None in found else tuple(t for types in found if types for t in types)


class Parameters:
    """A task's parameters, without the first, which is ctx."""

    def __init__(self, task: Callable[..., Any]) -> None:
        self.positional: list[str] = []
        """Those that can be given by position."""
        self.named: set[str] = set()
        """Those that can be given by name."""
        self.rest = ""
        """That of *args, if there is one."""
        self.others = ""
        """That of **kwargs, if there is one."""
        self.unresolved: set[str] = set()
        """Those whose annotation names what is not known when the task runs."""
        self.plain: dict[str, tuple[type, ...]] = {}
        """The types of those whose annotation is made of int, str and the like."""
        self.adapters: dict[str, TypeAdapter[Any]] = {}
        """What makes the model, for those whose annotation has one in it."""
        for one in [*inspect.signature(task).parameters.values()][1:]:
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY):
                self.named.add(one.name)
            if one.kind is one.VAR_POSITIONAL:
                self.rest = one.name
            elif one.kind is one.VAR_KEYWORD:
                self.others = one.name
            elif one.kind is not one.KEYWORD_ONLY:
                self.positional.append(one.name)
            self._resolve(task, one)

    def _resolve(self, task: Callable[..., Any], one: inspect.Parameter) -> None:
        if one.annotation is one.empty:
            return
        holder = type("holder", (), {"__annotations__": {one.name: one.annotation}})
        scope = getattr(inspect.unwrap(task), "__globals__", {})
        try:
            hint = get_type_hints(holder, scope, include_extras=True)[one.name]
            if _is_typed(hint):
                self.adapters[one.name] = TypeAdapter(hint)
            elif plain := _plain(hint):
                self.plain[one.name] = plain
        except Exception:  # names that exist for mypy only, say
            self.unresolved.add(one.name)

    def of_position(self, index: int) -> str:
        """The parameter that takes the argument at this place."""
        return self.positional[index] if index < len(self.positional) else self.rest

    def of_name(self, name: str) -> str:
        """The parameter that takes the argument of this name."""
        return name if name in self.named or not self.others else self.others

    def is_typed(self, parameter: str) -> bool:
        """Does it arrive as a model, a dataclass or an enum?"""
        return parameter in self.adapters

    def check(self, parameter: str, value: Any) -> None:
        """May it be given this value?

        Raises:
            TypeError: The annotation excludes it.
        """
        types = self.plain.get(parameter)
        if types is None or type(value) in types:
            return
        if not isinstance(value, types) or isinstance(value, bool):
            names = " or ".join(one.__name__ for one in types)
            raise TypeError(f"must be {names}, not {value!r:.100}")

    def convert(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Make of a job's data the models that the task is annotated with.

        Raises:
            TypeError: The data does not fit; names the parameter and the field.
        """
        return (
            tuple(
                self._convert(self.of_position(index), value)
                for index, value in enumerate(args)
            ),
            {
                name: self._convert(self.of_name(name), value)
                for name, value in kwargs.items()
            },
        )

    def _convert(self, parameter: str, value: Any) -> Any:
        adapter = self.adapters.get(parameter)
        if adapter is None:
            return value
        try:
            return adapter.validate_python(value, by_alias=True, by_name=True)
        except ValidationError as exc:
            error = exc.errors(include_url=False, include_input=False)[0]
            field = ".".join(map(str, (parameter, *error["loc"])))
            raise TypeError(f"{field}: {error['msg']}") from None
