"""Jobs that are queued when a transaction is committed, and not at all otherwise."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from arq_runtime.client import sender
from arq_runtime.client.commit import AfterCommit
from arq_runtime.server import QueueUnavailableError
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from kit import App, until
from proxy import Proxy
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from support import OwnRedis, free_port

Ctx = dict[str, Any]
Sessions = async_sessionmaker[AsyncSession]
Enqueue = Callable[..., str]


class Base(DeclarativeBase): ...


class User(Base):
    __tablename__ = "users"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
async def sessions(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Sessions]:
    """As async_session_factory of a Paxx project; a database with the users' table."""
    url = f"sqlite+aiosqlite:///{tmp_path}/shop.db?timeout=60"
    if request.param == "postgres":
        url = request.getfixturevalue("postgresql_url")
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine, expire_on_commit=False)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()


async def test_a_job_is_queued_with_its_transaction_or_not_at_all(
    app: App, sessions: Sessions
) -> None:
    enqueue = AfterCommit(app.client).enqueue_after_commit

    def add(session: AsyncSession, name: str) -> None:
        assert enqueue(session, "welcome", {}, _job_id=name) == name

    async def is_queued(name: str) -> bool:
        return bool(await app.redis.exists(f"arq:job:{name}"))

    async with sessions() as session:
        add(session, "committed")
        assert not await is_queued("committed")
        await session.commit()
        assert await is_queued("committed")
        await session.commit()
        add(session, "rolled back before any SQL")
        await session.rollback()
        await session.execute(text("SELECT 1"))
        add(session, "rolled back")
        await session.rollback()
        async with session.begin_nested():
            add(session, "released")
        assert not await is_queued("released")
        outer = await session.begin_nested()
        add(session, "outer savepoint")
        async with session.begin_nested():
            add(session, "released within it")
        await outer.rollback()
        await session.commit()
        await session.execute(text("SELECT 1"))
        add(session, "closed")
        await session.close()
        await session.commit()
        await session.begin_nested()
        add(session, "in an open savepoint")
        await session.commit()
    async with sessions.begin() as session:
        add(session, "in a block")
        for n in range(1500):
            add(session, f"many-{n}")
    with pytest.raises(KeyError):
        async with sessions.begin() as session:
            add(session, "in a block that raises")
            raise KeyError
    queued = await app.redis.zrange(app.queue, 0, -1)
    names = [name.decode() for name in queued if not name.startswith(b"many")]
    # in the order in which they were committed
    assert names == ["committed", "released", "in an open savepoint", "in a block"]
    many = [name.decode() for name in queued if name.startswith(b"many")]
    assert many == [f"many-{n}" for n in range(1500)]


async def test_a_mistake_is_an_error_at_the_call(app: App, sessions: Sessions) -> None:
    enqueue = AfterCommit(app.client).enqueue_after_commit

    async def welcome(ctx: Ctx, user_id: int) -> None: ...

    welcome.__qualname__ = "welcome"
    app.settings(welcome)
    async with sessions() as session:
        with pytest.raises(ValueError, match="did you mean 'welcome'"):
            enqueue(session, "welcom", user_id=1)
        with pytest.raises(TypeError, match="unexpected argument 'userid'"):
            enqueue(session, "welcome", userid=1)
        await session.commit()
    assert await app.queued() == 0


async def test_when_redis_fails_the_commit_stands_and_says_so(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "DEADLINE_S", 0.3)
    app = App(f"redis://127.0.0.1:{free_port()}/1")
    enqueue = AfterCommit(app.client).enqueue_after_commit
    async with sessions() as session:
        session.add(User(name="first"))
        enqueue(session, "welcome")
        with pytest.raises(QueueUnavailableError, match="Redis fails, see ARQ_REDIS_"):
            await session.commit()
        session.add(User(name="second"))
        await session.commit()
        found = await session.scalars(text("SELECT name FROM users ORDER BY name"))
        assert found.all() == ["first", "second"]
    await app.close()


async def test_what_is_committed_is_queued_also_when_the_request_is_cancelled(
    own_redis: OwnRedis, sessions: Sessions
) -> None:
    with Proxy(own_redis.port) as proxy:
        app = App(f"redis://127.0.0.1:{proxy.port}/1")
        await app.enqueue("welcome")
        enqueue = AfterCommit(app.client).enqueue_after_commit
        async with sessions() as session:
            session.add(User(name="Ada"))
            enqueue(session, "welcome", _job_id="own")
            proxy.cut()
            before = asyncio.all_tasks()
            commit = asyncio.create_task(session.commit())
            before.add(commit)
            await until(lambda: asyncio.all_tasks() - before)  # what sends
            assert not commit.done()
            commit.cancel()
            with pytest.raises(asyncio.CancelledError):
                await commit
            proxy.restore()
        async with sessions() as session:
            assert await session.scalar(text("SELECT name FROM users")) == "Ada"

        await until(lambda: app.redis.exists("arq:job:own"))
        await app.close()


@pytest.mark.slow
async def test_200_requests_find_their_rows(app: App, sessions: Sessions) -> None:
    enqueue = AfterCommit(app.client).enqueue_after_commit
    found = []

    async def welcome(ctx: Ctx, user_id: uuid.UUID) -> None:
        async with sessions() as session:
            found.append(await session.get(User, user_id))

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with sessions() as session:
            yield session
            await session.commit()

    web = FastAPI()

    @web.post("/users")
    async def sign_up(db: Annotated[AsyncSession, Depends(get_db)]) -> uuid.UUID:
        user = User(name="Ada")
        db.add(user)
        await db.flush()
        enqueue(db, welcome, user_id=user.id)
        return user.id

    slots = asyncio.Semaphore(5)
    async with (
        app.worker(welcome),
        AsyncClient(transport=ASGITransport(web), base_url="http://shop") as client,
    ):

        async def post() -> int:
            async with slots:
                return (await client.post("/users")).status_code

        codes = await asyncio.gather(*[post() for _ in range(200)])
        assert codes == [200] * 200
        await until(lambda: len(found) == 200, 30)
    assert None not in found
