""".env, .env.example: the password of the jobs page, and what else it can be told."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace

from repository import Repository

from seams import Options, Seam, UnknownShapeError
from seams.env import Text, block

COMMENT = (
    "# Password of the jobs page at /arq/, with any user name; without one, no page\n"
)
COMMENTED_OUT = f"""{COMMENT}# ARQ_PAGE_PASSWORD=at-least-16-characters
# ARQ_PAGE_READER_PASSWORD=at-least-16-characters  # to look, but not act
# ARQ_LOG_URL=https://logs.example.com/?q={{job_id}}  # a link to a job's log"""


def lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return f"{COMMENT}ARQ_PAGE_PASSWORD=at-least-16-characters"


def _generated(options: Options) -> str:
    """A password that nobody can guess."""
    if not Repository(options.root).ignores(".env"):
        raise UnknownShapeError("git does not ignore it, so no password goes there")
    return f"{COMMENT}ARQ_PAGE_PASSWORD={secrets.token_urlsafe(24)}"


def _seam(name: str, text: Text, pattern: str) -> Seam:
    variable = r"[ \t#]*(export\s+)?ARQ_PAGE_PASSWORD"
    seam = block(name, variable, lines, text, lambda options: pattern)
    return replace(seam, missed=False, of_page=True)


ENV = _seam(".env", _generated, rf"{re.escape(COMMENT)}ARQ_PAGE_PASSWORD=[\w-]{{32}}")
EXAMPLE = _seam(".env.example", lambda options: COMMENTED_OUT, re.escape(COMMENTED_OUT))
