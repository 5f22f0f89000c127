"""What is wrong with worker settings, said when their class is defined."""

import math
from collections.abc import Iterable
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from arq.cron import CronJob

from ..limits import Limit

_INFINITE_TIMES = ("job_timeout", "keep_result")
_TIMES = (
    *("retry_delay", "lease", "job_completion_wait", "keep_failed"),
    *("health_check_interval", "poll_delay", "catch_up", *_INFINITE_TIMES),
)
_COUNT = (int,), 1, math.inf, "a whole number of 1 or more"
#: Which types they may have, the least and the most, and that in words.
_NUMBERS = {
    "max_jobs": _COUNT,
    "max_tries": _COUNT,
    "queue_read_limit": _COUNT,
    "processes": _COUNT,
    "max_jobs_per_process": _COUNT,
    "history": ((int, float), 0, 8, "a number of hours from 0 to 8"),
    "keep_logs": ((int,), 0, 100, "a number of lines from 0 to 100"),
}


def check_settings(cls: type, known: set[str]) -> None:
    """Can a worker be made of these settings?

    Raises:
        TypeError, ValueError: It cannot; names the class and the setting.
    """
    for name in vars(cls):
        if name.startswith("_") or name in known:
            continue
        if close := get_close_matches(name, known, 1, 0.8):
            raise TypeError(
                f"{cls.__name__}.{name} is no setting of a worker; did you mean "
                f"{close[0]!r}?"
            )
    for name in _TIMES:
        value = getattr(cls, name, None)
        if value is not None:
            _check_time(f"{cls.__name__}.{name}", value, name in _INFINITE_TIMES)
    for name, (types, least, most, said) in _NUMBERS.items():
        value = getattr(cls, name, None)
        if value is None or (type(value) in types and least <= value <= most):
            continue
        raise ValueError(f"{cls.__name__}.{name} must be {said}, not {value!r}")
    both = {"job_serializer", "job_deserializer"} & vars(cls).keys()
    if len(both) == 1:
        raise TypeError(
            f"{cls.__name__} sets only {both.pop()}: job_serializer and "
            "job_deserializer go together"
        )
    for name, kind, call in (
        ("limits", Limit, "limit"),
        ("cron_jobs", CronJob, "cron"),
    ):
        found = getattr(cls, name, None) or ()
        if isinstance(found, kind):
            raise TypeError(f"{cls.__name__}.{name} is a list, as in [{call}(...)]")
        for one in found if isinstance(found, Iterable) else [found]:
            if not isinstance(one, kind):
                raise TypeError(
                    f"{cls.__name__}.{name} has {one!r}, which must be {call}(...)"
                )


def _check_time(name: str, value: Any, may_be_infinite: bool) -> None:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(
            f"{name} must be a number of seconds or a timedelta, not {value!r}"
        )
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"{name} must be 0 or more seconds, not {value!r}")
    if math.isinf(seconds) and not may_be_infinite:
        raise ValueError(f"{name} must be finite, not {value!r}")
