"""What a Redis URL says, and servers that are reached in other ways than plain TCP."""

import asyncio
import ssl
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
import uvloop
from arq_runtime.connection import REDIS_ERRORS, connect, parse_redis_url
from arq_runtime.server import QueueUnavailableError
from kit import App, until
from proxy import Proxy
from support import OwnRedis, sentinel

Ctx = dict[str, Any]


async def add(ctx: Ctx, a: int, b: int = 0) -> int:
    return a + b


async def assert_works(app: App) -> None:
    """A job goes there, is run, and its result comes back."""
    async with app.worker(add):
        assert await (await app.enqueue(add, 40, b=2)).result(25) == 42
    await app.close()


# --- URLs -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://localhost", {"host": "localhost", "port": 6379, "database": 0}),
        ("redis://h:7000/3", {"host": "h", "port": 7000, "database": 3}),
        ("redis://h/3/", {"database": 3}),
        ("redis://h:1?db=4", {"database": 4}),
        ("redis://u:p%40s%2Fs%23@h", {"username": "u", "password": "p@s/s#"}),
        ("redis://:p@h", {"username": None, "password": "p"}),
        ("redis://[::1]:6380/2", {"host": "::1", "port": 6380, "database": 2}),
        ("unix:///tmp/r.sock?db=2", {"unix_socket_path": "/tmp/r.sock", "database": 2}),
        (
            "unix://u:p@/tmp/r.sock",
            {"unix_socket_path": "/tmp/r.sock", "username": "u"},
        ),
        ("rediss://h:1", {"ssl": True, "ssl_check_hostname": True}),
        (
            "rediss://h?ssl_cert_reqs=none",
            {"ssl_cert_reqs": "none", "ssl_check_hostname": False},
        ),
        (
            "rediss://h?ssl_cert_reqs=CERT_NONE",
            {"ssl_cert_reqs": "none", "ssl_check_hostname": False},
        ),
        (
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_check_hostname=false",
            {"ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False},
        ),
        (
            "sentinel://u:p@a:26379,b:26380/mymaster/2",
            {
                "host": [("a", 26379), ("b", 26380)],
                "sentinel": True,
                "sentinel_master": "mymaster",
                "username": "u",
                "password": "p",
                "database": 2,
            },
        ),
        ("sentinel://a:1/main", {"host": [("a", 1)], "database": 0, "password": None}),
        (
            "sentinel://a:1/main?sentinel_username=u&sentinel_password=p&sentinel_ssl=1",
            {"sentinel_options": {"username": "u", "password": "p", "ssl": True}},
        ),
    ],
)
def test_urls(url: str, expected: dict[str, Any]) -> None:
    settings = parse_redis_url(url)
    assert {name: getattr(settings, name) for name in expected} == expected


BAD_URLS = [
    "http://u:secret@h",
    "redis://u:secret@h:port",
    "redis://u:sec#ret@h:1",
    "redis://u:secret@h/abc",
    "redis://u:secret@h?db=x",
    "redis://u:secret@h?unknown_option=1",
    "sentinel://u:secret@h/master",
    "",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_urls(url: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        parse_redis_url(url)


# --- Servers --------------------------------------------------------------------------


async def test_acl_user_percent_encoded_password_and_unix_socket(
    own_redis: OwnRedis,
) -> None:
    own_redis.stop()
    sock = own_redis.directory / "r.sock"
    own_redis.start("--unixsocket", str(sock))
    with redis.Redis(port=own_redis.port) as client:
        client.acl_setuser(
            "queue",
            enabled=True,
            passwords=["+p@ss/w#rd"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
            reset=True,
        )
        client.acl_setuser("default", enabled=False)
    login = "queue:p%40ss%2Fw%23rd@"
    await assert_works(App(f"unix://{login}{sock}?db=3"))
    await assert_works(App(f"redis://{login}127.0.0.1:{own_redis.port}/3"))


async def test_sentinel(own_redis: OwnRedis, tmp_path: Path) -> None:
    with sentinel(own_redis, tmp_path) as port:
        await assert_works(App(f"sentinel://127.0.0.1:{port}/queue/2"))
    with redis.Redis(port=own_redis.port, db=2) as client:
        assert client.keys("arq:result:*")


async def test_tls_trusts_no_other_certificate(
    own_redis: OwnRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setattr("arq_runtime.client.sender.DEADLINE_S", 0.5)
    with Proxy(own_redis.port, context) as server:
        url = f"rediss://localhost:{server.port}/1"
        trusted = f"{url}?ssl_ca_certs={tmp_path / 'ca.pem'}"
        await assert_works(App(trusted))
        # of unknown origin, or another host's
        for wrong in (url, trusted.replace("localhost", "127.0.0.1")):
            app = App(wrong)
            await until(partial(_says_why, app))
            await app.close()


async def _says_why(app: App) -> bool:
    """A call fails; of its short time, a handshake may take all."""
    with pytest.raises(QueueUnavailableError) as error:
        await app.enqueue(add, 1)
    return "certificate verify fail" in str(error.value).lower()


#: A server that drops each connection at the first byte, as one that ends.
DROPPING = """
import socket, struct
server = socket.create_server(("127.0.0.1", 0), backlog=50)
print(server.getsockname()[1], flush=True)
while True:
    connection, _ = server.accept()
    reset = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    connection.settimeout(0.01)
    try:
        connection.recv(1)
    except TimeoutError:
        pass
    connection.close()
"""


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_that_is_lost_is_an_error_of_redis(run: Any) -> None:
    """Whatever the event loop says of it: any other exception ends the worker."""

    async def main(port: int) -> None:
        settings = parse_redis_url(f"redis://127.0.0.1:{port}")
        connections = connect(settings, socket_timeout=5)  # as a worker's
        for _ in range(200):
            with pytest.raises(REDIS_ERRORS):
                await connections.ping()

    command = [sys.executable, "-c", DROPPING]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout
        try:
            run(main(int(server.stdout.readline())))
        finally:
            server.kill()
