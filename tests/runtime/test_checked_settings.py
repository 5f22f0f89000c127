"""What is wrong with worker settings is said when their class is defined."""

import re
from datetime import timedelta
from typing import Any

import pytest
from arq import func
from kit import App, until
from noting import Notes, fail, job


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        (
            {"max_jbos": 3},
            "WorkerSettings.max_jbos is no setting of a worker; did you mean 'max_jobs'?",
        ),
        (
            {"retry_dealy": 3},
            "WorkerSettings.retry_dealy is no setting of a worker; did you mean 'retry_delay'?",
        ),
        ({"keep_results": 3}, "did you mean 'keep_result'?"),
        (
            {"job_serializer": repr},
            "WorkerSettings sets only job_serializer: job_serializer and job_deserializer go together",
        ),
        ({"job_deserializer": repr}, "WorkerSettings sets only job_deserializer: "),
        (
            {"retry_delay": "10"},
            "WorkerSettings.retry_delay must be a number of seconds or a timedelta, not '10'",
        ),
        (
            {"retry_delay": float("inf")},
            "WorkerSettings.retry_delay must be finite, not inf",
        ),
        (
            {"retry_delay": -1},
            "WorkerSettings.retry_delay must be 0 or more seconds, not -1",
        ),
        (
            {"lease": float("nan")},
            "WorkerSettings.lease must be 0 or more seconds, not nan",
        ),
        (
            {"max_jobs": 0},
            "WorkerSettings.max_jobs must be a whole number of 1 or more, not 0",
        ),
        (
            {"max_tries": 1.5},
            "WorkerSettings.max_tries must be a whole number of 1 or more, not 1.5",
        ),
        (
            {"history": 24},
            "WorkerSettings.history must be a number of hours from 0 to 8, not 24",
        ),
        ({"cron_jobs": [job]}, "WorkerSettings.cron_jobs has <function job"),
    ],
)
def test_a_setting_that_cannot_be(
    redis_url: str, attributes: dict[str, Any], error: str
) -> None:
    app = App(redis_url)
    with pytest.raises((TypeError, ValueError), match=re.escape(error)):
        app.settings(job, **attributes)
    assert app.queues.default.settings_classes == []


def test_what_is_no_setting_and_resembles_none(redis_url: str) -> None:
    """A class may have things of its own."""
    App(redis_url).settings(job, _private=1, greeting="hello", Meta=object)


async def test_keep_result_for_ever(app: App, notes: Notes) -> None:
    own = func(job, name="own", keep_result=timedelta(seconds=30))
    async with app.worker(job, own, keep_result=float("inf")):
        waiting = [await app.enqueue(name, 1, _job_id=name) for name in ("job", "own")]
        assert [await one.result(25) for one in waiting] == [1, 1]
    assert await app.redis.ttl("arq:result:job") == -1
    assert 0 < await app.redis.ttl("arq:result:own") <= 30
    await app.enqueue(job, 1, _job_id="waits")
    assert await app.lookup.abort_job("waits")
    assert await app.redis.ttl("arq:result:waits") == -1


async def test_times_as_timedelta(app: App, notes: Notes) -> None:
    times: dict[str, Any] = {
        name: timedelta(seconds=seconds)
        for name, seconds in {
            "retry_delay": 0.3,
            "job_timeout": 5,
            "lease": 1,
            "keep_result": 30,
            "keep_failed": 60,
            "health_check_interval": 1,
            "poll_delay": 0.1,
            "catch_up": 10,
            "job_completion_wait": 1,
        }.items()
    }
    async with app.worker(fail, **times):
        await app.enqueue(fail, "a", 1, _job_id="a")
        assert (await app.result_of("a"))["r"] == 2
        first, second = notes.starts("a")
        assert 0.3 <= second.at - first.at < 5  # half of the default
        await until(lambda: _is_kept(app))


async def _is_kept(app: App) -> bool:
    return 0 < int(await app.redis.ttl("arq:result:a")) <= 30
