"""main.py: the lifespan closes the pool, just before the database."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import takewhile

from seams import Options, Seam, UnknownShapeError
from seams.python_file import Code, Imported

POOL = Imported("arq", "close_pool")


def lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return (
        f"{POOL.line(options)}\n\n"
        "    await close_pool()  # in lifespan, after its yield"
    )


def add(text: str, options: Options) -> str:
    """The lifespan closes the pool."""
    return POOL.add(
        text,
        options,
        lambda code, name: _close(code, _lifespan(code).body, f"await {name}()"),
    )


def remove(text: str, options: Options) -> str:
    """The lifespan does not close the pool."""
    return POOL.remove(text, options, r"await close_pool\(\)")


SEAM = Seam(("main.py",), lines, add, remove, needs_settings=True)


def _close(code: Code, block: Sequence[ast.stmt], text: str) -> None:
    """Insert a line for when the app has stopped.

    Below the `yield`, or at the start of a `finally`; above `await close_db()`, if that
    follows.
    """
    line = next(filter(_yields, block), None)
    match line:
        case ast.Expr(ast.Yield()):
            after = block[block.index(line) + 1 :]
        case ast.AsyncWith(body=inner):
            return _close(code, inner, text)
        case ast.Try(body=inner, finalbody=[_, *_] as after) if any(
            map(_yields, inner)
        ):
            pass
        case _:
            raise UnknownShapeError("its lifespan does more than is understood")
    plain = takewhile(lambda it: isinstance(it, ast.Expr | ast.Assign), after)
    closes = [it for it in plain if code.is_line(it, r"await close_db\(\)")]
    if closes or isinstance(line, ast.Try):
        code.insert(text, (closes or after)[0], above=True)
    else:
        code.insert(text, line)
    return None


def _yields(line: ast.stmt) -> bool:
    return any(isinstance(node, ast.Yield) for node in ast.walk(line))


def _lifespan(code: Code) -> ast.AsyncFunctionDef:
    """The function given as `lifespan=`.

    Raises:
        UnknownShapeError: There is none, or several, or it is from elsewhere.
    """
    names = {
        ast.unparse(node.value)
        for node in ast.walk(code.tree)
        if isinstance(node, ast.keyword) and node.arg == "lifespan"
    }
    functions = [it for it in code.tree.body if isinstance(it, ast.AsyncFunctionDef)]
    found = [it for it in functions if {it.name} == names]
    if len(found) != 1:
        raise UnknownShapeError("it has no single function given as `lifespan=`")
    return found[0]
