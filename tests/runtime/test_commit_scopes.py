"""Jobs that wait for a commit: of sessions that others hand out, and in listeners."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from arq_runtime.client.commit import AfterCommit
from kit import App
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[Sessions]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db?timeout=60")
    async with engine.begin() as connection:
        await connection.execute(text("create table users (name text)"))
    yield async_sessionmaker(engine)
    await engine.dispose()


async def add_user(session: Any) -> None:
    await session.execute(text("insert into users values ('a')"))


async def queued(app: App) -> list[str]:
    return [one.decode() for one in await app.redis.zrange(app.queue, 0, -1)]


async def test_a_scoped_session(app: App, sessions: Sessions) -> None:
    """Each task of the event loop has its own behind it."""
    scoped = async_scoped_session(sessions, scopefunc=asyncio.current_task)
    enqueue = AfterCommit(app.client).enqueue_after_commit

    async def request(name: str, commits: bool) -> None:
        await add_user(scoped)
        enqueue(scoped, "mail", name, _job_id=name)
        await asyncio.sleep(0.05)  # others begin theirs meanwhile
        assert name not in await queued(app)
        if commits:
            await scoped.commit()
            assert name in await queued(app)
        await scoped.remove()

    async with asyncio.TaskGroup() as group:
        for name, commits in (("a", True), ("b", False), ("c", True)):
            group.create_task(request(name, commits))
            await asyncio.sleep(0.02)
    assert {*await queued(app)} == {"a", "c"}


@pytest.mark.parametrize("commits", [True, False])
async def test_in_a_listener(app: App, sessions: Sessions, commits: bool) -> None:
    """What is enqueued while the commit is told is of that transaction."""
    enqueue = AfterCommit(app.client).enqueue_after_commit
    async with sessions() as session:

        @event.listens_for(session.sync_session, "after_commit", once=True)
        def tell(_: Session) -> None:
            enqueue(session, "mail", _job_id="told")

        await add_user(session)
        enqueue(session, "mail", _job_id="before")
        assert await queued(app) == []
        if not commits:
            await session.rollback()
            assert await queued(app) == []
            return
        await session.commit()
        assert {*await queued(app)} == {"before", "told"}
        await add_user(session)
        await session.rollback()
        await session.commit()
        assert {*await queued(app)} == {"before", "told"}


async def test_in_a_listener_alone(app: App, sessions: Sessions) -> None:
    enqueue = AfterCommit(app.client).enqueue_after_commit
    async with sessions() as session:

        @event.listens_for(session.sync_session, "after_commit")
        def tell(_: Session) -> None:
            enqueue(session, "mail")

        for count in (1, 2):
            await add_user(session)
            await session.commit()
            assert len(await queued(app)) == count


async def test_before_a_commit(app: App, sessions: Sessions) -> None:
    enqueue = AfterCommit(app.client).enqueue_after_commit
    async with sessions() as session:

        @event.listens_for(session.sync_session, "before_commit")
        def tell(_: Session) -> None:
            enqueue(session, "mail")

        await add_user(session)
        await session.commit()
    assert len(await queued(app)) == 1
