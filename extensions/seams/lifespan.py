"""main.py: the lifespan closes the pool, just before the database."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from seams import Options, UnknownShapeError
from seams.imported import Imported
from seams.python_file import Block, Code, awaits, find

POOL = Imported("arq", "close_pool")


def lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return (
        f"{POOL.line(options)}\n\n"
        "    await close_pool()  # in lifespan, after its yield"
    )


def add(source: bytes, options: Options) -> bytes:
    """The lifespan closes the pool."""
    code = Code(source)
    if _closes_by_module(code, options.package):
        return source
    name = POOL.found(code, options)
    if code.count(name) > 1:
        return source
    line, above = _place_to_close(code)
    insert = code.insert_line if above else code.append_lines
    insert(line, f"await {name or POOL.name}()")
    if not name:
        POOL.add(code, options)
    return code.render()


def remove(source: bytes, options: Options) -> bytes:
    """The lifespan does not close the pool."""

    def delete(code: Code) -> None:
        POOL.delete_line(code, lambda line: awaits(line, POOL.name))

    return POOL.remove(source, options, delete, add)


def _closes_by_module(code: Code, package: str) -> bool:
    """Is close_pool called as an attribute of the module arq?"""
    names = {f"{package}.arq", code.imports_name(package, "arq")}
    return any(
        node.attr.value == POOL.name and code.text(node.value) in names
        for node in find(code.module, cst.Attribute)
    )


def _place_to_close(code: Code) -> tuple[cst.SimpleStatementLine, bool]:
    """A line of the lifespan, and whether to close the pool above it; below it if not.

    That is above `await close_db()`, at the start of a `finally`, or below the `yield`.

    Raises:
        UnknownShapeError: It is not plain to see where the lifespan ends.
    """
    function = _lifespan(code)
    yields = find(function.body, cst.Yield)
    if len(yields) != 1:
        raise UnknownShapeError("its lifespan does not have one `yield`")
    way = _way_to(yields[0], function.body)
    closes = [
        line
        for line in find(function.body, cst.SimpleStatementLine)
        if awaits(line, "close_db") and code.start(line) > code.start(yields[0])
    ]
    for block in way.after if len(closes) == 1 else ():
        for line in block:
            if line is closes[0] and isinstance(line, cst.SimpleStatementLine):
                return line, True
            if _leaves(line):
                break
    if closes:
        raise UnknownShapeError("its lifespan closes the database in a way of its own")
    if way.finals and isinstance(way.finals[-1][0], cst.SimpleStatementLine):
        return way.finals[-1][0], True
    if way.in_try or len(way.line.body) > 1:
        raise UnknownShapeError("its lifespan does more than is understood")
    return way.line, False


def _leaves(line: cst.CSTNode) -> bool:
    match line:
        case cst.SimpleStatementLine(body=[cst.Return() | cst.Raise()]):
            return True
    return False


@dataclass
class _Way:
    """How to get to the `yield` of a lifespan."""

    line: cst.SimpleStatementLine
    in_try: bool
    finals: list[Block]
    """The `finally` blocks around it, the outermost first."""
    after: list[Block]
    """What runs after it, once and in any case: those, and what follows it."""


def _way_to(wanted: cst.CSTNode, suite: cst.BaseSuite) -> _Way:
    """The way to a `yield`, through `with` and `try` only.

    Raises:
        UnknownShapeError: It is in a loop, say, or in a `finally`.
    """
    in_try = False
    finals: list[Block] = []
    after: list[Block] = []
    while wanted in find(suite, cst.Yield):
        position, statement = next(
            (number, statement)
            for number, statement in enumerate(suite.body, start=1)
            if wanted in find(statement, cst.Yield)
        )
        if not in_try:
            after.append(suite.body[position:])
        if isinstance(statement, cst.SimpleStatementLine):
            return _Way(statement, in_try, finals, after + finals)
        if isinstance(statement, cst.Try):
            in_try = True
            if statement.finalbody:
                finals.append(statement.finalbody.body.body)
        elif not isinstance(statement, cst.With):
            break
        suite = statement.body
    raise UnknownShapeError("its lifespan does more than is understood")


def _lifespan(code: Code) -> cst.FunctionDef:
    """The function given as `lifespan=`.

    Raises:
        UnknownShapeError: There is none, or several, or it is from elsewhere.
    """
    names = {
        code.text(arg.value)
        for arg in find(code.module, cst.Arg)
        if arg.keyword and arg.keyword.value == "lifespan"
    }
    functions = [
        node
        for node in code.module.body
        if isinstance(node, cst.FunctionDef) and node.name.value in names
    ]
    if len(names) != 1 or len(functions) != 1 or not functions[0].asynchronous:
        raise UnknownShapeError("it has no single function given as `lifespan=`")
    return functions[0]
