"""The outbox: a row and its job are committed together, or neither is."""

import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from arq_runtime.client import outbox as outbox_module
from arq_runtime.client import sender
from arq_runtime.client.calls import Call
from arq_runtime.client.client import Client
from arq_runtime.connection import parse_redis_url
from arq_runtime.queue import Queue, Queues
from arq_runtime.worker import relay as relay_module
from kit import QUEUE, WAIT_S, App, until
from noting import Notes, job
from outbox_kit import Database, Slow
from processes import PATHS
from redis.exceptions import RedisError
from support import OwnRedis, free_port

pytestmark = pytest.mark.slow

BOTH = ("sqlite", "postgresql")


@pytest.fixture(params=BOTH)
def database_at(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database, SQLite and then PostgreSQL."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/shop.db?timeout=60"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
async def database(app: App, database_at: str) -> AsyncIterator[Database]:
    """The tables, empty."""
    found = Database(app, database_at)
    await found.create()
    yield found
    await found.engine.dispose()


async def is_empty(database: Database) -> bool:
    return await database.waiting() == 0


# --- With the transaction -------------------------------------------------------------


async def test_a_job_comes_with_its_transaction_or_not_at_all(
    app: App, database: Database, notes: Notes
) -> None:
    async with app.worker(job, relay=database.relay):
        async with database.sessions() as session:
            await database.outbox.enqueue_in(session, job, "committed")
            async with session.begin_nested() as savepoint:
                await database.outbox.enqueue_in(session, job, "to a savepoint")
                await savepoint.rollback()
            async with session.begin_nested():
                await database.outbox.enqueue_in(session, job, "released")
            assert await app.queued() == 0
            await session.commit()
            await database.outbox.enqueue_in(session, job, "rolled back")
            await session.rollback()
            await database.outbox.enqueue_in(session, job, "closed")
        await notes.ended("committed")
        await notes.ended("released")
        await until(lambda: is_empty(database))
    assert len(notes.starts()) == 2


async def test_a_call_is_checked_at_once(app: App, database: Database) -> None:
    app.settings(job)
    async with database.sessions() as session:
        with pytest.raises(ValueError, match=r"no task 'jop'.*did you mean 'job'"):
            await database.outbox.enqueue_in(session, "jop", 1)
        with pytest.raises(TypeError, match="missing a required argument: 'name'"):
            await database.outbox.enqueue_in(session, job)
        with pytest.raises(ValueError, match="_defer_by is from 0 to 100 years"):
            await database.outbox.enqueue_in(session, job, 1, _defer_by=-1)
        await session.commit()
    assert await database.waiting() == 0


async def test_the_options_are_those_of_enqueue(
    app: App, database: Database, notes: Notes
) -> None:
    before = time.time() * 1000
    later = await database.order(1, _defer_by=60)
    await database.order(2, _job_id="own")
    await database.order(3, _job_id="own")
    await database.order(4, _job_id="own", _replace=True)
    await database.order(5, _expires=0.05)
    await asyncio.sleep(0.1)
    await database.outbox.move()
    due = await app.redis.zscore(QUEUE, later)
    assert before - 1 <= due - 60_000 <= time.time() * 1000
    async with app.worker(job):
        await notes.ended(4)
        await until(lambda: app.redis.exists("arq:result:own"))
    assert [event.name for event in notes.starts()] == ["4"]


# --- On its way -----------------------------------------------------------------------


async def test_a_commit_wakes_a_worker(
    app: App, database: Database, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_module, "POLL_S", 600)
    async with app.worker(job, relay=database.relay):
        channel = f"{QUEUE}:outbox:wake"

        async def is_listening() -> bool:
            [(_, count)] = await app.redis.pubsub_numsub(channel)
            return bool(count)

        await until(is_listening)
        await asyncio.sleep(0.2)  # for its first look to be over
        await database.order(1)
        await notes.ended(1)


async def test_whoever_commits_needs_no_redis(
    app: App, database: Database, database_at: str, notes: Notes
) -> None:
    """The worker finds it by itself, within a second or so."""
    elsewhere = App(f"redis://127.0.0.1:{free_port()}/1")
    other = Database(elsewhere, database_at)
    async with app.worker(job, relay=database.relay):
        await other.order(1)
        await notes.ended(1)
    await other.engine.dispose()
    await elsewhere.close()


async def test_a_burst_runs_what_is_committed(
    app: App, database: Database, notes: Notes
) -> None:
    for n in range(3):
        await database.order(n)
    await app.burst(job, relay=database.relay)
    assert len(notes.ends()) == 3


async def test_order_with_two_relays(
    app: App,
    database: Database,
    database_at: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "BATCH", 3)
    ids = [(await database.order(n)).encode() for n in range(100)]
    two = [Database(app, database_at, Slow(app.queues)) for _ in range(2)]
    relays = [asyncio.create_task(one.relay(False)) for one in two]

    await until(lambda: is_empty(database))
    for task in relays:
        task.cancel()
    await asyncio.wait(relays)
    assert await app.redis.zrange(QUEUE, 0, -1) == ids
    for one in two:
        await one.engine.dispose()


async def test_several_move_at_the_same_time(
    app: App, database: Database, database_at: str, notes: Notes
) -> None:
    """Without turns: as when one is held up for so long that another takes over."""
    others = [Database(app, database_at) for _ in range(3)]
    for n in range(300):
        await database.order(n)
    async with app.worker(job, max_jobs=50):
        await asyncio.gather(*[one.outbox.move() for one in (database, *others)])
        await until(lambda: len(notes.ends()) >= 300)
    assert await database.waiting() == 0
    assert Counter(event.name for event in notes.starts()).most_common(1)[0][1] == 1
    for one in others:
        await one.engine.dispose()


# --- What breaks ----------------------------------------------------------------------


class KilledError(BaseException):
    """As if the process had ended."""


class Dying(Client):
    """Ends once Redis has the jobs."""

    async def send(self, queue: Queue, calls: Sequence[Call]) -> Any:
        await super().send(queue, calls)
        raise KilledError


class Overtaken(Client):
    """While it sends first, others move the same jobs, and there is a new one."""

    others: list[Database]

    async def send(self, queue: Queue, calls: Sequence[Call]) -> Any:
        await super().send(queue, calls)
        if self.others:
            other = self.others.pop()
            await other.outbox.move()
            await other.order(2)


class Hanging(Client):
    """Sends nothing, and never returns."""

    def __init__(self, queues: Queues) -> None:
        super().__init__(queues)
        self.hangs = asyncio.Event()

    async def send(self, queue: Queue, calls: Sequence[Call]) -> Any:
        self.hangs.set()
        await asyncio.sleep(600)


@pytest.mark.parametrize("has_ended", [False, True])
async def test_a_relay_that_dies_between_redis_and_the_database(
    app: App, database: Database, database_at: str, notes: Notes, has_ended: bool
) -> None:
    dying = Database(app, database_at, Dying(app.queues))
    await database.order(1)
    with pytest.raises(KilledError):
        await dying.outbox.move()
    assert await database.waiting() == 1
    if has_ended:
        await app.burst(job)
    await database.outbox.move()
    await app.burst(job)
    assert len(notes.starts()) == 1
    assert await database.waiting() == 0
    await dying.engine.dispose()


async def test_a_relay_that_is_overtaken_deletes_no_other_job(
    app: App, database: Database, database_at: str, notes: Notes
) -> None:
    """SQLite would give the id of a deleted row to the next one."""
    client = Overtaken(app.queues)
    client.others = [database]
    overtaken = Database(app, database_at, client)
    await database.order(1)
    await overtaken.outbox.move()
    await database.outbox.move()
    await app.burst(job)
    assert sorted(event.name for event in notes.starts()) == ["1", "2"]
    await overtaken.engine.dispose()


async def test_a_relay_that_hangs_lets_go(
    app: App,
    postgresql_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = Database(app, postgresql_url)
    await database.create()
    await database.order(1)

    @asynccontextmanager
    async def one_that_hangs(most_ms: int) -> AsyncIterator[None]:
        monkeypatch.setattr(outbox_module, "HANGS_MS", most_ms)
        client = Hanging(app.queues)
        hanging = Database(app, postgresql_url, client)
        task = asyncio.create_task(hanging.outbox.move())
        await asyncio.wait_for(client.hangs.wait(), WAIT_S)
        yield
        task.cancel()
        await asyncio.wait([task])
        await hanging.engine.dispose()

    async def is_moved() -> bool:
        await database.outbox.move()
        return await app.queued() == 1

    async with one_that_hangs(600_000):
        assert not await is_moved()
    async with one_that_hangs(500):
        await until(is_moved)
    await database.engine.dispose()


async def test_a_queue_whose_redis_is_away_holds_up_no_other(
    app: App, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "DEADLINE_S", 0.3)
    app.settings(job)
    away = parse_redis_url(f"redis://127.0.0.1:{free_port()}/1")
    app.settings(job, queue_name="far", redis_settings=away)
    for n in range(4):
        await database.order(n, _queue_name="far" if n % 2 == 0 else None)
    with pytest.raises(RedisError):
        await database.outbox.move()
    assert await app.queued() == 2
    assert await database.waiting() == 2


async def test_without_the_table_a_line_says_what_makes_it(
    app: App, database: Database, notes: Notes, caplog: pytest.LogCaptureFixture
) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(database.metadata.drop_all)
    async with app.worker(job, relay=database.relay):
        await until(lambda: "`paxx db upgrade` make that table" in caplog.text)
        await app.enqueue(job, 1)
        await notes.ended(1)
    errors = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert len(errors) == 1


async def test_redis_is_away(
    own_app: App, own_redis: OwnRedis, database_at: str, notes: Notes
) -> None:
    """Requests succeed, and their jobs run when it is back."""
    database = Database(own_app, database_at)
    await database.create()
    async with own_app.worker(job, relay=database.relay):
        own_redis.kill()
        for n in range(20):
            start = time.monotonic()
            await database.order(n)
            assert time.monotonic() - start < 4  # no call of ours is waited for
            await asyncio.sleep(0.1)
        assert not notes.starts()
        own_redis.start()
        await until(lambda: len(notes.ends()) >= 20)
    assert len(notes.starts()) == 20
    await database.engine.dispose()


async def test_1000_transactions_while_processes_are_killed(
    app: App,
    database: Database,
    database_at: str,
    redis_url: str,
    notes: Notes,
    tmp_path: Path,
) -> None:
    """Every third is rolled back. None is lost, and none runs twice."""
    async with app.worker(job, max_jobs=50):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "outbox_kit.py", redis_url, database_at, "1000"),
            tmp_path,
            cwd=PATHS[1],
            env={"PYTHONPATH": ":".join(map(str, (*PATHS, PATHS[1].parent)))},
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        await database.outbox.move()
        committed = await database.ordered()
        await until(lambda: len(notes.ends()) >= len(committed))
    assert await database.waiting() == 0
    kills = int(output)
    assert kills >= 10
    assert 666 - kills <= len(committed) <= 666
    assert not [n for n in committed if n % 3 == 0]
    starts = Counter(event.name for event in notes.starts())
    assert starts == Counter(map(str, committed))
