"""main.py: the app has the jobs page."""

from __future__ import annotations

import re

from seams import Options, Seam, UnknownShapeError
from seams.python_file import Code, Imported

PAGE = Imported("arq", "jobs_page")


def lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return (
        f"{PAGE.line(options)}\n\n"
        "    app.include_router(jobs_page())  # with ARQ_PAGE_PASSWORD in .env"
    )


def add(text: str, options: Options) -> str:
    """The app includes the page's router, after its other ones."""
    return PAGE.add(text, options, _include)


def remove(text: str, options: Options) -> str:
    """The app does not include the page's router."""
    return PAGE.remove(text, options, r"\w+\.include_router\(jobs_page\(\)\)")


SEAM = Seam(("main.py",), lines, add, remove, of_page=True, needs_settings=True)


def _include(code: Code, page: str) -> None:
    """Include the page below the last router, or below the line that makes the app."""
    found = code.found(r"\w+\.include_router\(.*")
    found = found or code.found(r"\w+(: \w+)? = (\w+\.)?FastAPI\(.*")
    block = found[0] if len(found) == 1 else []
    names = {re.split(r"\W", code.lines[it.lineno - 1].strip())[0] for it in block}
    if len(names) != 1:
        raise UnknownShapeError("it has no single place where routers are included")
    code.insert(f"{names.pop()}.include_router({page}())", block[-1])
