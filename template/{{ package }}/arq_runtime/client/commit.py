"""Jobs that wait for the commit of a SQLAlchemy session."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

from ..context import enqueue_span
from ..queue import Queue, Task
from .calls import Call, prepare
from .client import Client


class _Waiting(NamedTuple):
    send: "_Send"
    transactions: list[SessionTransaction]
    """The one it belongs to, and those around that."""
    queue: Queue
    call: Call


_Send = Callable[[list[_Waiting]], Coroutine[Any, Any, None]]
_WAITING = "arq.waiting"
_COMMITTED = "arq.committed"


class AfterCommit:
    """Sends the jobs of a session's transaction once that has been committed."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def enqueue_after_commit(
        self,
        session: AsyncSession | async_scoped_session[AsyncSession],
        function: str | Task,
        /,
        *args: Any,
        _queue_name: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Put a job on the queue as soon as the session has been committed.

        So that the job finds the rows that it is about. It is checked and written down
        at once, and dropped when the transaction, or the savepoint around this call, is
        rolled back or closed. All jobs of a transaction go to Redis in one round trip,
        before the commit returns. This is no outbox: a crash between the two loses the
        jobs, and if Redis fails then, the commit stands and raises
        QueueUnavailableError.

        Args:
            session: The session whose commit to wait for.
            function: The task, or its name.
            args: As in enqueue, with its options.
            _queue_name: The queue of another worker settings class.
            kwargs: As in enqueue, with its options.

        Returns:
            The job's id.

        Raises:
            TypeError, ValueError: As enqueue.
        """
        target = self._client.queues.target(function, _queue_name)
        with enqueue_span(target.name, target.queue.name) as context:
            call = prepare(target, context, *args, **kwargs)
        if isinstance(session, async_scoped_session):
            session = session()
        self._wait(session.sync_session, target.queue, call)
        return call.job_id.decode()

    def _wait(self, session: Session, queue: Queue, call: Call) -> None:
        """Send a call when the session's transaction has been committed."""
        if not session.in_transaction():
            session.begin()  # or a rollback before the first SQL would not be seen
        transaction = session.get_nested_transaction() or session.get_transaction()
        transactions = []
        while transaction is not None:
            transactions.append(transaction)
            transaction = transaction.parent
        waiting = session.info.setdefault(_WAITING, [])
        waiting.append(_Waiting(self._send, transactions, queue, call))

    async def _send(self, ready: list[_Waiting]) -> None:
        for queue in dict.fromkeys(one.queue for one in ready):
            calls = [one.call for one in ready if one.queue is queue]
            await self._client.send(queue, calls)


_sending: set[asyncio.Task[None]] = set()


# Of all sessions: one cannot be given a listener while it tells its own of a commit.
@event.listens_for(Session, "after_commit")
def _note_commit(session: Session) -> None:
    transaction = session.get_nested_transaction() or session.get_transaction()
    session.info.setdefault(_COMMITTED, set()).add(transaction)


@event.listens_for(Session, "after_transaction_end")
def _send_or_drop(session: Session, transaction: SessionTransaction) -> None:
    """A transaction has ended; if it was not committed, its jobs are dropped.

    The jobs of a savepoint that was released wait for the transaction around it.
    """
    committed: set[SessionTransaction] = session.info.get(_COMMITTED, set())
    is_committed = transaction in committed
    committed.discard(transaction)
    waiting: list[_Waiting] = session.info.get(_WAITING, [])
    if transaction.parent is not None:
        if not is_committed:
            waiting[:] = [one for one in waiting if transaction not in one.transactions]
        return
    ready = waiting[:]
    waiting.clear()
    if is_committed and ready:
        await_only(asyncio.shield(_begin_to_send(ready)))


async def _send(ready: list[_Waiting]) -> None:
    for send in dict.fromkeys(one.send for one in ready):
        await send([one for one in ready if one.send == send])


def _begin_to_send(ready: list[_Waiting]) -> asyncio.Task[None]:
    """What is committed is to be queued, also when the request is cancelled."""
    task = asyncio.get_running_loop().create_task(_send(ready))
    _sending.add(task)
    task.add_done_callback(_sending.discard)
    return task
