"""What no waiting mends is one line with cause and remedy, and an end with 1."""

import asyncio
import ssl

import pytest
import redis
import trustme
from arq_runtime.connection import parse_redis_url
from arq_runtime.server import QueueUnavailableError
from kit import WAIT_S, App
from outcomes import shorten
from processes import Processes
from proxy import Proxy
from support import OwnRedis, free_port

pytestmark = pytest.mark.slow


async def refused(processes: Processes, url: str) -> str:
    """The only line that a worker says at its end."""
    worker = await processes.start(url=url, ready=False)
    assert await worker.exit_code() == 1
    assert "Traceback" not in worker.text
    lines = [line for line in worker.text.splitlines() if "cannot be used" in line]
    assert len(lines) == 1, worker.text
    assert "secret" not in worker.text
    return lines[0]


@pytest.mark.parametrize(
    ("path", "database", "remedy"),
    [
        (":secret@", "1", "correct the user and password in ARQ_REDIS_URL"),
        ("nobody:secret@", "1", "correct the user and password in ARQ_REDIS_URL"),
        ("", "99", "name a database that the server has"),
        ("few:sesame@", "1", "grant the Redis user what docs/production.md lists"),
    ],
)
async def test_a_login_or_database_that_is_not_there(
    own_redis: OwnRedis,
    own_processes: Processes,
    path: str,
    database: str,
    remedy: str,
) -> None:
    with redis.Redis(port=own_redis.port) as client:
        client.acl_setuser(
            "few", enabled=True, passwords=["+sesame"], categories=["+@connection"]
        )
        if path:
            client.config_set("requirepass", "right")
    url = f"redis://{path}127.0.0.1:{own_redis.port}/{database}"
    assert remedy in await refused(own_processes, url)


@pytest.mark.parametrize("database", ["0", "1"])
async def test_a_cluster(
    own_redis: OwnRedis, own_processes: Processes, database: str
) -> None:
    own_redis.stop()
    (own_redis.directory / "appendonlydir").rename(own_redis.directory / "old")
    # Its second port would be one that systems take for outgoing connections.
    port = str(free_port())
    own_redis.start("--cluster-enabled", "yes", "--cluster-port", port)
    url = f"redis://127.0.0.1:{own_redis.port}/{database}"
    line = await refused(own_processes, url)
    remedy = {
        "0": "cluster:// goes with that",
        "1": "name a database that the server has",
    }[database]
    assert "cluster" in line and remedy in line


async def test_a_certificate_that_is_not_trusted(
    own_redis: OwnRedis, own_processes: Processes
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with Proxy(own_redis.port, context) as proxy:
        line = await refused(own_processes, f"rediss://127.0.0.1:{proxy.port}/1")
    assert "trust its certificate: ?ssl_ca_certs=FILE in ARQ_REDIS_URL" in line


@pytest.mark.parametrize("text", ["none", "None", "NONE", "CERT_NONE", "cert_none"])
def test_ssl_cert_reqs_as_celery_spells_it(text: str) -> None:
    settings = parse_redis_url(f"rediss://localhost?ssl_cert_reqs={text}")
    assert settings.ssl_cert_reqs == "none"
    assert settings.ssl_check_hostname is False


def test_ssl_cert_reqs_that_demand_a_certificate() -> None:
    settings = parse_redis_url("rediss://localhost?ssl_cert_reqs=CERT_REQUIRED")
    assert settings.ssl_cert_reqs == "required"
    assert settings.ssl_check_hostname is True


async def test_the_client_is_told_of_a_wrong_password_at_once(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorten(monkeypatch, deadline=600, attempt=2)  # a call that waits for Redis
    with redis.Redis(port=own_redis.port) as client:
        client.config_set("requirepass", "right")
    app = App(own_redis.url.replace("://", "://:secret@"))
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(QueueUnavailableError, match="see ARQ_REDIS_URL"):
            await app.enqueue("job")
        with pytest.raises(QueueUnavailableError, match="see ARQ_REDIS_URL"):
            await app.lookup.get_job_status("x")
    await app.server.close()


async def test_a_password_that_is_changed_meanwhile_is_waited_for(
    own_redis: OwnRedis, own_processes: Processes
) -> None:
    """Whoever changes it may do so for a moment: a running worker does not end."""
    worker = await own_processes.start()
    with redis.Redis(port=own_redis.port, db=1) as client:
        client.config_set("requirepass", "new")
        client.client_kill_filter(_type="normal", skipme=True)
        client.client_kill_filter(_type="pubsub", skipme=True)
        await worker.wait_for("Waiting for Redis")
        client.config_set("requirepass", "")
    await worker.wait_for("Redis is back")
    assert await worker.stop() == 0
