"""The jobs page: the queues, their workers and jobs, in a browser, at /arq/.

What it does is in jobs.py, how it looks in static/.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.params import Depends as Dependency
from fastapi.responses import Response
from pydantic import SecretStr

from ..client.status import Lookup
from .access import Passwords, of_dependencies
from .api import Api
from .jobs import Operations
from .served import HEADERS, answer

_STATIC = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


def jobs_page(
    operations: Operations,
    lookup: Lookup,
    *,
    password: SecretStr | None,
    show_arguments: bool,
    reader_password: SecretStr | None = None,
    log_url: str = "",
    dependencies: Sequence[Dependency] | None = None,
    readonly: bool | Dependency = False,
) -> APIRouter:
    """The page's router, to be included in an app.

    Args:
        operations: What it shows, and does.
        lookup: What aborts jobs.
        password: Of HTTP Basic; without one, no path of the page is there.
        show_arguments: Whether it shows arguments and results.
        reader_password: Of those who may look, but not act.
        log_url: Where a job's log is, with {job_id} in it.
        dependencies: Who is let in instead of those with a password: each raises an
            HTTPException for all others. A text that one returns is who it is.
        readonly: With dependencies, whether they may only look; or what says so of
            each visitor, Depends(...).
    """
    let_in = [Depends(Passwords(password, reader_password))]
    if dependencies is not None:
        let_in = of_dependencies(dependencies, readonly)
    api = Api(operations, lookup, show_arguments, log_url)
    router = APIRouter(prefix="/arq", dependencies=let_in, include_in_schema=False)
    router.include_router(api.router(), prefix="/api")
    # No methods are all methods: a wrong one, too, is first asked for a password.
    # FastAPI would name the operations after the first.
    router.add_api_route("", _to_the_page, methods=[], operation_id="arq_page_itself")
    router.add_api_route("/{name:path}", _file, methods=[], operation_id="arq_page")
    return router


@cache
def _files() -> dict[str, bytes]:
    paths = (path for path in _STATIC.iterdir() if path.suffix in _TYPES)
    return {path.name: path.read_bytes() for path in paths}


async def _file(request: Request, name: str) -> Response:
    name = name or "page.html"
    if request.method != "GET" or name not in _files():
        raise HTTPException(404)
    return answer(request, _files()[name], _TYPES[Path(name).suffix], "no-cache")


async def _to_the_page() -> Response:
    # relative, and so right behind a proxy, too, that takes off a prefix
    return Response(status_code=307, headers={**HEADERS, "Location": "arq/"})
