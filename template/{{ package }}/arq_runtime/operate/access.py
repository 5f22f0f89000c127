"""Who is let in to the jobs page, what they are called, and what they may do."""

import asyncio
import base64
import hashlib
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request
from fastapi.params import Depends as Dependency
from pydantic import SecretStr

logger = logging.getLogger(__name__)


class Passwords:
    """Lets in who sends a password, by HTTP Basic and under any name.

    Args:
        password: Of those who may act.
        reader: Of those who may only look.
    """

    def __init__(self, password: SecretStr | None, reader: SecretStr | None) -> None:
        known = (password, True), (reader, False)
        self._digests = [
            (_digest(one.get_secret_value().encode()), may_act)
            for one, may_act in known
            if one
        ]

    async def __call__(self, request: Request) -> None:
        """Let in, or not.

        Raises:
            HTTPException: 404 when no password is set: no path of the page is there
                then. 401 when it is another one.
        """
        if not self._digests:
            raise HTTPException(404)
        given = _given(request)
        if given is not None:
            name, password = given
            for one, may_act in self._digests:
                if secrets.compare_digest(_digest(password), one):
                    return _note(request, name, may_act)
            host = request.client.host if request.client else "an unknown host"
            logger.warning("Wrong password for the jobs page, from %s", host)
            await asyncio.sleep(1)
        raise HTTPException(401, headers={"WWW-Authenticate": 'Basic realm="Jobs"'})


def _digest(password: bytes) -> bytes:
    # comparing texts takes a time that tells their length
    return hashlib.sha256(password).digest()


def of_dependencies(
    dependencies: Sequence[Dependency], readonly: bool | Dependency
) -> list[Any]:
    """Dependencies that let in whom all of these let in.

    A text that one of them returns is the visitor's name.
    """

    def naming(one: Dependency) -> Callable[..., None]:
        def name(request: Request, value: Any = one) -> None:
            if isinstance(value, str) and not hasattr(request.state, "arq_name"):
                request.state.arq_name = value

        return name

    is_given = isinstance(readonly, Dependency)
    asked: Any = readonly if is_given else Depends(lambda: readonly)

    def rights(request: Request, is_reader: Any = asked) -> None:
        _note(request, getattr(request.state, "arq_name", ""), not is_reader)

    return [*(Depends(naming(one)) for one in dependencies), Depends(rights)]


def _note(request: Request, name: str, may_act: bool) -> None:
    text = "".join(c if c.isprintable() else " " for c in name)[:64].strip()
    request.state.arq_name, request.state.arq_may_act = text, may_act


def name_of(request: Request) -> str:
    """Who asks; an address, where no name was given."""
    host = request.client.host if request.client else "unknown"
    return request.state.arq_name or host


def may_act(request: Request) -> bool:
    """May the visitor change anything?"""
    return bool(request.state.arq_may_act)


def actor(request: Request) -> None:
    """Let in who may change something.

    Raises:
        HTTPException: 403.
    """
    if not may_act(request):
        raise HTTPException(403, "You may look here, but not change anything.")


def _given(request: Request) -> tuple[str, bytes] | None:
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(credentials).partition(b":")
    except ValueError:
        return "", b""
    return name.decode(errors="replace"), password


def same_origin(request: Request) -> None:
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
