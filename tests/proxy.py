"""A network that fails: a proxy between clients and a server on this machine."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Self

from support import free_port


class Proxy:
    """Passes connections on to a port of this machine, until it is told not to.

    `latency` is the delay of each direction, in seconds, and `bandwidth` what all
    connections together carry, in bytes a second and direction (0: any); both may be
    changed at any time. With `tls`, a context of Python's, its clients speak TLS.
    """

    def __init__(self, target: int, tls: ssl.SSLContext | None = None) -> None:
        self.target = target
        self.port = free_port()
        self.latency = 0.0
        self.bandwidth = 0.0
        self.tls = tls
        self._sent_until: dict[bool, float] = {}
        self._links: set[_Link] = set()
        self._flowing = threading.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._call(self._end)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._links)

    def hold(self) -> None:
        """Black hole: connections are accepted and kept, and nothing is passed on.

        After restore() all of it arrives, as after a network's outage.
        """
        self._flowing.clear()

    def half_open(self) -> None:
        """The connections of now pass nothing on any more; new ones work."""
        for link in self._links.copy():  # the proxy's thread may add one
            link.dead = True

    def cut(self) -> None:
        """Reset all connections, and refuse new ones."""
        self._call(self._cut)

    def restore(self) -> None:
        """Accept connections, and pass on what was held."""
        self._flowing.set()
        self._call(self._listen)

    def _call(self, function: Callable[[], Any]) -> None:
        asyncio.run_coroutine_threadsafe(function(), self._loop).result(60)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, ssl=self.tls
            )

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in list(self._links):
            link.close()

    async def _end(self) -> None:
        """End what still waits to pass something on."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, (reader, writer), there)
        self._links.add(link)
        await link.run()
        self._links.discard(link)

    async def carry(self, size: int, *, is_there: bool) -> None:
        """Wait for as long as so many bytes are on their way."""
        if self.bandwidth:
            now = asyncio.get_running_loop().time()
            until = max(self._sent_until.get(is_there, 0), now) + size / self.bandwidth
            self._sent_until[is_there] = until
            await asyncio.sleep(until - now)

    async def until_flowing(self) -> None:
        while not self._flowing.is_set():
            await asyncio.sleep(0.01)


class _Link:
    """One connection, both ways."""

    def __init__(
        self,
        proxy: Proxy,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.proxy = proxy
        self.here = here
        self.there = there
        self.dead = False
        for _, writer in (here, there):
            writer.get_extra_info("socket").setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
            )

    async def run(self) -> None:
        ways = [
            asyncio.ensure_future(self._pass(self.here[0], self.there[1])),
            asyncio.ensure_future(self._pass(self.there[0], self.here[1])),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        self.close()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, chunk = await chunks.get()
                await asyncio.sleep(due - loop.time())
                await self.proxy.carry(len(chunk), is_there=reader is self.here[0])
                await self.proxy.until_flowing()
                if self.dead and not (reader is self.here[0] and not chunk):
                    continue  # nobody is told anything
                if not chunk:
                    return
                writer.write(chunk)

        async def collect() -> None:
            chunk = b"any"
            while chunk:
                try:
                    chunk = await reader.read(65536)
                except OSError:
                    chunk = b""
                await chunks.put((loop.time() + self.proxy.latency, chunk))

        both = asyncio.gather(deliver(), collect())
        try:
            await both
        finally:
            both.cancel()

    def close(self) -> None:
        for _, writer in (self.here, self.there):
            writer.transport.abort()
