"""An outbox in a database, and processes that write to it and move it, and are killed.

    python outbox_kit.py REDIS_URL DATABASE_URL TOTAL DIRECTORY

makes so many transactions: two writers and two processes that move what is committed, of
which one, at random, is killed after every few transactions, and replaced.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arq_runtime.client.calls import Call
from arq_runtime.client.client import Client
from arq_runtime.client.outbox import Outbox
from arq_runtime.queue import Queue
from arq_runtime.worker.relay import Relay
from kit import App
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine


class Slow(Client):
    """Takes its time to send, and to go on: what meets it in the middle is found."""

    async def send(self, queue: Queue, calls: Sequence[Call]) -> Any:
        await asyncio.sleep(random.uniform(0, 0.02))
        sent = await super().send(queue, calls)
        await asyncio.sleep(random.uniform(0, 0.02))
        return sent


class Database:
    """A project's database, with one table beside the outbox.

    Args:
        app: Whose jobs are written.
        url: Of the database.
        client: Instead of the application's own.
    """

    def __init__(self, app: App, url: str, client: Client | None = None) -> None:
        self.engine = create_async_engine(url)
        self.sessions = async_sessionmaker(self.engine)
        self.metadata = MetaData()
        self.orders = Table(
            "orders", self.metadata, Column("n", Integer, primary_key=True)
        )
        self.outbox = Outbox(client or app.client, self.sessions, self.metadata)
        self.relay = Relay(app.queues.default, self.outbox.move)

    async def create(self) -> None:
        """Make the tables, empty."""
        async with self.engine.begin() as connection:
            await connection.run_sync(self.metadata.drop_all)
            await connection.run_sync(self.metadata.create_all)

    async def order(
        self, n: int, *, commit: bool = True, task: Any = "job", **options: Any
    ) -> str:
        """A transaction with a row, and a job for it; the job's id."""
        async with self.sessions() as session:
            await session.execute(insert(self.orders).values(n=n))
            job_id = await self.outbox.enqueue_in(session, task, n, **options)
            await (session.commit() if commit else session.rollback())
        return job_id

    async def ordered(self) -> list[int]:
        """What is committed."""
        async with self.sessions() as session:
            return [*await session.scalars(select(self.orders.c.n))]

    async def waiting(self) -> int:
        """How many jobs are in the outbox."""
        async with self.sessions() as session:
            count = select(func.count()).select_from(self.outbox.table)
            return int(await session.scalar(count) or 0)


# --- Killed ---------------------------------------------------------------------------

WRITERS = 2
#: At least so many transactions are tried between two kills.
STEP = 10


async def write(database: Database, log: Path, writer: int, total: int) -> None:
    """Go on where the writer before was killed; every third is rolled back."""
    tried = log.read_text().split() if log.exists() else []
    for n in range(writer + WRITERS * len(tried), total, WRITERS):
        with log.open("a") as file:
            file.write(f"{n}\n")
        await database.order(n, commit=n % 3 != 0)


async def move(database: Database) -> None:
    while True:  # not by turns: a killed one would hold up the others
        await database.outbox.move()
        await asyncio.sleep(0.05)


def start(number: int, urls: list[str], total: int, directory: Path) -> int:
    """A process that writes, or moves; its id."""
    if pid := os.fork():
        return pid
    try:

        async def main() -> None:
            app = App(urls[0])
            database = Database(app, urls[1], Slow(app.queues))
            if number < WRITERS:
                await write(database, directory / f"tried-{number}", number, total)
            else:
                await move(database)

        asyncio.run(main())
        os._exit(0)
    finally:
        os._exit(1)


def main(redis_url: str, database_url: str, total: int, directory: Path) -> None:
    urls = [redis_url, database_url]
    create_async_engine(database_url)  # imports the driver here, not in each process
    pids = {n: start(n, urls, total, directory) for n in range(WRITERS + 2)}
    kills = tried = 0
    while any(number < WRITERS for number in pids):
        time.sleep(0.1)
        number = random.choice([*pids])
        ended, status = os.waitpid(pids[number], os.WNOHANG)
        if ended:
            if status or number >= WRITERS:
                sys.exit(f"process {number} has ended: {status}")
            del pids[number]
            continue
        lines = sum(len(log.read_text().split()) for log in directory.glob("tried-*"))
        if lines < tried + STEP:  # a busy machine: let them come that far
            continue
        kills, tried = kills + 1, lines
        os.kill(pids[number], signal.SIGKILL)
        os.waitpid(pids[number], 0)
        pids[number] = start(number, urls, total, directory)
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(kills)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]))
