"""What a worker logs: nothing gets lost, nothing is forged, nothing is told away."""

import json
import logging
from typing import Any

import pytest
from kit import App, until
from noting import Notes, job
from processes import PYTHON, Processes

#: As of a terminal of a host without any locale.
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


async def logged(
    app: App, processes: Processes, logs: str, arguments: str = "yes", **env: str
) -> str:
    """What a worker prints of a job that succeeds, and of one that fails."""
    worker = await processes.start(
        settings="json_logs.WorkerSettings",
        # by env, so that Python looks at the locale
        command=["env", PYTHON, "-m", "arq", "json_logs.WorkerSettings"],
        env={"LOGS": logs, "ARGUMENTS": arguments, **env},
    )
    await app.enqueue("job", "sesame", _job_id="good\nid")
    await app.enqueue("fail", "sesame", _job_id="bad")
    await app.result_of("good\nid")
    await app.result_of("bad")
    assert await worker.stop() == 0
    return worker.text


@pytest.mark.slow
async def test_json_has_tracebacks(app: App, processes: Processes) -> None:
    lines = (await logged(app, processes, "json")).splitlines()
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    [failure] = [entry for entry in found if "bad:fail failed" in entry["event"]]
    assert "in fail\n" in failure["exception"]
    assert failure["exception"].endswith("ValueError: no")
    assert failure["level"] == "error" and failure["job_id"] == "bad"
    assert "exc_info" not in failure and "traceback object" not in "".join(lines)


@pytest.mark.slow
async def test_the_console_keeps_its_own(app: App, processes: Processes) -> None:
    text = await logged(app, processes, "console")
    assert text.count("ValueError: no") == 2  # in the event, and in its traceback
    assert "Traceback (most recent call last)" in text


@pytest.mark.slow
@pytest.mark.parametrize("logs", ["json", "console"])
async def test_a_terminal_that_is_not_utf_8_loses_no_line(
    app: App, processes: Processes, logs: str
) -> None:
    text = await logged(app, processes, logs, **ASCII)
    assert "Logging error" not in text and "UnicodeEncodeError" not in text
    for line in ("job('sesame')", "\\u25cf", "bad:fail failed, ValueError: no"):
        assert line in text
    assert text.isascii()


@pytest.mark.slow
async def test_arguments_and_results_can_be_kept_out(
    app: App, processes: Processes
) -> None:
    text = await logged(app, processes, "console", arguments="no")
    assert "sesame" not in text
    assert "good\\nid:job(...)" in text and "bad:fail(...)" in text


@pytest.mark.parametrize("mark", ["\n", "\r", "\x1b[2J", "\u2028", "\x85"])
async def test_an_id_forges_no_line(
    app: App, notes: Notes, caplog: pytest.LogCaptureFixture, mark: str
) -> None:
    caplog.set_level(logging.INFO, "arq.worker")
    forged = f"a{mark}ERROR all is lost"
    async with app.worker(job, max_tries=1, poll_delay=0.05):
        await app.enqueue(job, "x", _job_id=forged)
        await app.result_of(forged)
        broken, expired = f"b{mark}forged", f"c{mark}forged"
        await app.put(broken, b"no job")
        await app.redis.zadd(app.queue, {expired: await app.now()})
        await app.enqueue(job, "x", 60.0, _job_id=f"d{mark}forged")
        await notes.started("x", 2)
        assert await app.lookup.abort_job(f"d{mark}forged")
        await until(lambda: app.failed(broken))
        await until(lambda: app.failed(expired))
    said = [record.getMessage() for record in caplog.records]
    assert any("ERROR all is lost" in line for line in said)
    assert not any(mark in line for line in said)
