""".env, .env.example: the password of the jobs page."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from files import is_ignored

from seams import Options, UnknownShapeError, append, newline_of, undo

COMMENT = (
    "# Password of the jobs page at /arq/, with any user name; without one, no page"
)
COMMENTED_OUT = (
    "# ARQ_PAGE_PASSWORD=at-least-16-characters",
    "# ARQ_PAGE_ARGUMENTS=true  # false: the page hides arguments and results",
)


@dataclass(frozen=True)
class Password:
    """The comment, and what follows it."""

    text: Callable[[Options], str]
    pattern: tuple[str, ...]
    """Each line of that text, as a regular expression."""

    def lines(self, options: Options) -> str:
        """The seam, to add or to take out by hand."""
        return f"{COMMENT}\nARQ_PAGE_PASSWORD=at-least-16-characters"

    def add(self, source: bytes, options: Options) -> bytes:
        """The file says something of the password."""
        if _has_password(source):
            return source
        return append(source, f"{COMMENT}\n{self.text(options)}")

    def remove(self, source: bytes, options: Options) -> bytes:
        """The lines as they were added are gone."""
        newline = newline_of(source)
        lines = (re.escape(COMMENT), *self.pattern)
        pattern = b"".join(line.encode() + newline for line in lines)
        found = re.search(pattern, source)
        if not found:
            if _has_password(source):
                raise UnknownShapeError("its ARQ_PAGE_PASSWORD has been changed")
            return source
        before, after = source[: found.start()], source[found.end() :]
        candidates = (before + after, before.removesuffix(newline) + after)
        return undo(source, candidates, lambda one: append(one, found[0].decode()))


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


ENV = Password(_generated, (r"ARQ_PAGE_PASSWORD=[\w-]{32}",))
EXAMPLE = Password(
    lambda options: "\n".join(COMMENTED_OUT), tuple(map(re.escape, COMMENTED_OUT))
)
