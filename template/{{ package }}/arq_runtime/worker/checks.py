"""What is wrong with worker settings, said when their class is defined."""

import math
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from arq.cron import CronJob

from ..limits import Limit

#: Seconds, or a timedelta: which, and whether "for ever" makes sense.
_TIMES = {
    "job_timeout": True,
    "retry_delay": False,
    "lease": False,
    "job_completion_wait": False,
    "keep_result": True,
    "keep_failed": False,
    "health_check_interval": False,
    "poll_delay": False,
    "catch_up": False,
}
_COUNTS = (
    *("max_jobs", "max_tries", "queue_read_limit"),
    *("processes", "max_jobs_per_process"),
)


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
    for name, may_be_infinite in _TIMES.items():
        value = getattr(cls, name, None)
        if value is not None:
            _check_time(f"{cls.__name__}.{name}", value, may_be_infinite)
    for name in _COUNTS:
        value = getattr(cls, name, None)
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(
                f"{cls.__name__}.{name} must be a whole number of 1 or more, not "
                f"{value!r}"
            )
    hours = getattr(cls, "history", 8)
    if type(hours) not in (int, float) or not 0 <= hours <= 8:
        raise ValueError(
            f"{cls.__name__}.history must be a number of hours from 0 to 8, not "
            f"{hours!r}"
        )
    lines = getattr(cls, "keep_logs", 0)
    if type(lines) is not int or not 0 <= lines <= 100:
        raise ValueError(
            f"{cls.__name__}.keep_logs must be a number of lines from 0 to 100, not "
            f"{lines!r}"
        )
    both = {"job_serializer", "job_deserializer"} & vars(cls).keys()
    if len(both) == 1:
        raise TypeError(
            f"{cls.__name__} sets only {both.pop()}: job_serializer and "
            "job_deserializer go together"
        )
    limits = getattr(cls, "limits", ())
    for one in limits if isinstance(limits, list | tuple) else [limits]:
        if not isinstance(one, Limit):
            raise TypeError(
                f"{cls.__name__}.limits has {one!r}, which must be limit(...)"
            )
    if isinstance(limits, Limit):
        raise TypeError(f"{cls.__name__}.limits is a list, as in [limit(...)]")
    for job in getattr(cls, "cron_jobs", None) or ():
        if not isinstance(job, CronJob):
            raise TypeError(
                f"{cls.__name__}.cron_jobs has {job!r}, which must be cron(...)"
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
