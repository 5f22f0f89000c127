"""How the client and the worker connect to Redis."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from arq import ArqRedis
from arq.connections import RedisSettings
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError

from .cluster import cluster_pool

#: What a call raises while Redis cannot be reached, or refuses to work.
REDIS_ERRORS = (RedisError, OSError)

# A peer that is gone without a word is noticed after 15 s of silence and three probes
# that nobody answers, 5 s apart; or when what was sent is not acknowledged within 20 s.
# macOS has no TCP_USER_TIMEOUT, and another name for TCP_KEEPIDLE.
_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in {
        "TCP_KEEPIDLE": 15,
        "TCP_KEEPALIVE": 15,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 20_000,
    }.items()
    if hasattr(socket, name)
}


@dataclass
class ServerSettings(RedisSettings):
    """arq's, and what it does not know."""

    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)
    """How to log in to the Sentinels themselves."""
    is_cluster: bool = False
    """Are the hosts nodes of a cluster?"""


@contextmanager
def losses_named() -> Iterator[None]:
    """A connection that is lost is a ConnectionError."""
    try:
        yield
    except (AttributeError, TypeError, RuntimeError) as exc:
        # Python 3.12 and 3.13 write on to a lost connection, whose parts are None
        # by then (https://github.com/python/cpython/issues/136234); uvloop says
        # that its handler is closed.
        if not str(exc).startswith(("'NoneType' object", "unable to perform")):
            raise
        raise ConnectionError("Connection lost") from exc


class _Once(Retry):
    """Tries once, since client and worker try again themselves."""

    async def call_with_retry(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        with losses_named():
            return await super().call_with_retry(do, *args, **kwargs)


async def _greet(connection: Any) -> None:
    """Log in, as redis-py does; where the server closes over it, find out why."""
    try:
        with losses_named():
            await connection.on_connect()
    except ConnectionError as exc:
        said = b"" if connection.is_connected else await _first_words(connection)
        if said.startswith(b"-"):
            raise ConnectionError(said[1:].decode(errors="replace").strip()) from exc
        raise


async def _first_words(connection: Any) -> bytes:
    """What a server says to whoever connects: that it has too many clients, say.

    It closes then, and whoever has written meanwhile cannot read it any more.
    """
    said = b""
    with suppress(OSError, AttributeError):  # of a UNIX socket; a timeout is an OSError
        async with asyncio.timeout(0.3):
            reader, writer = await asyncio.open_connection(
                connection.host, connection.port
            )
            try:
                said = await reader.readline()
            finally:
                writer.transport.abort()
    return said


def parse_redis_url(url: str) -> RedisSettings:
    """Turn a Redis URL into the settings arq connects with.

    Takes what redis-py takes: redis://, rediss:// (TLS, ssl_* options in the query)
    and unix://. And for Sentinel: sentinel://[user:password@]host:port,.../master/db,
    with sentinel_username, sentinel_password and sentinel_ssl=true in the query where
    the Sentinels themselves ask for them. For a cluster: cluster://host:port,... with
    some of its nodes; ssl=true in the query for TLS, as with Sentinel.

    Raises:
        ValueError, TypeError: The URL is malformed, or has an option unknown to arq.
    """
    parts = urlsplit(url)
    several: dict[str, Any] = {}
    if parts.scheme in ("sentinel", "cluster"):
        login, at, hosts = parts.netloc.rpartition("@")
        master, _, database = parts.path.strip("/").partition("/")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        pairs = [host.rpartition(":") for host in hosts.split(",")]
        several = {"host": [(host, int(port)) for host, _, port in pairs]}
        if parts.scheme == "cluster":
            if parts.path.strip("/") not in ("", "0"):
                raise ValueError("a cluster has no databases")
            several["is_cluster"] = True
        else:
            names = ("username", "password", "ssl")
            own: dict[str, Any] = {
                name: query.pop(f"sentinel_{name}", "") for name in names
            }
            own["ssl"] = own["ssl"].lower() in ("true", "1", "yes")
            several |= {
                "sentinel": True,
                "sentinel_master": unquote(master),
                "sentinel_options": {name: it for name, it in own.items() if it},
            }
        text = f"redis{'s' if query.pop('ssl', '') == 'true' else ''}://"
        parts = urlsplit(f"{text}{login}{at}/{database}?{urlencode(query)}")
    if parts.scheme != "unix":
        int(parts.path.strip("/") or 0)  # redis-py reads a path it cannot use as 0
    found: dict[str, Any] = dict(parse_url(parts.geturl()))
    if found.pop("connection_class", None) is SSLConnection:
        found["ssl"] = True
    if "ssl_cert_reqs" in found:  # CERT_NONE, as Celery has it, is none
        found["ssl_cert_reqs"] = found["ssl_cert_reqs"].lower().removeprefix("cert_")
    if found.get("ssl"):
        # redis-py 5 and arq check host names only when told to
        verified = found.get("ssl_cert_reqs") != "none"
        found.setdefault("ssl_check_hostname", verified)
    if "db" in found:
        found["database"] = found.pop("db")
    if "path" in found:
        found["unix_socket_path"] = found.pop("path")
    return ServerSettings(**found | several, conn_timeout=2, conn_retries=0)


def connect(
    redis_settings: RedisSettings,
    *,
    socket_timeout: float | None = None,
    **options: Any,
) -> ArqRedis:
    """A pool of connections, each opened when it is first needed.

    Args:
        redis_settings: All of arq's are honoured, but for conn_retries and
            conn_retry_delay: nothing is connected here. Those of retries are for single
            commands: whoever runs scripts tries again anyway.
        socket_timeout: Seconds that Redis may take to answer. A command that blocks
            in Redis for longer (BLPOP, say) fails with it.
        options: job_serializer, job_deserializer, default_queue_name and
            expires_extra_ms, as arq.create_pool has them.
    """
    kwargs: dict[str, Any] = {
        "db": redis_settings.database,
        "username": redis_settings.username,
        "password": redis_settings.password,
        "max_connections": redis_settings.max_connections,
        "socket_timeout": socket_timeout,
        "redis_connect_func": _greet,
        "retry": redis_settings.retry or _Once(NoBackoff(), 0),
        "retry_on_error": redis_settings.retry_on_error or [],
    }
    if redis_settings.retry_on_timeout:  # a default of redis-py 6, and deprecated
        kwargs["retry_on_timeout"] = True
    if redis_settings.unix_socket_path is None:
        kwargs["socket_connect_timeout"] = redis_settings.conn_timeout
        kwargs["socket_keepalive"] = True
        kwargs["socket_keepalive_options"] = _KEEPALIVE
    known, ssl = vars(redis_settings), redis_settings.ssl
    tls = {name: known[name] for name in known if name.startswith("ssl_")}
    if ssl:
        kwargs |= tls
    if redis_settings.sentinel:
        if isinstance(redis_settings.host, str):
            raise RuntimeError(
                "str provided for 'host' but 'sentinel' is true; "
                "list of sentinels expected"
            )
        own = dict(getattr(redis_settings, "sentinel_options", {}))
        sockets = {key: value for key, value in kwargs.items() if "socket_" in key}
        sentinel = Sentinel(  # type: ignore[no-untyped-call]
            redis_settings.host,
            sentinel_kwargs=sockets | own | (tls if own.get("ssl") else {}),
            ssl=ssl,
            **kwargs,
        )
        pool: ArqRedis = sentinel.master_for(
            redis_settings.sentinel_master, redis_class=ArqRedis
        )
    elif isinstance(redis_settings.host, list):
        nodes, queue = redis_settings.host, options.get("default_queue_name", "")
        pool = ArqRedis(cluster_pool(nodes, queue, ssl=ssl, **kwargs))
    else:
        pool = ArqRedis(
            host=redis_settings.host,
            port=redis_settings.port,
            unix_socket_path=redis_settings.unix_socket_path,
            ssl=ssl,
            **kwargs,
        )
    for name, value in options.items():
        setattr(pool, name, value)
    return pool


def is_of_replica(exc: BaseException) -> bool:
    """Is it the answer of a server that is no longer the master of the queue?"""
    return isinstance(exc, ReadOnlyError) or str(exc).startswith("MOVED ")


async def drop_replica(redis: ArqRedis, exc: BaseException) -> None:
    """After a failover, let go of the connections to what is a replica by now."""
    if is_of_replica(exc):
        for connection in list(redis.connection_pool._available_connections):
            await connection.disconnect(nowait=True)


def address(redis_settings: RedisSettings) -> str:
    """Where Redis should be, without a password."""
    host, port = redis_settings.host, redis_settings.port
    hosts = f"{host}:{port}" if isinstance(host, str) else f"{host}"  # of Sentinel
    return redis_settings.unix_socket_path or hosts
