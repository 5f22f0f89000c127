"""The outbox: jobs wait in a table of the project's database until Redis has them.

A job is a row that the session's own transaction writes: both are committed, or neither
is, however the process ends. From there worker/relay.py has it moved.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from arq.utils import timestamp_ms
from sqlalchemy import (
    BigInteger,
    Column,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    Table,
    Text,
    delete,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from ..connection import UNREACHABLE
from ..context import enqueue_span
from ..keys import OUTBOX, WAKE
from ..queue import Task
from ..server import ATTEMPT_S
from .calls import Call
from .client import Client

#: Jobs that are moved in one transaction, and in one call of `move`.
BATCH, MOVE = 100, 1000

#: A relay that hangs in a transaction, cut off from the network, say, lets go of its
#: jobs after so many milliseconds. PostgreSQL would wait for two hours.
HANGS_MS = 15_000


def outbox_table(metadata: MetaData) -> Table:
    """The table, in the project's metadata, where Alembic finds it. Times in ms."""
    return Table(
        "arq_outbox",
        metadata,
        Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
        Column("queue", Text, nullable=False),
        Column("job_id", Text, nullable=False),
        Column("own_id", Text, nullable=False),
        Column("due", BigInteger, nullable=False),  # since 1970; 0 for at once
        Column("expires", BigInteger, nullable=False),  # since 1970
        Column("content", LargeBinary, nullable=False),
        # Or the next row gets the id of one that two relays are about to delete.
        sqlite_autoincrement=True,
        keep_existing=True,  # `python -m core.arq` is core/arq.py twice
    )


class Outbox:
    """Writes jobs into the table, and moves them to Redis.

    Args:
        client: Of the project's queues.
        sessions: Makes sessions to move jobs with.
        metadata: That of the project's tables.
    """

    def __init__(
        self,
        client: Client,
        sessions: async_sessionmaker[AsyncSession],
        metadata: MetaData,
    ) -> None:
        self.table = outbox_table(metadata)
        self._client = client
        self._sessions = sessions
        self._waking: set[asyncio.Task[None]] = set()

    # --- Writing

    async def enqueue_in(
        self,
        session: AsyncSession,
        function: str | Task,
        /,
        *args: Any,
        _job_id: str | None = None,
        _replace: bool = False,
        _queue_name: str | None = None,
        _defer_by: float | timedelta | None = None,
        _defer_until: datetime | None = None,
        _expires: float | timedelta | None = None,
        **kwargs: Any,
    ) -> str:
        """Put a job on the queue by the session's own transaction: both or neither.

        It is checked at once, and is a row of that transaction: a crash at any moment
        leaves both or none, and Redis need not be there. A worker moves what is
        committed to Redis, in the order of the calls, within about a second.

        A job is moved once, unless that is cut short between Redis and the database:
        it is then moved again, and runs a second time only where its first result is
        not kept any longer (`keep_result`). One with _replace takes the place of
        whatever there is by then, itself included.

        Args:
            session: The session whose transaction it belongs to.
            function: The task, or its name.
            args: Of the task, as kwargs.
            _job_id: As enqueue; if it is taken by then, the job is dropped.
            _replace: As enqueue.
            _queue_name: As enqueue.
            _defer_by: Run it this many seconds from now, by this machine's clock.
            _defer_until: As enqueue.
            _expires: As enqueue, from now on.
            kwargs: Of the task.

        Returns:
            The job's id.

        Raises:
            TypeError, ValueError: As enqueue.
            sqlalchemy.exc.SQLAlchemyError: The row cannot be written.
        """
        queue = self._client.queues.to_send(function, _queue_name)
        with enqueue_span(function, queue.name):
            call = self._client.prepare(
                queue,
                function,
                *args,
                _job_id=_job_id,
                _replace=_replace,
                _defer_by=_defer_by,
                _defer_until=_defer_until,
                _expires=_expires,
                **kwargs,
            )
            now = timestamp_ms()
            row = {
                "queue": queue.name,
                "job_id": call.job_id.decode(),
                # Its own id even if it is a new one: it may be moved twice.
                "own_id": call.own_id or "own",
                "due": call.due or (now + call.delay if call.delay else 0),
                "expires": now + call.expires,
                "content": call.content,
            }
            await session.execute(insert(self.table).values(row))
        if not event.contains(session.sync_session, "after_commit", self._committed):
            event.listen(session.sync_session, "after_commit", self._committed)
        return call.job_id.decode()

    def _committed(self, session: Session) -> None:
        """Wake a worker; whoever commits does not wait for that."""
        task = asyncio.get_running_loop().create_task(self._wake())
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _wake(self) -> None:
        queue = self._client.queues.default
        pool = await queue.server.pool()
        with suppress(*UNREACHABLE):  # the workers look each second, too
            async with asyncio.timeout(ATTEMPT_S), pool.calls:
                await pool.redis.publish(queue.name + OUTBOX + WAKE, "")

    # --- Moving

    async def move(self) -> bool:
        """Move committed jobs to Redis, the oldest first: about MOVE of them.

        Several may do so at once. A queue whose Redis is away holds up no other.

        Returns:
            Whether there may be more.

        Raises:
            redis.exceptions.RedisError, OSError: Some wait still, for their Redis.
            sqlalchemy.exc.SQLAlchemyError: The table cannot be read.
        """
        columns = self.table.c
        held: dict[str, Exception | None] = {}
        async with self._sessions() as session:
            for _ in range(MOVE // BATCH):
                oldest = select(columns.queue).where(columns.queue.not_in([*held]))
                oldest = oldest.order_by(columns.id).limit(1)
                name: str | None = await session.scalar(oldest)
                if name is None:
                    break
                try:
                    if not await self._move(session, name):
                        held[name] = None  # by another worker
                except UNREACHABLE as exc:
                    held[name] = exc
                    await session.rollback()
            else:
                return True
        for error in filter(None, held.values()):
            raise error
        return False

    async def _move(self, session: AsyncSession, name: str) -> int:
        """Move jobs of one queue; how many."""
        columns = self.table.c
        if session.get_bind().dialect.name == "postgresql":
            limit = f"SET LOCAL idle_in_transaction_session_timeout = {HANGS_MS}"
            await session.execute(text(limit))
        rows = (
            await session.execute(
                select(self.table)
                .where(columns.queue == name)
                .order_by(columns.id)
                .limit(BATCH)
                .with_for_update(skip_locked=True)  # which SQLite does without
            )
        ).all()
        if rows:
            await self._client.send(self._client.queues.get(name), _calls(rows))
            ids = [row.id for row in rows]
            await session.execute(delete(self.table).where(columns.id.in_(ids)))
        await session.commit()
        return len(rows)


def _calls(rows: Sequence[Row[Any]]) -> list[Call]:
    now = timestamp_ms()
    return [
        Call(
            job_id=row.job_id.encode(),
            own_id=row.own_id,
            delay=0,
            due=row.due,
            expires=max(1, row.expires - now),  # too late: its worker drops it
            content=row.content,
        )
        for row in rows
    ]
