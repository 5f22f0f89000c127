"""Batches: jobs that are queued together, and one more when all of them have ended."""

from collections.abc import Callable, Coroutine, Iterable
from inspect import iscoroutine
from secrets import token_hex
from typing import Any

from ..keys import EXPIRES_MS, with_tag_of
from ..queue import Queue
from .calls import Call
from .client import Client, collected
from .job import Job
from .sender import BATCH_JOBS

#: So long after the last of a batch would have expired, what waits for it runs all the
#: same: 30 days, in milliseconds.
GIVEN_UP_MS = 30 * 24 * 60 * 60 * 1000


class Gather:
    """Queues the batches of a project."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def gather_then(
        self,
        calls: Iterable[Coroutine[Any, Any, Any]],
        *,
        then: Callable[[list[str]], Coroutine[Any, Any, Any]],
    ) -> Job[Any] | None:
        """Put a batch of jobs on the queue, and one more that runs when all have ended.

            syncs = [job(sync_user)(user_id) for user_id in user_ids]
            await gather_then(syncs, then=job(report))

        That one is queued once, and given the ids of the batch, in their order. Each
        end counts, also that a job failed for good, was aborted or purged, or expired.
        All are queued in one step, or none is.

        Args:
            calls: At most 1,000 calls of enqueue, job(task) or enqueue_many, not
                awaited; all of one queue, and without a _job_id.
            then: What calls the other job when given the ids: job(task), say, or
                `lambda ids: enqueue("report", ids, month=3)`.

        Returns:
            That job; or None where it has a _job_id that is taken: nothing is queued.

        Raises:
            TypeError, ValueError: As enqueue; or these are no calls for a batch.
            QueueUnavailableError, redis.exceptions.RedisError: As enqueue.
        """
        coroutines = [*calls]
        try:
            batch = [one for call in coroutines for one in await _calls_of(call)]
        finally:
            for call in filter(iscoroutine, coroutines):
                call.close()  # or Python would warn of those that are not awaited
        if len(batch) > BATCH_JOBS:
            raise ValueError(
                f"gather_then takes at most {BATCH_JOBS} calls, not {len(batch)}"
            )
        if any(call.own_id for _, call in batch):
            raise ValueError("the calls of gather_then have no _job_id")
        if not callable(then):
            then.close()
            raise TypeError("then is given the ids: say then=job(task), not the call")
        name = token_hex(16)
        ids = [
            with_tag_of(queue.name, f"{name}.{number}")
            for number, (queue, _) in enumerate(batch, 1)
        ]
        queue, last = _one(await _calls_of(then(ids)))
        if others := {one.name for one, _ in batch} - {queue.name}:
            names = ", ".join(map(repr, sorted({queue.name, *others})))
            raise ValueError(f"gather_then takes calls of one queue, not of {names}")
        members = [
            call._replace(job_id=id_.encode(), own_id="gathered")
            for id_, (_, call) in zip(ids, batch, strict=True)
        ]
        if members:
            delay = max(call.expires for call in members) + GIVEN_UP_MS
            last = last._replace(delay=delay, expires=delay + EXPIRES_MS)
        if self._client.queues.run_inline is not None:
            return (await self._client.send(queue, [*members, last]))[-1]
        return (await self._client.send(queue, [last, *members]))[0]


async def _calls_of(coroutine: Coroutine[Any, Any, Any]) -> list[tuple[Queue, Call]]:
    """What it would have sent."""
    if not iscoroutine(coroutine):
        raise TypeError(
            "gather_then takes calls that are not awaited, as enqueue(...), not "
            f"{coroutine!r:.100}"
        )
    found: list[tuple[Queue, Call]] = []
    token = collected.set(found)
    try:
        await coroutine
    finally:
        collected.reset(token)
    return found


def _one(calls: list[tuple[Queue, Call]]) -> tuple[Queue, Call]:
    """The call of `then`.

    Raises:
        ValueError: There is not just one, or it has what `then` cannot have.
    """
    if len(calls) != 1:
        raise ValueError(f"then makes one call, not {len(calls)}")
    [(_, call)] = calls
    if (call.delay, call.due, call.expires) != (0, 0, EXPIRES_MS):
        raise ValueError("then starts when the others have ended: it takes no time")
    if call.own_id == "replace":
        raise ValueError("then takes no _replace")
    return calls[0]
