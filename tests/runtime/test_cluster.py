"""Redis Cluster: a queue whose name has a hash tag is on one node, and fails over."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from arq_runtime.connection import parse_redis_url
from arq_runtime.server import QueueUnavailableError
from kit import App, until
from noting import Notes, job, sync
from processes import Processes
from redis.crc import key_slot
from support import OwnRedis, free_port, wait_for

pytestmark = pytest.mark.slow

TAGGED = "arq:queue:{shop}"
TAG = {"ARQ_QUEUE_NAME": TAGGED}
#: On other nodes than that.
OTHERS = "arq:queue:{high}", "arq:queue:{x}"


class Cluster:
    """Three masters, and a replica of the one that has the queue."""

    def __init__(self, nodes: list[OwnRedis]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        return "cluster://" + ",".join(f"127.0.0.1:{one.port}" for one in self.nodes)

    def master_of(self, name: str) -> OwnRedis:
        return self.nodes[key_slot(name.encode()) * 3 // 16384]


def node(directory: Path, stack: ExitStack) -> OwnRedis:
    directory.mkdir()
    it = OwnRedis(directory)
    options = {
        "enabled": "yes",
        "port": str(free_port()),
        "node-timeout": "1500",
        "config-file": str(directory / "nodes.conf"),
    }
    it.start(
        *(text for name in options for text in (f"--cluster-{name}", options[name]))
    )
    # At once: a master waits for its replica before it ends.
    stack.callback(lambda: it.process and it.kill())
    it.bus = options["port"]  # type: ignore[attr-defined]
    return it


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with ExitStack() as stack:
        nodes = [node(tmp_path / f"node{n}", stack) for n in range(4)]
        clients = [
            stack.enter_context(redis.Redis(port=one.port, decode_responses=True))
            for one in nodes
        ]
        for number, client in enumerate(clients[:3]):
            first, last = (-(-16384 * n // 3) for n in (number, number + 1))
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for one in nodes[1:]:
            meet = ("CLUSTER", "MEET", "127.0.0.1", one.port, one.bus)  # type: ignore[attr-defined]
            clients[0].execute_command(*meet)

        def is_up() -> bool:
            infos = [one.execute_command("CLUSTER", "INFO") for one in clients]
            return all(
                "cluster_state:ok" in info and "cluster_known_nodes:4" in info
                for info in infos
            )

        wait_for(is_up, 60)
        found = Cluster(nodes)
        index = nodes.index(found.master_of(TAGGED))
        identity = clients[index].execute_command("CLUSTER", "MYID")
        clients[3].execute_command("CLUSTER", "REPLICATE", identity)
        wait_for(
            lambda: clients[3].info("replication")["master_link_status"] == "up", 60
        )
        yield found


async def test_what_a_queue_does(cluster: Cluster, notes: Notes) -> None:
    app = App(cluster.url, queue=TAGGED)
    async with app.worker(job, sync):
        first = await app.enqueue(job, "a", _job_id="own")
        assert first.job_id == "{shop}own"
        assert await first.result(25) == "a"
        assert await app.client.enqueue(job, "a", _job_id="own") is None
        for job_id in ("own", "{shop}own"):
            found = await app.lookup.get_job_status(job_id)
            assert found and found["status"] == "complete"
        assert await (await app.enqueue(sync, "b")).result(25) == "b"
        calls = [{"name": n} for n in range(50)]
        many = await app.client.enqueue_many(job, calls)
        assert [await one.result(25) for one in many if one] == list(range(50))
        pair = [app.client.enqueue(job, "one"), app.client.enqueue(job, "two")]
        last = await app.gather_then(pair, then=app.client.job(job))
        ids = await last.result(25)
        assert [id_.partition("}")[0] for id_ in ids] == ["{shop", "{shop"]
        long = await app.enqueue(job, "long", 600)
        await notes.started("long")
        assert await app.lookup.abort_job(long.job_id)
        stats = await app.operations.queue_stats()
        assert stats.queued == 0
        assert [worker.host for worker in stats.workers]
        assert await app.operations.list_queues() == [TAGGED]
    assert await app.lookup.forget_job("own")
    await app.close()


@pytest.mark.parametrize("how", ["killed", "replaced"])
async def test_its_replica_takes_over(
    cluster: Cluster, notes: Notes, tmp_path: Path, how: str
) -> None:
    """Nothing is lost, nothing waits for a restart."""
    processes = Processes(cluster.url, tmp_path)
    app = App(cluster.url, queue=TAGGED)
    try:
        worker = await processes.start(env=TAG)
        await (await app.enqueue("job", "before")).result(25)
        if how == "killed":
            cluster.master_of(TAGGED).kill()
        else:
            with redis.Redis(port=cluster.nodes[3].port) as replica:
                replica.execute_command("CLUSTER", "FAILOVER")
        sent = 0
        while len(notes.events(what="end")) < 20:
            try:
                await app.enqueue("job", sent, _job_id=f"j{sent}")
            except QueueUnavailableError:
                continue  # within five seconds each
            sent += 1
            await asyncio.sleep(0.05)
        for n in range(sent):
            await until(lambda n=n: notes.events(str(n), "end"), 30)
        check = await processes.start("--check", ready=False, env=TAG)
        assert await check.exit_code() == 0
        assert await worker.stop() == 0
    finally:
        processes.close()
        await app.close()


async def test_it_moves_to_another_node(
    cluster: Cluster, notes: Notes, tmp_path: Path
) -> None:
    """While its keys are on their way, calls wait; nothing is lost, nothing runs twice."""
    processes = Processes(cluster.url, tmp_path)
    app = App(cluster.url, queue=TAGGED)
    source = cluster.master_of(TAGGED)
    target = next(one for one in cluster.nodes[:3] if one is not source)
    sent, is_moved = 0, False

    async def send() -> None:
        nonlocal sent
        while not is_moved:
            await app.enqueue("job", sent, _job_id=f"j{sent}")
            sent += 1

    def run(node: OwnRedis, *command: Any) -> Any:
        with redis.Redis(port=node.port, decode_responses=True) as client:
            return client.execute_command(*command)

    def move() -> None:
        slot = key_slot(TAGGED.encode())
        for one, state, other in (
            (target, "IMPORTING", source),
            (source, "MIGRATING", target),
        ):
            identity = run(other, "CLUSTER", "MYID")
            run(one, "CLUSTER", "SETSLOT", slot, state, identity)
        while keys := run(source, "CLUSTER", "GETKEYSINSLOT", slot, 20):
            to = ("127.0.0.1", target.port, "", 0, 5000)
            run(source, "MIGRATE", *to, "KEYS", *keys)
        time.sleep(0.5)  # calls meet a queue that has gone
        for one in (target, source, *cluster.nodes[:3]):
            run(one, "CLUSTER", "SETSLOT", slot, "NODE", run(target, "CLUSTER", "MYID"))

    try:
        worker = await processes.start(env=TAG)
        sending = asyncio.create_task(send())
        await until(lambda: sent > 50, 30)
        await asyncio.to_thread(move)
        at = sent
        await until(lambda: sent > at + 50 or sending.done(), 30)
        is_moved = True
        await sending
        for n in range(sent):
            await until(lambda n=n: notes.events(str(n), "end"), 30)
            assert len(notes.events(str(n), "start")) == 1
        assert await worker.stop() == 0
    finally:
        processes.close()
        await app.close()


async def test_queues_on_several_nodes(cluster: Cluster, notes: Notes) -> None:
    app = App(cluster.url, queue=TAGGED)
    for name in OTHERS:
        app.queues.register(app.settings(job, queue_name=name))
    assert len({cluster.master_of(name).port for name in (TAGGED, *OTHERS)}) == 3
    for name in OTHERS:
        sent = await app.enqueue(job, name, _queue_name=name)
        with redis.Redis(port=cluster.master_of(name).port) as client:
            assert client.zcard(name) == 1
        async with app.worker(job, queue_name=name):
            assert await sent.result(25) == name
    await app.close()


def test_a_name_without_a_tag_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ARQ_QUEUE_NAME to arq:queue:\{shop\}"):
        App("cluster://127.0.0.1:7000", queue="arq:queue:shop")


@pytest.mark.parametrize("url", ["cluster://a:1/3", "cluster://a", "cluster://a:x"])
def test_a_url_that_cannot_be(url: str) -> None:
    with pytest.raises(ValueError):
        parse_redis_url(url)


def test_the_password_of_the_nodes() -> None:
    found = parse_redis_url("cluster://me:secret@a:1,b:2?ssl=true")
    assert found.host == [("a", 1), ("b", 2)]
    assert (found.username, found.password, found.ssl) == ("me", "secret", True)
