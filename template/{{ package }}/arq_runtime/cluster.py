"""A queue in a Redis Cluster: its keys have one hash tag, so one node has all of them.

Each connection is to the node that is their master as it is opened. A failover is an
outage like any other: connections are opened anew then, to the new master.
"""

from typing import Any

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import Connection, SSLConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError

from .keys import hash_tag

_Node = tuple[str, int]


def cluster_pool(
    nodes: list[_Node], queue: str, *, ssl: bool, **options: Any
) -> ConnectionPool:
    """Connections to the node that has the queue.

    Args:
        nodes: Where nodes of the cluster are.
        queue: The queue's name.
        ssl: Whether to use TLS.
        options: As redis-py's connections.

    Raises:
        ValueError: The name has no hash tag.
    """
    if not hash_tag(queue):
        raise ValueError(
            f"the queue's name, {queue!r}, needs a hash tag for a cluster: set "
            f"ARQ_QUEUE_NAME to arq:queue:{{{queue.rpartition(':')[2]}}}, say"
        )
    return ConnectionPool(
        _ToMasterByTls if ssl else _ToMaster,
        nodes=[*nodes],
        slot=key_slot(queue.encode()),
        **options,
    )


class _ToMaster(Connection):
    """A connection to the master of a slot; `nodes` is shared, and grows."""

    def __init__(self, *, nodes: list[_Node], slot: int, **options: Any) -> None:
        super().__init__(**options)
        self._nodes, self._slot = nodes, slot

    async def connect(self) -> None:
        if self.is_connected:
            return
        for left in reversed(range(len(self._nodes))):
            try:
                return await self._connect_by(self._nodes[0])
            except BaseException as exc:
                # Whoever asks next, after a timeout, say, begins with another one.
                self._nodes.append(self._nodes.pop(0))
                await self.disconnect(nowait=True)
                if not (left and isinstance(exc, RedisError | OSError)):
                    raise

    async def _connect_by(self, node: _Node) -> None:
        self.host, self.port = node
        await super().connect()  # type: ignore[no-untyped-call]
        await self.send_command("CLUSTER", "SLOTS")
        master = None
        for first, last, *nodes in await self.read_response():
            found = [(host.decode() or node[0], port) for host, port, *_ in nodes]
            self._nodes += [one for one in found if one not in self._nodes]
            if first <= self._slot <= last:
                master = found[0]
        if master is None:
            raise ConnectionError("no node has the queue's slot")
        if master != node:
            await self.disconnect()
            self.host, self.port = master
            await super().connect()  # type: ignore[no-untyped-call]


class _ToMasterByTls(_ToMaster, SSLConnection):
    """The same by TLS."""
