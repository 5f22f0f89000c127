"""main.py: the app has the jobs page."""

from __future__ import annotations

import re
from collections.abc import Sequence

import libcst as cst

from seams import Options, UnknownShapeError
from seams.imported import Imported
from seams.python_file import Code

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
    code.append_lines(line, f"{app}.include_router({name or PAGE.name}())")
    if not name:
        PAGE.add(code, options)
    return code.render()


def remove(source: bytes, options: Options) -> bytes:
    """The app does not include the page's router."""

    def delete(code: Code) -> None:
        PAGE.delete_line(
            code,
            lambda line: (
                [code.text(arg.value) for arg in _included(line) or ()]
                == [f"{PAGE.name}()"]
            ),
        )

    return PAGE.remove(source, options, delete, add)


def _last_router(code: Code) -> tuple[cst.SimpleStatementLine, str]:
    """The line to include another router below, and the app's name.

    Raises:
        UnknownShapeError: Routers are included in several places, or in none, and there
            is no single `app = FastAPI(...)`.
    """
    found = code.places(lambda line: _included(line) is not None)
    found = found or code.places(_makes_app)
    names = {re.split(r"\W", code.text(line.body[0]))[0] for line, _ in found}
    if len(names) != 1 or any(block is not found[0][1] for _, block in found):
        raise UnknownShapeError("it has no single place where routers are included")
    return found[-1][0], names.pop()


def _included(line: cst.SimpleStatementLine) -> Sequence[cst.Arg] | None:
    """The arguments of `app.include_router(...)`; None where it is not that."""
    match line.body:
        case [
            cst.Expr(
                value=cst.Call(
                    func=cst.Attribute(
                        value=cst.Name(), attr=cst.Name(value="include_router")
                    ),
                    args=arguments,
                )
            )
        ]:
            return arguments
    return None


def _makes_app(line: cst.SimpleStatementLine) -> bool:
    match line.body:
        case [
            cst.Assign(targets=[cst.AssignTarget(target=cst.Name())], value=made)
            | cst.AnnAssign(target=cst.Name(), value=made)
        ]:
            match made:
                case cst.Call(
                    func=cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name))
                ):
                    return name == "FastAPI"
    return False
