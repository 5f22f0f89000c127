"""What the command asks, and understands."""

import re
import sys
from datetime import UTC, datetime, time, timedelta
from typing import Any

import click

_UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}


def age(ctx: Any, param: Any, value: str | None) -> timedelta | None:
    """A length of time, as in 30min; an option's callback.

    Raises:
        click.BadParameter: It is none.
    """
    if value is None:
        return None
    found = re.fullmatch(r"(\d{1,6})\s*(s|min|m|h|d)", value)
    if not found:
        raise click.BadParameter(f"{value!r} is no time such as 30min, 2h or 1d.")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def since(ctx: Any, param: Any, value: str | None) -> datetime | None:
    """A time: an age, a time of day, or ISO 8601; local, where it names no zone.

    Raises:
        click.BadParameter: It is none.
    """
    if value is None:
        return None
    now = datetime.now(UTC)
    if re.fullmatch(r"\d+\s*[a-z]+", value):
        return now - (age(ctx, param, value) or timedelta())
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", value):
            hours, rest = value.split(":", 1)
            clock = time.fromisoformat(f"{int(hours):02}:{rest}")
            at = datetime.combine(now.astimezone(), clock).astimezone()
            return at if at <= now else at - timedelta(days=1)
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError:
        text = f"{value!r} is no time such as 2h, 02:00 or 2030-01-31T09:00:00Z."
        raise click.BadParameter(text) from None


def confirm(question: str, count: int, yes: bool, *, typed: bool = False) -> None:
    """Go on only where that is wanted.

    Args:
        question: What is asked on a terminal.
        count: How many jobs it is about.
        yes: Whether --yes was given.
        typed: Whether the number is to be typed.

    Raises:
        click.UsageError: There is nobody to ask, and --yes was not given.
        click.Abort: It is not wanted.
    """
    if yes or count == 0:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} Say --yes.")
    if not typed:
        click.confirm(question, abort=True, err=True)
    elif click.prompt(f"{question} Type the number", err=True) != str(count):
        raise click.Abort()
