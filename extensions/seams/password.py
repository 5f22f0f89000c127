""".env, .env.example: the password of the jobs page."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from files import is_ignored

from seams import Options, Seam, UnknownShapeError, append, newline_of, undo

COMMENT = (
    "# Password of the jobs page at /arq/, with any user name; without one, no page"
)
COMMENTED_OUT = "# ARQ_PAGE_PASSWORD=at-least-16-characters"


def lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return f"{COMMENT}\nARQ_PAGE_PASSWORD=at-least-16-characters"


def _seam(name: str, text: Callable[[Options], str], pattern: str) -> Seam:
    """The comment, and a text below it, also as a regular expression."""

    def add(source: bytes, options: Options) -> bytes:
        if _has_password(source):
            return source
        return append(source, f"{COMMENT}\n{text(options)}")

    def remove(source: bytes, options: Options) -> bytes:
        newline = newline_of(source)
        known = f"{re.escape(COMMENT)}\n{pattern}\n".encode().replace(b"\n", newline)
        found = re.search(known, source)
        if not found:
            if _has_password(source):
                raise UnknownShapeError("its ARQ_PAGE_PASSWORD has been changed")
            return source
        before, after = source[: found.start()], source[found.end() :]
        candidates = (before + after, before.removesuffix(newline) + after)
        return undo(source, candidates, lambda one: append(one, found[0].decode()))

    return Seam(
        (name,),
        lines,
        add,
        remove,
        optional=True,
        missed=False,
        private=name == ".env",
        wanted=lambda options: options.jobs_page,
        needs=("settings.py",),
    )


def _has_password(source: bytes) -> bool:
    pattern = rb"^[ \t#]*(export\s+)?ARQ_PAGE_PASSWORD\s*="
    return re.search(pattern, source, re.M | re.I) is not None


def _generated(options: Options) -> str:
    """One that nobody can guess.

    Raises:
        UnknownShapeError: It would end up in git.
    """
    if not is_ignored(options.root / ".env"):
        raise UnknownShapeError("git does not ignore it, so it is no place for secrets")
    return f"ARQ_PAGE_PASSWORD={secrets.token_urlsafe(24)}"


ENV = _seam(".env", _generated, r"ARQ_PAGE_PASSWORD=[\w-]{32}")
EXAMPLE = _seam(
    ".env.example",
    lambda options: COMMENTED_OUT,
    re.escape(COMMENTED_OUT),
)
