"""Jobs that wait for the commit of a SQLAlchemy session."""

import asyncio
from typing import Any, NamedTuple

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

from ..context import enqueue_span
from ..queue import Queue, Task
from .calls import Call
from .client import Client


class _Waiting(NamedTuple):
    transactions: list[SessionTransaction]
    """The one it belongs to, and those around that."""
    queue: Queue
    call: Call


_WAITING = "arq.waiting"
_COMMITTED = "arq.committed"


class AfterCommit:
    """Sends the jobs of a session's transaction once that has been committed."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._sending: set[asyncio.Task[None]] = set()

    def enqueue_after_commit(
        self,
        session: AsyncSession,
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
        queue = self._client.queues.to_send(function, _queue_name)
        with enqueue_span(function, queue.name):
            call = self._client.prepare(queue, function, *args, **kwargs)
        self._wait(session.sync_session, queue, call)
        return call.job_id.decode()

    def _wait(self, session: Session, queue: Queue, call: Call) -> None:
        """Send a call when the session's transaction has been committed."""
        if _WAITING not in session.info:
            session.info[_WAITING] = []
            session.info[_COMMITTED] = set()
            event.listen(session, "after_commit", _note_commit)
            event.listen(session, "after_transaction_end", self._send_or_drop)
        if not session.in_transaction():
            session.begin()  # or a rollback before the first SQL would not be seen
        transaction = session.get_nested_transaction() or session.get_transaction()
        transactions = []
        while transaction is not None:
            transactions.append(transaction)
            transaction = transaction.parent
        session.info[_WAITING].append(_Waiting(transactions, queue, call))

    def _send_or_drop(self, session: Session, transaction: SessionTransaction) -> None:
        """A transaction has ended; if it was not committed, its jobs are dropped.

        The jobs of a savepoint that was released wait for the transaction around it.
        """
        committed = transaction in session.info[_COMMITTED]
        session.info[_COMMITTED].discard(transaction)
        waiting: list[_Waiting] = session.info[_WAITING]
        if transaction.parent is not None:
            if not committed:
                waiting[:] = [
                    one for one in waiting if transaction not in one.transactions
                ]
            return
        ready = waiting[:]
        waiting.clear()
        if committed and ready:
            # What is committed is to be queued, also when the request is cancelled.
            task = asyncio.get_running_loop().create_task(self._send(ready))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
            await_only(asyncio.shield(task))

    async def _send(self, ready: list[_Waiting]) -> None:
        for queue in dict.fromkeys(one.queue for one in ready):
            calls = [one.call for one in ready if one.queue is queue]
            await self._client.send(queue, calls)


def _note_commit(session: Session) -> None:
    transaction = session.get_nested_transaction() or session.get_transaction()
    session.info[_COMMITTED].add(transaction)
