"""Jobs that start after the commit, and requests whose job cannot be queued."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from support import Shop, free_port, wait_for


def test_a_job_is_queued_with_its_transaction_or_not_at_all(
    shop_with_queue: Shop, redis_url: str
) -> None:
    code = """
    from sqlalchemy import text

    from db.database import async_session_factory as sessions
    from db.database import close_db

    pool = await get_pool()

    def add(session, name):
        return enqueue_after_commit(session, "process_webhook", {}, _job_id=name)

    async with sessions() as session:
        add(session, "committed")
        assert not await pool.exists("arq:job:committed")
        await session.commit()
        await session.commit()
        add(session, "rolled back before any SQL")
        await session.rollback()
        await session.execute(text("SELECT 1"))
        add(session, "rolled back")
        await session.rollback()
        async with session.begin_nested():
            add(session, "released")
        assert not await pool.exists("arq:job:released")
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
    try:
        async with sessions.begin() as session:
            add(session, "in a block that raises")
            raise KeyError
    except KeyError:
        pass
    ids = {job_id.decode() for job_id in await pool.zrange("arq:queue:shop", 0, -1)}
    result = [
        sorted(job_id for job_id in ids if "many" not in job_id),
        sum("many" in job_id for job_id in ids),
    ]
    await close_db()
    """
    names, many = shop_with_queue.python(code, redis_url)
    assert names == ["committed", "in a block", "in an open savepoint", "released"]
    assert many == 1500


@pytest.mark.slow
def test_when_redis_fails_the_commit_stands_and_says_so(shop_with_queue: Shop) -> None:
    code = """
    from sqlalchemy import text

    from db.database import async_session_factory as sessions
    from db.database import close_db

    async with sessions.begin() as session:
        await session.execute(text("CREATE TABLE rows_kept (n int)"))
    result = []
    async with sessions() as session:
        await session.execute(text("INSERT INTO rows_kept VALUES (1)"))
        enqueue_after_commit(session, "process_webhook", payload={})
        try:
            await session.commit()
        except QueueUnavailableError as exc:
            result.append(str(exc)[:33])
        await session.execute(text("INSERT INTO rows_kept VALUES (2)"))
        await session.commit()
        result.append(await session.scalar(text("SELECT count(*) FROM rows_kept")))
        await session.execute(text("DROP TABLE rows_kept"))
        await session.commit()
    await close_db()
    """
    url = f"redis://127.0.0.1:{free_port()}/1"
    assert shop_with_queue.python(code, url) == ["Redis fails, see ARQ_REDIS_URL: E", 2]


ROUTES = """
import asyncio
import time
import uuid
from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped

from core.arq import enqueue, enqueue_after_commit
from core.tasks import User, welcome
from db.database import get_db, init_db
from main import app


@app.post("/users")
async def sign_up(db: Annotated[AsyncSession, Depends(get_db)]) -> uuid.UUID:
    user = User(name="Ada")
    db.add(user)
    await db.flush()
    enqueue_after_commit(db, welcome, user_id=user.id)
    return user.id


async def ends_after(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return time.monotonic()


@app.post("/plain")
async def plain() -> None:
    pause = asyncio.create_task(ends_after(4.8))  # as late as the machine is busy
    try:
        await enqueue(welcome, user_id=uuid.uuid4())
    finally:
        ended = time.monotonic()
        print("LATE", ended - await pause, flush=True)
"""
TASKS = """
import uuid

from sqlalchemy.orm import Mapped

from core.arq_worker import BaseWorkerSettings
from db.database import BaseModel, async_session_factory


class User(BaseModel):
    __tablename__ = "users"
    name: Mapped[str]


async def welcome(ctx, user_id: uuid.UUID):
    async with async_session_factory() as session:
        found = await session.get(User, user_id)
    await ctx["redis"].incr("found" if found else "missing")


class WorkerSettings(BaseWorkerSettings):
    functions = [welcome]
"""
CLIENT = """
import asyncio
import sys

import httpx


async def main(url: str, number: int, at_once: int) -> None:
    slots = asyncio.Semaphore(at_once)
    async with httpx.AsyncClient(timeout=30) as client:
        async def post():
            async with slots:
                answer = await client.post(url)
                return answer.status_code, answer.text
        answers = await asyncio.gather(*[post() for _ in range(number)])
    print(sorted({code for code, _ in answers}))
    print(answers[0][1])


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL of the test's own; skips it where none is installed."""
    # Debian has the programs beside each other, and not on the path
    found = shutil.which("initdb") or next(
        map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None
    )
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    # it refuses to run as root, and root's directories are closed to others
    user = "postgres" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp())
    port = free_port()
    try:
        if user:
            shutil.chown(directory, user)
        options = f"-h 127.0.0.1 -p {port} -k {directory} -c fsync=off"
        cluster = f"--pgdata={directory}/data"
        for command in (
            [found, cluster, "--auth=trust", "--username=shop", "--no-sync"],
            [
                *(Path(found).with_name("pg_ctl"), cluster, "--wait"),
                *(f"--log={directory}/log", "-o", options, "start"),
            ],
        ):
            subprocess.run(
                command,
                user=user,
                cwd=directory,
                check=True,
                timeout=60,
                stdout=subprocess.DEVNULL,
            )
        yield f"postgresql+asyncpg://shop@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [Path(found).with_name("pg_ctl"), cluster, "--mode=immediate", "stop"],
            user=user,
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )
        shutil.rmtree(directory)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_settings(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """The environment's part that says which database, unless it is SQLite on disk."""
    if request.param == "sqlite":
        yield {}
    else:
        with postgres() as url:
            yield {"DATABASE_URL": url}


@pytest.mark.slow
def test_500_requests_find_their_rows_and_without_redis_answer_503(
    own_shop_with_queue: Shop,
    database_settings: dict[str, str],
    redis_url: str,
    tmp_path: Path,
) -> None:
    shop = own_shop_with_queue
    shop.write_tasks(TASKS)
    (shop / "web.py").write_text(ROUTES)
    (shop / "client.py").write_text(CLIENT)
    shop.run(
        *("python", "-c", "import asyncio, web; asyncio.run(web.init_db())"),
        env={**shop.settings(redis_url), **database_settings},
    )

    def requests(url: str, path: str, number: int, at_once: int) -> list[str]:
        log = tmp_path / f"{path}.log"
        options = ("--no-access-log",)
        with shop.app(url, log, *options, name="web:app", **database_settings) as port:
            target = f"http://127.0.0.1:{port}/{path}"
            return shop.run(
                *("python", "-m", "client", target, str(number), str(at_once))
            ).splitlines()

    with (
        shop.worker(redis_url, **database_settings) as worker,
        redis.Redis.from_url(redis_url) as client,
    ):
        codes, *_ = requests(redis_url, "users", 500, 5)
        assert codes == "[200]", (tmp_path / "users.log").read_text()
        wait_for(
            lambda: sum(map(int, filter(None, client.mget("found", "missing")))) == 500,
            60,
            worker.path,
        )
        assert client.get("missing") is None
    codes, body = requests(f"redis://127.0.0.1:{free_port()}/1", "plain", 100, 100)
    assert codes == "[503]"
    assert body == '{"message":"The task queue is not available"}'
    text = (tmp_path / "plain.log").read_text()
    late = [float(seconds) for seconds in re.findall(r"LATE (\S+)", text)]
    assert len(late) == 100 and max(late) < 1.2
    assert text.count("Redis fails, see ARQ_REDIS_URL: ") == 100
    assert "Traceback" not in text
