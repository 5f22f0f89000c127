"""How calls reach Redis: those that wait at the same time travel together.

While two round trips are under way, further calls collect; when one is back, they go as
one. Each has up to half of the calls that are unanswered: Redis works on one half while
the callers of the other go on. So one connection does for any number of callers, a
single caller waits for nobody, and no caller's time-out or cancellation is another's. A
caller that finds nobody sending sends by itself, without a task and a timer; if that
fails, it waits as the others do.
"""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from copy import copy
from functools import partial
from operator import attrgetter
from secrets import token_hex
from typing import Any

from redis.exceptions import AuthenticationError

from ..connection import drop_replica
from ..keys import FAILED, REPLY, WAKE, with_tag_of
from ..line import Line
from ..queue import Queue
from ..scripts import BATCH_BYTES, run_script, script
from ..server import (
    ATTEMPT_S,
    DEADLINE_S,
    PAUSE_S,
    Pool,
    Server,
    is_transient,
    note_trouble,
)
from .calls import Call

#: How many jobs go together at most.
BATCH_JOBS = 1000

#: What is answered within an attempt, however slow the network is.
SMALL_BYTES = BATCH_BYTES // 16

#: How many round trips are under way at most.
_TRIPS = 2

#: Runs a script: takes it, its keys and its values.
Run = Callable[..., Coroutine[Any, Any, bytes]]

_ENQUEUE = script("control", "failed", "wake", "gather", "enqueue")
_SKIPPED = (b"", "", 0, 0, 0, b"")


class _Request:
    """Jobs that one caller waits to have queued, all of them or none."""

    __slots__ = ("answer", "began", "calls", "due", "has_failed", "size", "token")

    due: float
    """By when it is to be answered."""
    began: float | None
    """When it was first sent; None while it waits for that."""
    has_failed: bool
    """Has an attempt?"""
    token: str
    """Of an attempt alone: Redis may have had it, so that it goes alone again."""

    def __init__(
        self, calls: Sequence[Call], size: int, answer: asyncio.Future[bytes]
    ) -> None:
        self.calls = calls
        self.size = size
        self.answer = answer
        self.began = None
        self.has_failed = False
        self.token = ""


class Sender:
    """Sends the jobs of one queue and one event loop."""

    def __init__(self, queue: Queue, pool: Pool) -> None:
        self._name = queue.name
        self._server: Server = queue.server
        self._pool = pool
        self._run: Run = Line(pool.redis).run
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._large = asyncio.Lock()
        # Under way:
        self._trips = 0
        self._requests = 0
        self._bytes = 0
        self._unanswered: deque[_Request] = deque()  # by when they are due
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, calls: Sequence[Call], size: int) -> bytes:
        """Queue jobs: at most BATCH_JOBS of them, or BATCH_BYTES.

        Args:
            calls: The jobs.
            size: Of all of them, in bytes.

        Returns:
            "1" for each that is queued, "0" for each whose id is taken.

        Raises:
            QueueUnavailableError: There was no answer within DEADLINE_S.
            redis.exceptions.RedisError: Redis refuses.
        """
        due = self._loop.time() + DEADLINE_S
        token = ""
        if not self._trips and size < SMALL_BYTES:
            token = self._new_token()
            reply = await self._send_alone(calls, token)
            if reply is not None:
                return reply
        answer: asyncio.Future[bytes] = self._loop.create_future()
        request = _Request(calls, size, answer)
        request.due = due
        if token:  # before those that have come meanwhile
            request.token = token
            self._waiting.appendleft(request)
            insort(self._unanswered, request, key=attrgetter("due"))
            self._stop_timer()
        else:
            self._unanswered.append(request)
            if size > BATCH_BYTES:
                self._start(self._send_large(request))
            else:
                self._waiting.append(request)
        self._begin()
        if self._timer is None:
            first_due = self._unanswered[0].due
            self._timer = self._loop.call_at(first_due, self._give_up_due)
        try:
            return await answer
        finally:
            while self._unanswered and self._unanswered[0].answer.done():
                self._unanswered.popleft()
            if not self._unanswered:
                self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        """Begin to send those that wait, unless enough is under way."""
        if self._waiting and self._trips < _TRIPS:
            self._trips += 1
            self._start(self._send()).add_done_callback(self._end)

    def _end(self, _: asyncio.Task[None]) -> None:
        self._trips -= 1
        self._begin()

    def _start(self, sending: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Not in the caller's context: what is sent is not its alone.
        task = self._loop.create_task(sending, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send_alone(self, calls: Sequence[Call], token: str) -> bytes | None:
        """Try once; the answer, or None where another try is worth it."""
        self._trips += 1
        self._requests += 1
        try:
            values = [value for call in calls for value in call]
            async with asyncio.timeout(ATTEMPT_S):
                keys = self._keys(token)
                reply: bytes = await self._run(_ENQUEUE, keys, values)
            self._pool.trouble = None
            return reply
        except Exception as exc:
            if not is_transient(exc):
                raise
            if not isinstance(exc, TimeoutError):  # the loop may have been busy
                await self._note_failure(exc)
            if isinstance(exc, AuthenticationError):
                raise self._server.unavailable(self._pool) from None
            return None
        finally:
            self._trips -= 1
            self._requests -= 1
            self._begin()

    def _new_token(self) -> str:
        return REPLY + with_tag_of(self._name, token_hex(16))

    def _keys(self, token: str) -> list[str]:
        return [self._name, self._name + FAILED, self._name + WAKE, token]

    async def _note_failure(self, exc: Exception) -> None:
        await drop_replica(self._pool.redis, exc)
        note_trouble(self._pool, exc)

    def _give_up_due(self) -> None:
        """Give up calls that have waited long enough, and not for this loop alone."""
        now = self._loop.time()
        later: list[_Request] = []
        while self._unanswered and self._unanswered[0].due <= now:
            request = self._unanswered.popleft()
            is_silent = request.began is not None and now - request.began > ATTEMPT_S
            if is_silent or request.has_failed or self._pool.trouble is not None:
                self._give_up(request.answer)
            elif not request.answer.done():
                later.append(request)
        self._unanswered.extendleft(reversed(later))
        self._timer = None
        if self._unanswered:
            again_at = max(self._unanswered[0].due, now + PAUSE_S)
            self._timer = self._loop.call_at(again_at, self._give_up_due)

    def _give_up(self, answer: asyncio.Future[bytes]) -> None:
        if not answer.done():
            answer.set_exception(self._server.unavailable(self._pool))

    async def _send(self) -> None:
        while together := self._next():
            self._begin()
            size = sum(request.size for request in together)
            self._requests += len(together)
            self._bytes += size
            try:
                await self._deliver(together, self._run)
                await asyncio.sleep(0)  # who is answered may call again: together
            except BaseException as exc:  # whatever it is, nobody is left waiting
                _fail([*together, *self._waiting], exc)
                self._waiting.clear()
                raise
            finally:
                self._requests -= len(together)
                self._bytes -= size

    async def _send_large(self, request: _Request) -> None:
        """Send a job that may be more than Redis, or the network, takes.

        One at a time, and beside the others: it holds up none of them.
        """
        try:
            async with self._large:
                run = partial(run_script, self._pool.redis)
                await self._deliver([request], run)
        except BaseException as exc:
            _fail([request], exc)
            raise

    def _next(self) -> list[_Request]:
        """The requests that travel together now: those that came first.

        Empty where nobody waits, or all who did have given up.
        """
        jobs = size = 0
        together: list[_Request] = []
        half = (self._requests + len(self._waiting) + 1) // 2
        while self._waiting and len(together) < half:
            request = self._waiting[0]
            if not request.answer.done():
                jobs += len(request.calls)
                size += request.size
                is_full = jobs > BATCH_JOBS or size > BATCH_BYTES or request.token
                if together and is_full:
                    break
                together.append(request)
            self._waiting.popleft()
            if request.token:
                break
        return together

    async def _deliver(self, together: list[_Request], run: Run) -> None:
        """Send until there is an answer, or nobody waits for it any more."""
        keys = self._keys(together[0].token or self._new_token())
        while not all(request.answer.done() for request in together):
            values: list[Any] = []
            size = 0
            for request in together:
                if request.began is None:
                    request.began = self._loop.time()
                is_wanted = not request.answer.done()
                size += request.size if is_wanted else 0
                for call in request.calls:
                    values += call if is_wanted else _SKIPPED
            is_small = max(size, self._bytes) < SMALL_BYTES
            patience = ATTEMPT_S if is_small else DEADLINE_S
            try:
                async with asyncio.timeout(patience):
                    reply = await run(_ENQUEUE, keys, values)
            except Exception as exc:
                if not is_transient(exc):
                    return _fail(together, exc)
                await self._note_failure(exc)
                for request in together:
                    request.has_failed = True
                if isinstance(exc, AuthenticationError):
                    return self._give_all_up(together)
                await asyncio.sleep(PAUSE_S)
            else:
                self._pool.trouble = None
                return _answer(together, reply)

    def _give_all_up(self, together: list[_Request]) -> None:
        for request in together:
            self._give_up(request.answer)


def _answer(together: list[_Request], reply: bytes) -> None:
    start = 0
    for request in together:
        end = start + len(request.calls)
        if not request.answer.done():
            request.answer.set_result(reply[start:end])
        start = end


def _fail(together: list[_Request], exc: BaseException) -> None:
    for request in together:
        if not request.answer.done():
            # One for each: they are raised at the same time.
            own = copy(exc).with_traceback(exc.__traceback__)
            request.answer.set_exception(own)
