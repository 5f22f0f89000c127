"""One event of a job that has failed for good, and one trace with its caller.

Sentry patches arq as it is initialized, with the first event loop and for good: so the
worker has a process of its own.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentry_sdk
from kit import QUEUE, App
from processes import Processes
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

pytestmark = pytest.mark.slow

TASKS = ["works", "fails", "recovers", "picky", "leaves", "slow", "stubborn"]


class Recording(Transport):
    """Keeps the transactions."""

    found: list[Any]

    def capture_envelope(self, envelope: Envelope) -> None:
        self.found += [item.payload.json for item in envelope.items]


@pytest.fixture
def transactions() -> Iterator[list[Any]]:
    """What Sentry sends from here: initialized, but nothing is patched."""
    Recording.found = []
    sentry_sdk.init(
        "http://key@localhost/1",
        transport=Recording,
        traces_sample_rate=1,
        default_integrations=False,
    )
    yield Recording.found
    sentry_sdk.get_client().close()
    sentry_sdk.get_global_scope().set_client(None)


@pytest.mark.parametrize("order", ["first", "last"])
async def test_of_a_job_that_failed_for_good_there_is_one_event(
    app: App,
    processes: Processes,
    transactions: list[Any],
    tmp_path: Path,
    order: str,
) -> None:
    with sentry_sdk.start_transaction(name="request") as request:
        for name in (*TASKS, "gone"):
            await app.enqueue(name, _job_id=name)
        await app.client.enqueue_many("recovers", [{"_job_id": "one of many"}])
        await app.enqueue("works", _job_id="killed")
    # as three killed workers leave it; and a job that had expired before it began
    await app.redis.set("arq:retry:killed", 3)
    await app.redis.zadd(QUEUE, {"expired": 1})

    recorded = tmp_path / "recorded"
    worker = await processes.start(
        "--burst",
        settings=f"sentry_{order}.WorkerSettings",
        env={"RECORDED": str(recorded)},
        ready=False,
    )
    assert await worker.exit_code(120) == 0
    found = [json.loads(line) for line in recorded.read_text().splitlines()]
    events = [one for one in found if "exception" in one]
    errors: dict[str, list[str]] = {}
    for event in events:
        last = event["exception"]["values"][-1]
        text = f"{last['type']}: {last['value']}"
        errors.setdefault(event["tags"]["arq_task_id"], []).append(text)
    killed = "its worker was killed, or cut off from Redis, while it ran"
    assert errors == {
        "killed": [f"JobExecutionFailed: max 3 retries exceeded: {killed}"],
        "fails": ["ValueError: try 3"],
        "picky": ["KeyError: 'at once'"],
        "leaves": ["SystemExit: 3"],
        "slow": ["TimeoutError: "],
        "stubborn": ["TimeoutError: "],
        "gone": ["JobExecutionFailed: function 'gone' not found"],
        "expired": ["JobExecutionFailed: job expired"],
    }, worker.text
    fails = next(one for one in events if one["tags"]["arq_task_id"] == "fails")
    crumbs = [one["message"] for one in fails["breadcrumbs"]["values"]]
    assert "ValueError: try 2" in crumbs
    assert fails["transaction"] == "fails"

    # --- The trace
    [sent] = [one for one in transactions if one.get("type") == "transaction"]
    tries: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        if one.get("type") == "transaction":
            assert one["contexts"]["trace"]["trace_id"] == request.trace_id
            tries.setdefault(one["transaction"], []).append(one["contexts"]["trace"])
    spans = {span["description"]: span for span in sent["spans"]}
    assert spans["works"]["op"] == "queue.submit.arq"
    [works] = tries["works"]
    assert works["parent_span_id"] in {span["span_id"] for span in sent["spans"]}
    assert works["status"] == "ok"
    statuses = [one["status"] for one in tries["recovers"]]
    assert sorted(statuses) == ["aborted", "aborted", "ok", "ok"]
    assert {one["status"] for one in tries["fails"]} == {"aborted", "internal_error"}
