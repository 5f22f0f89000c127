"""The outbox: jobs wait in a table of the project's database until Redis has them.

A job is a row that the session's own transaction writes: both are committed, or neither
is, however the process ends. From there worker/relay.py has it moved.
"""

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from arq.utils import timestamp_ms
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from ..connection import REDIS_ERRORS
from ..context import enqueue_span
from ..keys import OUTBOX, WAKE
from ..queue import Task
from ..server import ATTEMPT_S
from .calls import Call, prepare
from .client import Client

#: Jobs that are moved in one transaction, and in one call of `move`.
BATCH, MOVE = 100, 1000

#: Who hangs in the middle of moving, cut off from the network, say, lets go of the jobs
#: after so many milliseconds. PostgreSQL would wait for two hours.
HANGS_MS = 15_000


def outbox_table(metadata: sa.MetaData) -> sa.Table:
    """The table, in the metadata that Alembic knows. Times: milliseconds since 1970."""
    return sa.Table(
        "arq_outbox",
        metadata,
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True
        ),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, nullable=False),
        sa.Column("own_id", sa.Text, nullable=False),
        sa.Column("due", sa.BigInteger, nullable=False),  # 0 for at once
        sa.Column("expires", sa.BigInteger, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        # Or the next row gets the id of one that two relays are about to delete.
        sqlite_autoincrement=True,
        keep_existing=True,  # `python -m core.arq` is core/arq.py twice
    )


class Outbox:
    """Writes jobs into a table of `metadata`, and moves them to the client's queues."""

    def __init__(
        self,
        client: Client,
        sessions: async_sessionmaker[AsyncSession],
        metadata: sa.MetaData,
    ) -> None:
        self.table = outbox_table(metadata)
        self._client = client
        self._sessions = sessions
        self._waking: set[asyncio.Task[None]] = set()

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
        _priority: int | None = None,
        **kwargs: Any,
    ) -> str:
        """Put a job on the queue by the session's own transaction: both or neither.

        It is checked at once, and is a row of that transaction: Redis need not be
        there. A worker moves what is committed to Redis, in the order of the calls,
        within about a second.

        A move that is cut short between Redis and the database is made again. The job
        then runs a second time only where the first result is not kept any longer
        (`keep_result`), or where _replace has it take the place of whatever there is.

        Args:
            session: The session whose transaction it belongs to.
            function: As enqueue, and so are all others; _defer_by and _expires count
                from now. If the _job_id is taken at the move, the job is dropped.

        Returns:
            The job's id.

        Raises:
            TypeError, ValueError: As enqueue.
            sqlalchemy.exc.SQLAlchemyError: The row cannot be written.
        """
        target = self._client.queues.target(function, _queue_name)
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
            now, job_id = timestamp_ms(), call.job_id.decode()
            row = {
                "queue": target.queue.name,
                "job_id": job_id,
                "own_id": call.own_id or "own",  # it may be moved twice
                "due": call.due or (now + call.delay if call.delay else 0),
                "expires": now + call.expires,
                "content": call.content,
            }
            await session.execute(sa.insert(self.table).values(row))
        listening = (session.sync_session, "after_commit", self._committed)
        if not sa.event.contains(*listening):
            sa.event.listen(*listening)
        return job_id

    def _committed(self, session: Session) -> None:
        """Wake a worker; whoever commits does not wait for that."""
        task = asyncio.get_running_loop().create_task(self._wake())
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _wake(self) -> None:
        queue = self._client.queues.default
        pool = await queue.server.pool()
        with suppress(*REDIS_ERRORS):  # the workers look each second, too
            async with asyncio.timeout(ATTEMPT_S), pool.calls:
                await pool.redis.publish(queue.name + OUTBOX + WAKE, "")

    async def move(self) -> bool:
        """Move committed jobs to Redis, the oldest first: MOVE of them, at most.

        Several may do so at once. A queue whose Redis is unreachable holds up no other.

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
                oldest = sa.select(columns.queue).where(columns.queue.not_in([*held]))
                name = await session.scalar(oldest.order_by(columns.id).limit(1))
                if name is None:
                    break
                try:
                    if not await self._move(session, name):
                        held[name] = None  # by another worker
                except REDIS_ERRORS as exc:
                    held[name] = exc
                    await session.rollback()
            else:
                return True
        for error in filter(None, held.values()):
            raise error
        return False

    async def _move(self, session: AsyncSession, name: str) -> int:
        """Move a batch of one queue's jobs; how many."""
        columns = self.table.c
        if session.get_bind().dialect.name == "postgresql":
            limit = f"SET LOCAL idle_in_transaction_session_timeout = {HANGS_MS}"
            await session.execute(sa.text(limit))
        batch = sa.select(self.table).where(columns.queue == name).order_by(columns.id)
        # SQLite has no such locks: there, the ids keep jobs from running twice
        locked = batch.limit(BATCH).with_for_update(skip_locked=True)
        rows = (await session.execute(locked)).all()
        if rows:
            now = timestamp_ms()
            calls = [
                Call(
                    job_id=row.job_id.encode(),
                    own_id=row.own_id,
                    delay=0,
                    due=row.due,
                    expires=max(1, row.expires - now),  # its worker drops one too late
                    content=row.content,
                )
                for row in rows
            ]
            await self._client.send(self._client.queues.get(name), calls)
            ids = [row.id for row in rows]
            await session.execute(sa.delete(self.table).where(columns.id.in_(ids)))
        await session.commit()
        return len(rows)
