"""When cron jobs are due: also where clocks are changed, and where none can be."""

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from arq import cron
from arq_runtime.worker.cron import check, next_time
from kit import App

pytestmark = pytest.mark.slow

ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
    "America/Sao_Paulo",
]


async def task(ctx: dict[str, Any]) -> None:
    """Whatever is scheduled."""


def dues(job: Any, first: datetime, last: datetime, zone: ZoneInfo) -> list[datetime]:
    found = []
    due = first
    while (due := next_time(job, due, zone)) < last:
        found.append(due)
    return found


@cache
def changes(zone: ZoneInfo) -> list[datetime]:
    """The hours of 2018 and 2026 after which the clocks of a zone are changed."""

    def is_changed(time: datetime, within: timedelta) -> bool:
        before, after = time.astimezone(zone), (time + within).astimezone(zone)
        return before.utcoffset() != after.utcoffset()

    day, hour = timedelta(days=1), timedelta(hours=1)
    return [
        first + n * day + m * hour
        for first in (
            datetime(2018, 1, 1, tzinfo=UTC),
            datetime(2026, 1, 1, tzinfo=UTC),
        )
        for n in range(365)
        if is_changed(first + n * day, day)
        for m in range(24)
        if is_changed(first + n * day + m * hour, hour)
    ]


@pytest.mark.parametrize("name", ZONES)
def test_jobs_of_any_hour_take_no_notice_of_the_clocks(name: str) -> None:
    zone = ZoneInfo(name)
    for change in changes(zone) or [datetime(2026, 3, 29, tzinfo=UTC)]:
        first, last = change - timedelta(hours=2), change + timedelta(hours=3)
        every = dues(cron(task, second=0, microsecond=0), first, last, zone)
        assert every == [first + timedelta(minutes=n) for n in range(1, 300)]
        half = dues(
            cron(task, minute={0, 30}, second=0, microsecond=0), first, last, zone
        )
        local = [due.astimezone(zone) for due in half]
        assert all(due.minute in (0, 30) for due in local)
        gaps = {later - sooner for sooner, later in pairwise(half)}
        assert gaps == {timedelta(minutes=30)}


@pytest.mark.parametrize(("month", "after"), [(12, 1), (12, 7), (7, 1), (7, 8)])
def test_a_job_of_another_season_is_on_time(month: int, after: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    job = cron(task, month=month, day=1, minute=0, second=0, microsecond=0)
    due = next_time(job, datetime(2026, after, 5, tzinfo=UTC), zone)
    year = 2026 if after < month else 2027
    assert due == datetime(year, month, 1, tzinfo=zone)


@pytest.mark.parametrize("name", ZONES)
@pytest.mark.parametrize("hour", [0, 1, 2, 3])
def test_a_daily_job_runs_once_a_day(name: str, hour: int) -> None:
    zone = ZoneInfo(name)
    job = cron(task, hour=hour, minute=10, second=0, microsecond=0)
    for change in changes(zone) or [datetime(2026, 3, 29, tzinfo=UTC)]:
        first, last = change - timedelta(days=3), change + timedelta(days=3)
        days = [due.astimezone(zone).date() for due in dues(job, first, last, zone)]
        assert days == [days[0] + timedelta(days=n) for n in range(len(days))]
        assert len(days) >= 5


def test_a_time_in_the_gap_is_made_up_for_after_it() -> None:
    zone = ZoneInfo("Europe/Berlin")
    job = cron(task, hour=2, minute=30, second=0, microsecond=0)
    due = next_time(job, datetime(2026, 3, 28, 12, tzinfo=UTC), zone)
    assert due.astimezone(zone).replace(tzinfo=None) == datetime(2026, 3, 29, 3, 30)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"minute": 75}, "minute=75 must be from 0 to 59"),
        ({"weekday": 7}, "weekday=7 must be from 0 to 6"),
        ({"month": 4, "day": 31}, "month=4 never has day=31"),
        ({"minute": "*/5"}, "minute='\\*/5' must be an integer"),
        ({"hour": set()}, "hour=set\\(\\) is never"),
        ({"second": True}, "second=True must be an integer"),
    ],
)
async def test_a_value_that_cannot_be_is_refused(
    app: App, options: dict[str, Any], said: str
) -> None:
    job = cron(task, name="tidy", **options)
    with pytest.raises((TypeError, ValueError), match=f"cron job 'tidy': {said}"):
        app.settings(cron_jobs=[job])


def test_what_can_be_is_taken() -> None:
    for options in (
        {"month": 2, "day": 29},
        {"weekday": "mon"},
        {"weekday": {0, 6}},
        {"minute": set(range(0, 60, 5))},
    ):
        check(cron(task, **options))
