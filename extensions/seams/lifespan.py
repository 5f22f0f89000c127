"""main.py: the lifespan closes the pool, just before the database."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import takewhile

from seams import Options, Seam, UnknownShapeError
from seams.python_file import Code, Imported, awaits

POOL = Imported("arq", "close_pool")
_LEAVES = (ast.Return, ast.Raise)


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
    _close(code, f"await {name or POOL.name}()")
    if not name:
        POOL.add(code, options)
    return code.render()


def remove(source: bytes, options: Options) -> bytes:
    """The lifespan does not close the pool."""

    def delete(code: Code) -> None:
        POOL.delete_use(code, lambda line: awaits(line, POOL.name))

    return POOL.remove(source, options, delete, add)


SEAM = Seam(("main.py",), lines, add, remove, needs_settings=True)


def _closes_by_module(code: Code, package: str) -> bool:
    """Is close_pool called as an attribute of the module arq?"""
    names = {f"{package}.arq", code.imports_name(package, "arq")}
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == POOL.name
        and code.text(node.value) in names
        for node in ast.walk(code.tree)
    )


def _close(code: Code, text: str) -> None:
    """Insert a line into the lifespan, for when the app has stopped.

    Above `await close_db()`, at the start of a `finally`, or below the `yield`.
    """
    function = _lifespan(code)
    if sum(isinstance(node, ast.Yield) for node in ast.walk(function)) != 1:
        raise UnknownShapeError("its lifespan does not have one `yield`")
    line, after = _end(function.body)
    closes = [it for it, _ in code.places(lambda it: awaits(it, "close_db"))]
    start, end = code.start(line), code.end(function)
    closes = [it for it in closes if start < code.start(it) < end]
    if any(it not in after for it in closes):
        raise UnknownShapeError("it closes the database in a way of its own")
    if closes or isinstance(line, ast.Try):
        code.insert_above(closes[0] if closes else after[0], text)
    else:
        code.insert_below(line, text)


def _end(block: Sequence[ast.stmt]) -> tuple[ast.stmt, Sequence[ast.stmt]]:
    """The line with the `yield`, or a `try` with `finally` around it; what follows."""
    index = [*map(_yields, block)].index(True)
    line = block[index]
    after = [*takewhile(lambda it: not isinstance(it, _LEAVES), block[index + 1 :])]
    match line:
        case ast.Expr() | ast.Assign() | ast.AnnAssign():
            return line, after
        case ast.With(body=body) | ast.AsyncWith(body=body):
            inner, then = _end(body)
            return inner, [*then, *after]
        case ast.Try(body=body, finalbody=[_, *_] as final) if any(map(_yields, body)):
            _end(body)
            return line, [*final, *after]
    raise UnknownShapeError("its lifespan does more than is understood")


def _yields(line: ast.stmt) -> bool:
    return any(isinstance(node, ast.Yield) for node in ast.walk(line))


def _lifespan(code: Code) -> ast.AsyncFunctionDef:
    """The function given as `lifespan=`.

    Raises:
        UnknownShapeError: There is none, or several, or it is from elsewhere.
    """
    names = {
        code.text(node.value)
        for node in ast.walk(code.tree)
        if isinstance(node, ast.keyword) and node.arg == "lifespan"
    }
    functions = [
        node
        for node in code.tree.body
        if isinstance(node, ast.AsyncFunctionDef) and node.name in names
    ]
    if len(names) != 1 or len(functions) != 1:
        raise UnknownShapeError("it has no single function given as `lifespan=`")
    return functions[0]
