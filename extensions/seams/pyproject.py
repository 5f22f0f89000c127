"""pyproject.toml: the project depends on arq."""

from __future__ import annotations

import re
import tomllib

from seams import Options, Seam, UnknownShapeError

DEPENDENCY = "arq>=0.28,<0.29"

OLD = "arq>=0.26"
"""What `paxx ext add arq` adds."""


def lines(options: Options) -> str:
    """The command that adds it."""
    return f'uv add "{DEPENDENCY}"'


def add(text: str, options: Options) -> str:
    """The project depends on arq."""
    names = _dependencies(text)
    if OLD in names:
        result = text.replace(f'"{OLD}"', f'"{DEPENDENCY}"', 1)
    elif any(map(_is_arq, names)):
        return text
    else:
        array = r"(?m)^(dependencies = \[\n(?:[ #].*\n)*)\]"
        result = re.sub(array, rf'\1    "{DEPENDENCY}",\n]', text, count=1)
    return _checked(result, {*names, DEPENDENCY} - {OLD})


def remove(text: str, options: Options) -> str:
    """The project has its own dependencies again; an arq among them is its own."""
    names = _dependencies(text)
    if DEPENDENCY not in names:
        return text
    result = re.sub(rf'(?m)^ +"{re.escape(DEPENDENCY)}",\n', "", text, count=1)
    return _checked(result, {*names} - {DEPENDENCY})


SEAM = Seam(("pyproject.toml",), lines, add, remove)


def too_old(text: str) -> str:
    """The project's own requirement of an arq that may be older than the queue's.

    Empty where there is none, or where ours takes its place.
    """
    try:
        names = _dependencies(text)
    except UnknownShapeError:
        return ""
    own = [name for name in names if _is_arq(name) and name != OLD]
    return next((it for it in own if () < _lowest(it) < _lowest(DEPENDENCY)), "")


def _lowest(requirement: str) -> tuple[int, ...]:
    """The lowest version that it allows; empty where it does not say."""
    match = re.search(r"(?:>=|==|~=|>) *(\d+(?:\.\d+)*)", requirement)
    return tuple(map(int, match[1].split("."))) if match else ()


def _is_arq(requirement: str) -> bool:
    return re.match(r"arq(?![\w.-])", requirement, re.IGNORECASE) is not None


def _checked(text: str, dependencies: set[str]) -> str:
    """The text, which has these [project] dependencies.

    Raises:
        UnknownShapeError: It has not.
    """
    try:
        if {*_dependencies(text)} == dependencies:
            return text
    except UnknownShapeError:
        pass  # not TOML any more
    raise UnknownShapeError("its dependencies are written in a way of their own")


def _dependencies(text: str) -> list[str]:
    """The [project] dependencies."""
    try:
        dependencies = tomllib.loads(text)["project"]["dependencies"]
        return [str(name) for name in list(dependencies)]
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as exc:
        raise UnknownShapeError("it has no [project] dependencies") from exc
