"""procrastinate, for orientation: a queue in PostgreSQL; JSON is its default."""

import os

import procrastinate
from common import record

connector = procrastinate.PsycopgConnector(conninfo=os.environ["BENCH_POSTGRES"])
app = procrastinate.App(connector=connector, import_paths=["procrastinate_tasks"])


@app.task(name="noop")
async def noop() -> None:
    record()


async def connect():
    await app.open_async()
    schema = app.schema_manager
    if not await app.check_connection_async():  # its tables are not there yet
        await schema.apply_schema_async()
    await connector.execute_query_async("TRUNCATE procrastinate_jobs CASCADE")
    return app


async def enqueue(_, name):
    await noop.defer_async()


async def enqueue_many(_, name, calls):
    await noop.batch_defer_async(*[{} for _call in calls])
