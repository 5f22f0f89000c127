"""How calls reach Redis: those that wait at the same time travel together.

While a request is on its way, further ones collect; when it is back, they go as one. So
one connection does for any number of callers, a single caller waits for nobody, and no
caller's time-out or cancellation is another's. A caller that finds nobody sending sends
by itself, without a task and a timer; should that fail, it waits as the others do.
"""

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Sequence
from contextvars import Context
from copy import copy
from functools import partial
from operator import attrgetter
from secrets import token_hex
from typing import Any

from redis.exceptions import AuthenticationError

from ..connection import drop_replica
from ..keys import FAILED, REPLY, WAKE, with_tag_of
from ..line import Run, one_by_one
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
        self._run = one_by_one(pool.redis)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Request] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._is_sending = False
        self._large = asyncio.Lock()
        self._sending_large: set[asyncio.Task[None]] = set()
        self._unanswered: deque[_Request] = deque()  # by when they are due
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, calls: Sequence[Call]) -> bytes:
        """Queue jobs: at most BATCH_JOBS of them, or BATCH_BYTES.

        Returns:
            "1" for each that is queued, "0" for each whose id is taken.

        Raises:
            QueueUnavailableError: There was no answer within DEADLINE_S.
            redis.exceptions.RedisError: Redis refuses.
        """
        size = sum(len(call.content) for call in calls)
        due = self._loop.time() + DEADLINE_S
        token = ""
        if not self._is_sending and size < SMALL_BYTES:
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
                sending = self._loop.create_task(self._send_large(request))
                self._sending_large.add(sending)
                sending.add_done_callback(self._sending_large.discard)
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
        """Begin to send those that wait, unless somebody does."""
        if self._waiting and not self._is_sending:
            self._is_sending = True
            # Not in the caller's context: what is sent is not its alone.
            self._sending = self._loop.create_task(self._send(), context=Context())

    async def _send_alone(self, calls: Sequence[Call], token: str) -> bytes | None:
        """Try once; the answer, or None where another try is worth it."""
        self._is_sending = True
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
            self._is_sending = False
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
        try:
            while together := self._next():
                try:
                    await self._deliver(together, self._run)
                    await asyncio.sleep(0)  # who is answered may call again: together
                except BaseException as exc:  # whatever it is, nobody is left waiting
                    _fail([*together, *self._waiting], exc)
                    self._waiting.clear()
                    raise
        finally:
            self._is_sending = False

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
        while self._waiting:
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
            patience = ATTEMPT_S if size < SMALL_BYTES else DEADLINE_S
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
