"""A project with the outbox: its checks, its migration, and a job that gets through."""

import pytest
from support import Shop

#: What there is of it; all else is checked in test_render.py.
FILES = (
    "core/arq.py",
    "core/arq_worker.py",
    "core/arq_runtime/client/outbox.py",
    "core/arq_runtime/worker/relay.py",
    "features/arq_outbox",
)


@pytest.mark.slow
def test_a_job_of_a_transaction_gets_through(shop: Shop, redis_url: str) -> None:
    output = shop.copy("-d", "include_outbox=yes", commit=False)
    assert "paxx db migrate outbox" in output
    shop.run("ruff", "check", *FILES)
    shop.run("ruff", "format", "--check", *FILES)
    assert not [line for line in shop.mypy(".").splitlines() if "arq" in line]

    # What `paxx db` runs, with `uv run`
    env = shop.settings(redis_url)
    revision = ("alembic", "revision", "--autogenerate", "-m")
    shop.run(*revision, "outbox", env=env)
    shop.run("alembic", "upgrade", "head", env=env)
    assert "No changes detected" in shop.run(*revision, "again", env=env)

    code = """
        from core.tasks import send_welcome_email
        from db.database import async_session_factory

        async def sign_up(user_id, end):
            async with async_session_factory() as session:
                await enqueue_in(session, send_welcome_email, user_id)
                await getattr(session, end)()

        await sign_up(1, "rollback")
        await sign_up(2, "commit")
        result = await queue_stats()
    """
    shop.python(code, redis_url)
    with shop.worker(redis_url) as worker:
        worker.wait_for("'user_id': 2")
        assert "'user_id': 1" not in worker.text
        assert "Traceback" not in worker.text
