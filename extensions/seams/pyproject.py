"""pyproject.toml: the project depends on arq."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from seams import Options, Seam, UnknownShapeError, newline_of, undo

DEPENDENCY = "arq>=0.28,<0.29"

ITEM = rb"""["']""" + re.escape(DEPENDENCY).encode() + rb"""["']"""
WRITTEN = (
    (rb"[ \t]*" + ITEM + rb",?[ \t]*\r?\n", b""),  # in a line of its own
    (rb",(\s*?\r?\n)[ \t]*" + ITEM + rb"[ \t]*\r?\n", rb"\1"),  # in the last, no comma
    (rb",(  #.*\r?\n)[ \t]*" + ITEM + rb"[ \t]*\r?\n", rb"\1"),  # that, below a comment
    (rb", *" + ITEM, b""),  # after others
    (ITEM + rb",? *", b""),  # before them
)
"""How it may be written in an array, and what to put instead to take it out."""


def lines(options: Options) -> str:
    """The command that adds it."""
    return f'uv add "{DEPENDENCY}"'


def add(source: bytes, options: Options) -> bytes:
    """The project depends on arq."""
    names = _dependencies(source)
    old = [name for name in names if _is_old(name)]
    if any(_is_arq(name) for name in names) and not old:
        return source
    wanted = [DEPENDENCY if name in old else name for name in names]
    wanted += [DEPENDENCY] * (not old)
    for start, end, items in _arrays(source):
        if old:
            text = source[start:end].replace(old[0].encode(), DEPENDENCY.encode(), 1)
        else:
            text = _append(source, start, end, items)
        result = source[:start] + text + source[end:]
        if _is(result, wanted):
            return result
    raise UnknownShapeError("its dependencies are written in a way of their own")


def remove(source: bytes, options: Options) -> bytes:
    """The project has its own dependencies again; an arq among them is its own."""
    names = _dependencies(source)
    wanted = [name for name in names if name != DEPENDENCY]
    if wanted == names:
        return source
    found = []
    for pattern, rest in WRITTEN:
        for start, end, _ in _arrays(source):
            array = re.sub(pattern, rest, source[start:end], count=1)
            result = source[:start] + array + source[end:]
            if _is(result, wanted):
                found.append(result)
    if not found:
        raise UnknownShapeError("its dependencies are written in a way of their own")
    return undo(source, found, lambda one: add(one, options))


SEAM = Seam(("pyproject.toml",), lines, add, remove)


def _append(source: bytes, start: int, end: int, items: list[int]) -> bytes:
    """The array with one more item; the ends of those it has are given."""
    new = f'"{DEPENDENCY}"'.encode()
    if not items:
        return b"[" + new + source[start + 1 : end]
    before, rest = source[start : items[-1]], source[items[-1] : end]
    line_end = rest.find(b"\n") + 1
    if not line_end:
        return before + b", " + new + rest
    comma, needed = (b",", b"") if rest.lstrip()[:1] == b"," else (b"", b",")
    line = _indent(source, items[-1]) + new + comma + newline_of(source)
    return before + needed + rest[:line_end] + line + rest[line_end:]


def too_old(text: str) -> str:
    """The project's own requirement of an arq that may be older than the queue's.

    Empty where there is none, or where ours takes its place.
    """
    try:
        names = _dependencies(text.encode())
    except UnknownShapeError:
        return ""
    own = [name for name in names if _is_arq(name) and not _is_old(name)]
    return next((it for it in own if () < _lowest(it) < _lowest(DEPENDENCY)), "")


def _lowest(requirement: str) -> tuple[int, ...]:
    """The lowest version that it allows; empty where it does not say."""
    match = re.search(r"(?:>=|==|~=|>) *(\d+(?:\.\d+)*)", requirement)
    return tuple(map(int, match[1].split("."))) if match else ()


def _is_arq(requirement: str) -> bool:
    return re.match(r"arq(?![\w.-])", requirement, re.IGNORECASE) is not None


def _is_old(requirement: str) -> bool:
    """Is it that of `paxx ext add arq`?"""
    return re.fullmatch(r"arq *>= *0\.26", requirement, re.IGNORECASE) is not None


def _dependencies(source: bytes) -> list[str]:
    """The [project] dependencies."""
    try:
        dependencies = tomllib.loads(source.decode("utf-8"))["project"]["dependencies"]
        return [str(name) for name in list(dependencies)]
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as exc:
        raise UnknownShapeError("it has no [project] dependencies") from exc


def _is(source: bytes, dependencies: list[str]) -> bool:
    try:
        return _dependencies(source) == dependencies
    except UnknownShapeError:
        return False


def _arrays(source: bytes) -> Iterator[tuple[int, int, list[int]]]:
    """Where arrays called dependencies start and end, and where each item ends."""
    token = re.compile(rb"""("(?:[^"\\\n]|\\.)*"|'[^'\n]*')|#[^\n]*|(\])|[^"'#\]]+""")
    for match in re.finditer(rb"""dependencies["']?[ \t]*=[ \t]*\[""", source):
        items: list[int] = []
        for found in token.finditer(source, match.end()):
            if found[1]:
                items.append(found.end())
            elif found[2]:
                yield match.end() - 1, found.end(), items
                break


def _indent(source: bytes, item_end: int) -> bytes:
    """The whitespace that starts the line of an item."""
    line = source[source.rfind(b"\n", 0, item_end) + 1 : item_end]
    indent = line[: len(line) - len(line.lstrip())]
    return indent if line.lstrip()[:1] in (b'"', b"'") else b"    "
