"""The jobs page: the queues, their workers and jobs, in a browser, at /arq/.

What it does is in jobs.py, how it looks in static/.
"""

import asyncio
import base64
import hashlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from arq.utils import to_unix_ms
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.params import Depends as Dependency
from fastapi.responses import FileResponse, Response
from pydantic import SecretStr
from redis.exceptions import RedisError

from ..client.status import Lookup
from .info import JobInfo, State, trouble
from .jobs import Operations

logger = logging.getLogger(__name__)

Action = Literal[
    "retry",
    "discard",
    "run-now",
    "abort",
    "retry-all",
    "discard-all",
    "pause",
    "resume",
]

_STATIC = Path(__file__).parent / "static"
_PAGE_SIZE = 50
_HEADERS = {
    "Cache-Control": "no-cache",
    # What comes from Redis is put in as text; should that fail, it cannot do anything.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def jobs_page(
    operations: Operations,
    lookup: Lookup,
    *,
    password: SecretStr | None,
    show_arguments: bool,
    dependencies: Sequence[Dependency] | None = None,
) -> APIRouter:
    """The page's router, to be included in an app.

    Args:
        operations: What it shows, and does.
        lookup: What aborts jobs.
        password: Of HTTP Basic; without one, no path of the page is there.
        show_arguments: Whether it shows arguments and results.
        dependencies: Who is let in instead of those with the password: each raises an
            HTTPException for all others.
    """
    if dependencies is None:
        dependencies = [Depends(_Password(password))]
    api = _Api(operations, lookup, show_arguments)
    router = APIRouter(
        prefix="/arq", dependencies=dependencies, include_in_schema=False
    )
    router.include_router(api.router(), prefix="/api")
    router.add_api_route("", _to_the_page)
    router.add_api_route("/", _served("page.html"))
    router.add_api_route("/page.js", _served("page.js"))
    router.add_api_route("/page.css", _served("page.css"))
    # Without this, a wrong method would be answered before anyone is asked for a
    # password. No methods are all methods; FastAPI would name the operations after the
    # first.
    router.add_api_route("", _nothing, methods=[], operation_id="arq_page_itself")
    router.add_api_route(
        "/{path:path}", _nothing, methods=[], operation_id="arq_page_nothing"
    )
    return router


# --- What it is made of ---------------------------------------------------------------


def _served(name: str) -> Callable[[], Awaitable[Response]]:
    async def serve() -> Response:
        return FileResponse(_STATIC / name, headers=_HEADERS)

    return serve


async def _to_the_page() -> Response:
    # relative, and so right behind a proxy, too, that takes off a prefix
    return Response(status_code=307, headers={**_HEADERS, "Location": "arq/"})


async def _nothing() -> Response:
    raise HTTPException(404)


# --- Who is let in --------------------------------------------------------------------


class _Password:
    """Lets in who sends the password, by HTTP Basic and under any name."""

    def __init__(self, password: SecretStr | None) -> None:
        self._password = password

    async def __call__(self, request: Request) -> None:
        """Let in, or not.

        Raises:
            HTTPException: 404 when no password is set: no path of the page is there
                then. 401 when it is another one.
        """
        if self._password is None:
            raise HTTPException(404)
        given = _given_password(request)
        if given is not None:
            password = self._password.get_secret_value().encode()
            # of digests, since comparing texts takes a time that tells their length
            digests = [hashlib.sha256(text).digest() for text in (given, password)]
            if secrets.compare_digest(*digests):
                return
            host = request.client.host if request.client else "an unknown host"
            logger.warning("Wrong password for the jobs page, from %s", host)
            await asyncio.sleep(1)
        raise HTTPException(401, headers={"WWW-Authenticate": 'Basic realm="Jobs"'})


def _given_password(request: Request) -> bytes | None:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(credentials).partition(b":")[2]
    except ValueError:
        return b""


def _same_origin(request: Request) -> None:
    """Let in requests of the page itself only, not those of another site's page.

    Raises:
        HTTPException: 403.
    """
    headers = request.headers
    site = headers.get("Sec-Fetch-Site")
    if site is None:  # an old browser, or no HTTPS
        origin = headers.get("Origin")
        is_same = origin is None or urlsplit(origin).netloc == headers.get("Host")
    else:
        is_same = site == "same-origin"
    # another site's page cannot send this header without asking first
    if not is_same or "X-Arq-Page" not in headers:
        raise HTTPException(403, "This is for the jobs page itself.")


async def _has_redis() -> AsyncIterator[None]:
    """Turn an error of Redis into one line for the page."""
    try:
        yield
    except (RedisError, OSError) as exc:
        raise HTTPException(503, trouble(exc)) from exc


# --- What the page asks for -----------------------------------------------------------


class _Api:
    """What the page's script asks for, and acts by."""

    def __init__(
        self, operations: Operations, lookup: Lookup, show_arguments: bool
    ) -> None:
        self._operations = operations
        self._lookup = lookup
        self._show_arguments = show_arguments

    def router(self) -> APIRouter:
        router = APIRouter(dependencies=[Depends(_same_origin), Depends(_has_redis)])
        router.add_api_route("/queues", self.queues)
        router.add_api_route("/jobs", self.jobs)
        router.add_api_route("/job", self.job)
        router.add_api_route("/{action}", self.act, methods=["POST"])
        return router

    async def queues(self) -> Response:
        names = await self._operations.list_queues()
        stats = await asyncio.gather(*map(self._operations.queue_stats, names))
        return _json({"queues": stats, "default": self._operations.default_queue})

    async def jobs(
        self,
        queue: str,
        state: State,
        task: str | None = None,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> Response:
        jobs = await self._operations.list_jobs(
            state, task=task, limit=_PAGE_SIZE + 1, offset=offset, queue=queue
        )
        rows = [self._texts(job, 200) for job in jobs[:_PAGE_SIZE]]
        return _json({"jobs": rows, "more": len(jobs) > _PAGE_SIZE, "size": _PAGE_SIZE})

    async def job(self, queue: str, id: str) -> Response:
        job = await self._operations.get_job(id, queue=queue)
        if job is None:
            raise HTTPException(404, "There is no such job, or no longer.")
        return _json(self._texts(job, 100_000))

    async def act(
        self,
        action: Action,
        request: Request,
        queue: str,
        id: str = "",
        task: str | None = None,
    ) -> Response:
        host = request.client.host if request.client else ""
        logger.info(
            "Jobs page: %s %s %s, from %s", action, queue, id or task or "", host
        )
        operations = self._operations
        done: int = True
        match action:
            case "retry":
                done = await operations.retry_job(id, queue=queue)
            case "discard":
                done = await operations.discard_job(id, queue=queue)
            case "run-now":
                done = await operations.run_now(id, queue=queue)
            case "abort":
                done = await self._lookup.abort_job(id, queue, timeout=3)
            case "retry-all":
                done = await operations.retry_failed(task, queue=queue)
            case "discard-all":
                done = await operations.discard_failed(task, queue=queue)
            case "pause":
                await operations.pause_queue(queue)
            case "resume":
                await operations.resume_queue(queue)
        return _json({"done": done})

    def _texts(self, job: JobInfo, size: int) -> dict[str, Any]:
        """A job as the page shows it: arguments and result as text, not too long."""
        arguments = [_text(value) for value in job.args]
        arguments += [f"{name} = {_text(value)}" for name, value in job.kwargs.items()]
        result = "" if job.result is None else _text(job.result)
        if not self._show_arguments:
            arguments, result = ["hidden"] * bool(arguments), result and "hidden"
        texts = {
            "arguments": "\n".join(arguments),
            "result": result,
            "error": job.error,
            "traceback": job.traceback,
        }
        cut = {name: _cut(text, size) for name, text in texts.items()}
        return {**vars(job), "args": None, "kwargs": None, **cut}


def _text(value: Any) -> str:
    try:
        return json.dumps(value, indent=2, default=repr, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[:size]}… ({len(text):,} characters)"


def _json(content: Any) -> Response:
    # ASCII only: half a surrogate pair is no UTF-8
    text = json.dumps({"now": datetime.now(UTC), **content}, default=_plain)
    headers = {**_HEADERS, "Cache-Control": "no-store"}
    return Response(text, media_type="application/json", headers=headers)


def _plain(value: Any) -> Any:
    return to_unix_ms(value) if isinstance(value, datetime) else vars(value)
