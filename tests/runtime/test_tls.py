"""Redis behind TLS: its outages end no worker, and no call in an odd way."""

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
from arq_runtime.server import QueueUnavailableError
from kit import App, until
from outcomes import outcome
from proxy import Proxy
from support import OwnRedis

pytestmark = pytest.mark.slow


class Tls(NamedTuple):
    """A server behind TLS."""

    url: str
    network: Proxy
    """Below TLS: what it holds, not even a handshake gets through."""
    server: OwnRedis


@pytest.fixture
def tls(own_redis: OwnRedis, tmp_path: Path) -> Iterator[Tls]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Proxy(own_redis.port, context) as inner, Proxy(inner.port) as network:
        url = f"rediss://127.0.0.1:{network.port}/1?ssl_ca_certs={tmp_path / 'ca.pem'}"
        yield Tls(url, network, own_redis)


async def double(ctx: dict[str, Any], n: int) -> int:
    return 2 * n


async def ping(ctx: dict[str, Any], times: int) -> None:
    """Opens some connections of the worker, which are idle then."""
    await asyncio.gather(*(ctx["redis"].ping() for _ in range(times)))


async def test_an_outage_does_not_end_the_worker(tls: Tls) -> None:
    app = App(tls.url)
    async with app.worker(double, ping) as worker:
        assert await (await app.enqueue(ping, 10)).result(25) is None
        tls.server.freeze()
        await asyncio.sleep(20)
        assert worker.main_task is not None
        assert not worker.main_task.done()
        tls.server.thaw()
        assert await (await app.enqueue(double, 21)).result(25) == 42
    await app.close()


@pytest.mark.parametrize("how", ["held", "frozen"])
async def test_calls_end_as_they_should(tls: Tls, how: str) -> None:
    app = App(tls.url)
    pool = await app.queues.default.redis()
    await asyncio.gather(*(pool.ping() for _ in range(50)))
    tls.network.hold() if how == "held" else tls.server.freeze()
    loop = asyncio.get_running_loop()
    paused = asyncio.create_task(outcome(asyncio.sleep(5)))
    began = loop.time()
    calls = [app.client.enqueue(double, n) for n in range(5)]
    calls += [app.lookup.get_job_status("any") for _ in range(5)]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in ended} == {QueueUnavailableError}
    ended_after = loop.time() - began
    # against a pause beside them: a busy machine delays both
    assert ended_after < (await paused).seconds + 1
    tls.network.restore() if how == "held" else tls.server.thaw()
    await until(lambda: _works(app))
    await app.close()


async def _works(app: App) -> bool:
    try:
        return bool(await app.client.enqueue(double, 1))
    except QueueUnavailableError:
        return False
