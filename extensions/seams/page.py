"""main.py: the app has the jobs page."""

from __future__ import annotations

import re

import libcst as cst
import libcst.matchers as m

from seams import Options, UnknownShapeError, undo
from seams.python_file import BLANKS, Code


def lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return (
        f"from {options.package}.arq_page import jobs_page\n\n"
        "    app.include_router(jobs_page())"
    )


def add(source: bytes, options: Options) -> bytes:
    """The app includes the page's router, after its other ones."""
    code = Code(source)
    name = code.imports_ours(options, "arq_page", "jobs_page")
    if code.count(name) > 1:
        return source
    if not name and code.count("jobs_page"):
        raise UnknownShapeError("it has a jobs_page of its own")
    line, app = _last_router(code)
    code.append_lines(line, f"{app}.include_router({name or 'jobs_page'}())")
    if not name:
        code.add_import(f"{options.package}.arq_page", "jobs_page", options.root)
    return code.render()


def remove(source: bytes, options: Options) -> bytes:
    """The app does not include the page's router."""
    code = Code(source)
    module = f"{options.package}.arq_page"
    if not code.imports_name(module, "jobs_page"):
        return source
    router = m.Call(m.Name("jobs_page"), args=[])
    include = m.Call(_INCLUDE_ROUTER, args=[m.Arg(router, keyword=None)])
    line_of_it = m.SimpleStatementLine([m.Expr(include)])
    places = code.places(line_of_it)
    if len(places) != 1 or code.count("jobs_page") != 2:
        raise UnknownShapeError("it uses jobs_page in a way of its own")
    if len(places[0][1]) == 1:
        raise UnknownShapeError("including jobs_page is all that happens there")

    def without(blank: str) -> bytes:
        code = Code(source)
        [(line, _)] = code.places(line_of_it)
        code.delete_lines(line, line)
        code.remove_import(module, "jobs_page", blank=blank)
        return code.render()

    return undo(source, map(without, BLANKS), lambda one: add(one, options))


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
