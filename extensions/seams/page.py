"""main.py: the app has the jobs page."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from seams import Options, Seam, UnknownShapeError
from seams.python_file import Code, Imported

PAGE = Imported("arq", "jobs_page")


def lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return (
        f"{PAGE.line(options)}\n\n"
        "    app.include_router(jobs_page())  # with ARQ_PAGE_PASSWORD in .env"
    )


def add(source: bytes, options: Options) -> bytes:
    """The app includes the page's router, after its other ones."""
    code = Code(source)
    name = PAGE.found(code, options)
    if code.count(name) > 1:
        return source
    line, app = _last_router(code)
    code.insert_below(line, f"{app}.include_router({name or PAGE.name}())")
    if not name:
        PAGE.add(code, options)
    return code.render()


def remove(source: bytes, options: Options) -> bytes:
    """The app does not include the page's router."""

    def delete(code: Code) -> None:
        ours = [f"{PAGE.name}()"]
        PAGE.delete_use(
            code, lambda line: [*map(code.text, _included(line) or ())] == ours
        )

    return PAGE.remove(source, options, delete, add)


SEAM = Seam(("main.py",), lines, add, remove, of_page=True, needs_settings=True)


def _last_router(code: Code) -> tuple[ast.stmt, str]:
    """The line to include another router below, and the app's name."""
    found = code.places(lambda line: _included(line) is not None)
    found = found or code.places(_makes_app)
    names = {re.split(r"\W", code.text(line))[0] for line, _ in found}
    if len(names) != 1 or any(block is not found[0][1] for _, block in found):
        raise UnknownShapeError("it has no single place where routers are included")
    return found[-1][0], names.pop()


def _included(line: ast.stmt) -> Sequence[ast.expr | ast.keyword] | None:
    """The arguments of `app.include_router(...)`; None where it is not that."""
    match line:
        case ast.Expr(
            value=ast.Call(
                func=ast.Attribute(value=ast.Name(), attr="include_router"),
                args=arguments,
                keywords=named,
            )
        ):
            return [*arguments, *named]
    return None


def _makes_app(line: ast.stmt) -> bool:
    match line:
        case (
            ast.Assign(targets=[ast.Name()], value=ast.Call(func=made))
            | ast.AnnAssign(target=ast.Name(), value=ast.Call(func=made))
        ):
            return getattr(made, "id", getattr(made, "attr", "")) == "FastAPI"
    return False
