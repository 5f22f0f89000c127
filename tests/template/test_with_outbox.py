"""A project with the outbox: its migration, and a job that gets through.

Its checks are in test_render.py, with those of all combinations of answers.
"""

import pytest
from support import Shop


@pytest.mark.slow
def test_a_job_of_a_transaction_gets_through(shop: Shop, redis_url: str) -> None:
    output = shop.copy("-d", "include_outbox=yes", commit=False)
    assert "paxx db migrate outbox" in output

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
