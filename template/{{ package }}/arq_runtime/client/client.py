"""What an application does with the queue: enqueue, look up, abort, forget."""

from __future__ import annotations

from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

from ..context import enqueue_span
from ..queue import Queue, Queues, Task
from ..scripts import BATCH_BYTES
from .calls import Call, prepare
from .job import Job, R
from .sender import BATCH_JOBS, Sender

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
Context = dict[str, Any]

#: Where calls go instead of to Redis, while gather_then asks what they are.
collected: ContextVar[list[tuple[Queue, Call]] | None] = ContextVar(
    "collected", default=None
)


class TypedCall(Protocol[P, R_co]):
    """A call of a task, a coroutine function or a plain one; for type checkers.

    Two classes with two overloads each, instead of four overloads of Client.job: there,
    mypy takes the `Any` of a `dict[str, Any]` for a doubt between them, and gives up.
    """

    @overload
    def __call__(
        self: TypedCall[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Job[R]]: ...

    @overload
    def __call__(
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Job[R_co]]: ...


class TypedUniqueCall(Protocol[P, R_co]):
    """The same with a _job_id, which may be taken."""

    @overload
    def __call__(
        self: TypedUniqueCall[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Job[R] | None]: ...

    @overload
    def __call__(
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, Job[R_co] | None]: ...


class Client:
    """Puts jobs on the queues of a project."""

    def __init__(self, queues: Queues) -> None:
        self.queues = queues

    async def enqueue(
        self,
        function: str | Task,
        /,
        *args: Any,
        _job_id: str | None = None,
        _replace: bool = False,
        _queue_name: str | None = None,
        _defer_by: float | timedelta | None = None,
        _defer_until: datetime | None = None,
        _expires: float | timedelta | None = None,
        _priority: int | None = None,
        **kwargs: Any,
    ) -> Job[Any] | None:
        """Put a job on the queue.

        Args:
            function: The task, or its name.
            _job_id: An id of your own: while a job with it is queued, running, or its
                result is kept, another one is not queued.
            _replace: Take the place of an earlier job with this _job_id: one that waits
                gets the new arguments and time, one that has ended is forgotten. One
                that runs is left. With _defer_by, this is a debounce.
            _queue_name: The queue of another worker settings class; by default that of
                the class which has the task.
            _defer_by: Run it this many seconds from now.
            _defer_until: Run it at this time; in UTC where it has no time zone.
            _expires: Drop it if it has not started after this many seconds (by default
                7 days after it was due).
            _priority: From 0 to 9: jobs with a higher one start first. By default that
                of the task, or 0.

        Returns:
            The job, or None when there is one with this _job_id already.

        Raises:
            TypeError: The task does not take these arguments, or one of them could not
                arrive as it is; says which, and why.
            ValueError: There is no such task or queue; or an option makes no sense.
            QueueUnavailableError: Redis could not be reached for 5 seconds. A
                redis.exceptions.ConnectionError.
            redis.exceptions.RedisError: Redis refuses, being out of memory, say.
        """
        target = self.queues.target(function, _queue_name)
        with enqueue_span(target.name, target.queue.name) as context:
            call = prepare(
                target,
                context,
                *args,
                _job_id=_job_id,
                _replace=_replace,
                _defer_by=_defer_by,
                _defer_until=_defer_until,
                _expires=_expires,
                _priority=_priority,
                **kwargs,
            )
            return (await self.send(target.queue, [call]))[0]

    @overload
    def job(  # type: ignore[overload-overlap]
        self,
        task: Callable[Concatenate[Context, P], R_co],
        *,
        _job_id: None = None,
        _queue_name: str | None = None,
        _defer_by: float | timedelta | None = None,
        _defer_until: datetime | None = None,
        _expires: float | timedelta | None = None,
        _priority: int | None = None,
    ) -> TypedCall[P, R_co]: ...

    @overload
    def job(
        self,
        task: Callable[Concatenate[Context, P], R_co],
        *,
        _job_id: str | None,
        _replace: bool = False,
        _queue_name: str | None = None,
        _defer_by: float | timedelta | None = None,
        _defer_until: datetime | None = None,
        _expires: float | timedelta | None = None,
        _priority: int | None = None,
    ) -> TypedUniqueCall[P, R_co]: ...

    def job(self, task: Callable[..., Any], **options: Any) -> Any:
        """A call of a task that a type checker knows: arguments and result.

            job = await job(send_welcome_email, _defer_by=60)(user_id=1)

        Args:
            task: The task.
            options: As enqueue.

        Returns:
            What takes the task's arguments, and does as enqueue.
        """

        def call(*args: Any, **kwargs: Any) -> Coroutine[Any, Any, Job[Any] | None]:
            return self.enqueue(task, *args, **options, **kwargs)

        return call

    async def enqueue_many(
        self,
        function: str | Task,
        calls: Iterable[Mapping[str, Any]],
        *,
        _queue_name: str | None = None,
    ) -> list[Job[Any] | None]:
        """Put many jobs of one task on the queue: up to 1,000 in a round trip.

        Args:
            function: The task, or its name.
            calls: The keyword arguments of each job, and options of enqueue if wanted:
                `[{"user_id": 1}, {"user_id": 2, "_defer_by": 60}]`.
            _queue_name: The queue of another worker settings class.

        Returns:
            What enqueue returns, for each call.

        Raises:
            As enqueue. Nothing is queued when a call is at fault. When Redis fails, the
            first ones may have been queued.
        """
        target = self.queues.target(function, _queue_name)
        with enqueue_span(target.name, target.queue.name) as context:
            prepared = [prepare(target, context, **one) for one in calls]
            return await self.send(target.queue, prepared)

    async def send(self, queue: Queue, calls: Sequence[Call]) -> list[Job[Any] | None]:
        """Put prepared jobs on their queue; None for one whose id is taken.

        Raises:
            QueueUnavailableError, redis.exceptions.RedisError: As enqueue.
        """
        if (found := collected.get()) is not None:
            found += [(queue, call) for call in calls]
            return [None] * len(calls)
        if self.queues.run_inline is not None:
            return [await self.queues.run_inline(queue, call) for call in calls]
        pool = await queue.server.pool()
        sender: Sender | None = pool.local.get(queue.name)
        if sender is None:
            sender = pool.local[queue.name] = Sender(queue, pool)
        replies = b"".join([await sender.send(*one) for one in _batches(calls)])
        read = queue.serializer.deserialize
        return [
            Job(call.job_id.decode(), pool.redis, queue.name, read)
            if is_new == ord("1")
            else None
            for call, is_new in zip(calls, replies, strict=True)
        ]


def _batches(calls: Sequence[Call]) -> Iterator[tuple[Sequence[Call], int]]:
    """What can be sent at once, and its size in bytes."""
    start = size = 0
    for index, call in enumerate(calls):
        more = len(call.content)
        is_full = index - start == BATCH_JOBS or size + more > BATCH_BYTES
        if is_full and index > start and call.own_id != "gathered":
            yield calls[start:index], size
            start, size = index, 0
        size += more
    if calls:
        yield calls[start:], size
