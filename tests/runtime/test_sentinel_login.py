"""Sentinels that ask for a password, and for TLS."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from arq_runtime.worker.outages import HopelessError
from kit import App
from support import OwnRedis, free_port, wait_for


async def add(ctx: dict[str, object], a: int, b: int) -> int:
    return a + b


@contextmanager
def guarded_sentinel(
    master: OwnRedis, directory: Path, lines: str, client: Any
) -> Iterator[None]:
    """A Sentinel that knows the master as `queue`; the client is one of its own."""
    conf = directory / "sentinel.conf"
    conf.write_text(f"""\
bind 127.0.0.1
requirepass sesame
sentinel monitor queue 127.0.0.1 {master.port} 1
sentinel auth-pass queue p@ss
{lines}
""")
    log = directory / "sentinel.log"
    with log.open("wb") as file:
        command = [master.binary, str(conf), "--sentinel"]
        process = subprocess.Popen(command, stdout=file, stderr=file)

    def is_ready() -> bool:
        try:
            return bool(client.sentinel_master("queue"))
        except redis.RedisError:
            return False

    try:
        wait_for(lambda: is_ready() or process.poll() is not None, 60, log)
        if process.poll() is not None:
            pytest.skip(f"this server has no TLS: {log.read_text()[-200:]}")
        yield
    finally:
        client.close()
        process.terminate()
        process.wait(60)


@pytest.fixture
def guarded_redis(own_redis: OwnRedis) -> OwnRedis:
    """A server with a password of its own."""
    with redis.Redis(port=own_redis.port) as client:
        client.config_set("requirepass", "p@ss")
        client.config_set("masterauth", "p@ss")
    return own_redis


async def runs(url: str) -> None:
    app = App(url)
    async with app.worker(add):
        assert await (await app.enqueue(add, 1, 2)).result(25) == 3
    await app.close()


@pytest.mark.parametrize("login", ["sentinel_password=sesame", ""])
async def test_a_password(guarded_redis: OwnRedis, tmp_path: Path, login: str) -> None:
    port = free_port()
    client = redis.Redis(port=port, password="sesame")
    url = f"sentinel://:p%40ss@127.0.0.1:{port}/queue/2?{login}"
    with guarded_sentinel(guarded_redis, tmp_path, f"port {port}", client):
        if login:
            return await runs(url)
        app = App(url)
        remedy = "the Sentinels' own \\?sentinel_password=... in ARQ_REDIS_URL"
        with pytest.raises(HopelessError, match=remedy):
            async with app.worker(add):
                raise AssertionError("it works")
        await app.close()


async def test_tls(guarded_redis: OwnRedis, tmp_path: Path) -> None:
    authority = trustme.CA()
    found = authority.issue_cert("127.0.0.1")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca", "key", "cert")}
    authority.cert_pem.write_to_path(str(files["ca"]))
    found.private_key_pem.write_to_path(str(files["key"]))
    for blob in found.cert_chain_pems:
        blob.write_to_path(str(files["cert"]), append=True)
    port = free_port()
    lines = f"""\
port 0
tls-port {port}
tls-auth-clients no
tls-cert-file {files["cert"]}
tls-key-file {files["key"]}
tls-ca-cert-file {files["ca"]}
"""
    trusted: dict[str, Any] = {"ssl": True, "ssl_ca_certs": str(files["ca"])}
    client = redis.Redis(host="127.0.0.1", port=port, password="sesame", **trusted)
    url = (
        f"sentinel://:p%40ss@127.0.0.1:{port}/queue/2?sentinel_password=sesame"
        f"&sentinel_ssl=true&ssl_ca_certs={files['ca']}"
    )
    with guarded_sentinel(guarded_redis, tmp_path, lines, client):
        await runs(url)
