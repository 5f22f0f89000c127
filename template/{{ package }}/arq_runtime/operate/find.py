"""Find jobs in Redis, in steps that do not hold it up."""

import json
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from arq import ArqRedis
from arq.constants import result_key_prefix
from arq.utils import to_unix_ms

from ..keys import FAILED, WORKER, WORKERS
from ..queue import Queue
from ..scripts import run_script, script
from .info import State, Which

#: One look ends after so many jobs.
MOST = 10_000
#: A script looks at so many, in less than 5 ms: Redis does nothing else meanwhile.
STEP = 250
#: And so many where it, or what it is for, takes the numbers out of errors.
FEW = 125


class Step(NamedTuple):
    """What one script has found."""

    ids: list[bytes]
    place: int
    """Where the next one begins."""
    total: int
    looked_at: int


async def with_workers(queue: Queue, name: str, *keys: str) -> Any:
    """Run the script of this name, which looks at the workers, too."""
    names = [queue.name, queue.name + FAILED, queue.name + WORKERS, *keys]
    values = [queue.name + WORKER, MOST // 10]
    return await queue.run(script("workers", name), names, values)


async def running(queue: Queue) -> list[list[bytes]]:
    """Of each running job its id, its worker, and when it began; those first."""
    found: list[list[bytes]] = await with_workers(queue, "running")
    return sorted(found, key=lambda one: (not one[2], one[2]))


async def step(
    queue: Queue,
    state: State | Literal["oldest", "ids"],
    which: Which,
    place: int,
    given: Sequence[bytes] = (),
) -> Step:
    """What fits of the next few jobs.

    Args:
        queue: Where they are.
        state: In which they are; "oldest" are failed ones, those first; "ids", given.
        which: What else they must be.
        place: Where to begin.
        given: The ids.
    """
    is_masked = which.error or which.group or state == "oldest"
    most = FEW if is_masked else STEP
    some = given[place : place + most]
    values = [
        *(state, 0 if given else place, most, which.task),
        queue.serializer.stored_text("f", which.task),
        *(*_spellings(which.text), which.error, which.group),
        *(_ms(which.since), _ms(which.until), *some),
    ]
    keys = [queue.name, queue.name + FAILED]
    ids, count, total = await queue.run(script("mask", "list"), keys, values)
    return Step(ids, place + count, len(given) if given else total, count)


async def steps(
    queue: Queue, state: State | Literal["oldest"], which: Which, place: int
) -> AsyncIterator[Step]:
    """All that fits from this place on, as step."""
    given: Sequence[bytes] = ()
    name: State | Literal["oldest", "ids"] = state
    if state == "complete":
        complete = await _complete_ids(queue, which)
        for start in range(place, len(complete), STEP):
            ids = complete[start : start + STEP]
            yield Step(ids, start + len(ids), len(complete), len(ids))
        return
    if state == "in_progress":
        given, name = [job_id for job_id, *_ in await running(queue)], "ids"
    while True:
        found = await step(queue, name, which, place, given)
        yield found
        place = found.place
        if place >= found.total or found.looked_at == 0:
            return


async def _complete_ids(queue: Queue, which: Which) -> list[bytes]:
    """Those that fit, the newest first."""
    cursor, keys = 0, list[bytes]()
    for _ in range(100):
        pattern = f"{result_key_prefix}*"
        cursor, some = await queue.server.call(ArqRedis.scan, cursor, pattern, 1000)
        keys += some
        if cursor == 0 or len(keys) >= MOST:
            break
    values = [
        queue.serializer.stored_text("q", queue.name),
        queue.serializer.stored_text("f", which.task),
        *_spellings(which.text),
    ]
    found: list[tuple[int, bytes]] = []
    for start in range(0, len(keys), STEP):
        some = keys[start : start + STEP]
        found += await queue.server.call(run_script, script("complete"), some, values)
    return [job_id for _, job_id in sorted(found, key=lambda it: -it[0])]


def _spellings(text: str) -> tuple[str, str]:
    """A text as it is found in others, and in JSON."""
    text = text.lower()
    return text, json.dumps(text, ensure_ascii=False)[1:-1]


def _ms(time: datetime | None) -> int:
    return to_unix_ms(time) if time else 0
