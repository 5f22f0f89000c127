"""What the jobs page is answered with: compressed, and only where it has changed."""

import gzip
import hashlib
import json
import time
from datetime import datetime
from typing import Any

from arq.utils import to_unix_ms
from fastapi import Request
from fastapi.responses import Response

HEADERS = {
    # What comes from Redis is put in as text; should that fail, it cannot do anything.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def answer(request: Request, body: bytes, media_type: str, cache: str) -> Response:
    """The body; or that the browser has it already."""
    tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"Cache-Control": cache, "ETag": tag}
    if cache == "no-store":
        # in milliseconds; not in the body, which would then be another one each time
        headers["X-Arq-Now"] = str(int(time.time() * 1000))
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers=headers)
    headers |= HEADERS
    if len(body) > 1000 and "gzip" in request.headers.get("Accept-Encoding", ""):
        body = gzip.compress(body, 4)
        headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Response(body, media_type=media_type, headers=headers)


def json_answer(request: Request, content: dict[str, Any]) -> Response:
    """Content for the page's script."""
    # ASCII only: half a surrogate pair is no UTF-8
    body = json.dumps(content, default=_plain).encode()
    return answer(request, body, "application/json", "no-store")


def _plain(value: Any) -> Any:
    return to_unix_ms(value) if isinstance(value, datetime) else vars(value)
