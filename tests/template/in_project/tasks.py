"""Tasks of a project: one uses its database and its log, and enqueues another."""

from core.arq import enqueue
from core.arq_worker import BaseWorkerSettings, Context
from core.logging import get_logger
from db.database import async_session_factory
from sqlalchemy import text

logger = get_logger(__name__)


async def count(ctx: Context, start: int) -> int:
    """A query."""
    async with ctx["session_factory"]() as session:
        found: int = (await session.execute(text("SELECT 41 + 1"))).scalar()
    logger.info("counted", found=found)
    await enqueue(fail, _job_id="fails")
    return start + found


async def fail(ctx: Context) -> None:
    """It fails."""
    logger.info("about to fail", hint="the log says why")
    raise ValueError("no")


async def startup(ctx: Context) -> None:
    """What count uses."""
    ctx["session_factory"] = async_session_factory


class WorkerSettings(BaseWorkerSettings):
    """Their worker."""

    functions = (count, fail)
    on_startup = startup
    max_tries = 1
    keep_logs = 10
