"""An application for uvicorn and gunicorn to serve, see test_servers.py."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arq_runtime.server import QueueUnavailableError
from fastapi import FastAPI, HTTPException
from kit import App

app = App(os.environ["ARQ_REDIS_URL"])

# In gunicorn's own process when it preloads: those it forks find what this leaves.
# In a thread, as uvicorn imports the app within its loop.
first = threading.Thread(
    target=lambda: asyncio.run(app.enqueue("count", name="imported"))
)
first.start()
first.join()


@asynccontextmanager
async def lifespan(web: FastAPI) -> AsyncIterator[None]:
    print("serving", flush=True)
    yield
    await app.close()


web = FastAPI(lifespan=lifespan)


@web.post("/count")
async def route() -> int:
    try:
        await app.enqueue("count", name=str(os.getpid()))
    except QueueUnavailableError as exc:
        raise HTTPException(503, str(exc)) from exc
    return os.getpid()
