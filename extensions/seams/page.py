"""main.py: the app has the jobs page."""

from __future__ import annotations

import re

import libcst as cst
import libcst.matchers as m

from seams import Options, UnknownShapeError
from seams.imported import Imported
from seams.python_file import Code

PAGE = Imported("arq_page", "jobs_page")


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
    if not name and code.count(PAGE.name):
        raise UnknownShapeError("it has a jobs_page of its own")
    line, app = _last_router(code)
    code.append_lines(line, f"{app}.include_router({name or PAGE.name}())")
    if not name:
        PAGE.add(code, options)
    return code.render()


def remove(source: bytes, options: Options) -> bytes:
    """The app does not include the page's router."""
    router = m.Call(m.Name(PAGE.name), args=[])
    include = m.Call(_INCLUDE_ROUTER, args=[m.Arg(router, keyword=None)])
    line = m.SimpleStatementLine([m.Expr(include)])
    return PAGE.remove(source, options, lambda code: PAGE.delete_line(code, line), add)


_INCLUDE_ROUTER = m.Attribute(m.Name(), m.Name("include_router"))


def _last_router(code: Code) -> tuple[cst.SimpleStatementLine, str]:
    """The line to include another router below, and the app's name.

    Raises:
        UnknownShapeError: Routers are included in several places, or in none, and there
            is no single `app = FastAPI(...)`.
    """
    fastapi = m.Name("FastAPI") | m.Attribute(attr=m.Name("FastAPI"))
    made = m.Assign([m.AssignTarget(m.Name())], m.Call(fastapi)) | m.AnnAssign(
        m.Name(), value=m.Call(fastapi)
    )
    routers = m.SimpleStatementLine([m.Expr(m.Call(_INCLUDE_ROUTER))])
    found = code.places(routers) or code.places(m.SimpleStatementLine([made]))
    names = {re.split(r"\W", code.text(line.body[0]))[0] for line, _ in found}
    if len(names) != 1 or any(block is not found[0][1] for _, block in found):
        raise UnknownShapeError("it has no single place where routers are included")
    return found[-1][0], names.pop()
