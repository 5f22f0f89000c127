"""A server as it is from far away: far.py PORT SECONDS.

Prints a port of its own, that leads to the other one of this machine; each way takes so
many seconds. Nothing is held up by what goes before it: it is the distance that takes
time, not the road.
"""

import asyncio
import sys
from collections import deque
from functools import partial


async def carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
) -> None:
    under_way: deque[bytes] = deque()

    def arrive() -> None:
        if data := under_way.popleft():
            writer.write(data)
        else:
            writer.close()

    data = b"-"
    while data:
        try:
            data = await reader.read(1 << 16)
        except OSError:  # the process at that end was killed
            data = b""
        under_way.append(data)
        asyncio.get_running_loop().call_later(delay, arrive)


async def connect(
    port: int,
    delay: float,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.gather(
        carry(reader, other_writer, delay), carry(other_reader, writer, delay)
    )


async def main() -> None:
    handler = partial(connect, int(sys.argv[1]), float(sys.argv[2]))
    async with await asyncio.start_server(handler, "127.0.0.1") as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
