"""The queues of a project: what client, operations, command and page are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

from arq import ArqRedis
from arq.connections import RedisSettings
from arq.cron import CronJob
from arq.utils import import_string
from arq.worker import Function

from .keys import hash_tag
from .limits import Limit
from .scripts import Script, run_script
from .serializer import Serializer
from .server import Server

Task = Callable[..., Any]


class Queue:
    """A queue: its name, its server, and the tasks that its settings classes have."""

    def __init__(self, name: str, server: Server) -> None:
        self.name = name
        self.server = server
        self.settings_classes: list[type] = []
        self.limits: list[Limit] = []  # those of all its jobs
        self._known: tuple[list[Any], dict[str, Task]] = [], {}

    @property
    def serializer(self) -> Serializer:
        """How its jobs are written."""
        return self.server.serializer

    def tasks(self) -> dict[str, Task]:
        """The tasks by name; looked up anew whenever one has been added."""
        registered: list[Any] = []
        for cls in self.settings_classes:
            registered += getattr(cls, "functions", ())
            registered += getattr(cls, "cron_jobs", None) or ()
        if self._known[0] != registered:
            self._known = registered, dict(map(_named, registered))
        return self._known[1]

    def find(self, function: str | Task) -> tuple[str, Task] | None:
        """A task and its name here; None when it is not known here."""
        known = self.tasks()
        if isinstance(function, str):
            task = known.get(function)
            return None if task is None else (function, task)
        return next(((name, it) for name, it in known.items() if it is function), None)

    async def redis(self) -> ArqRedis:
        """The client's connections in the running event loop."""
        return (await self.server.pool()).redis

    async def run(
        self, script: Script, keys: Iterable[str | bytes], values: Iterable[Any]
    ) -> Any:
        """Run a script within the deadline of a call; must do no harm when run twice.

        Raises:
            QueueUnavailableError, redis.exceptions.RedisError: As Server.call.
        """
        return await self.server.call(run_script, script, [*keys], [*values])


class Target(NamedTuple):
    """Where a call goes."""

    queue: Queue
    name: str
    """Of the task."""
    task: Task | None
    """None where it is not known here."""
    limits: list[Limit] | None
    """Of all jobs of the queue; None where not even the task's own hold."""


class Queues:
    """The queues of a project, by name: the default one, and one for each class.

    Args:
        default: The one that calls use unless they say otherwise.
        tasks_module: Where the project's worker settings are, to be imported with the
            first call that needs them.
        external: Names of queues that another service's workers serve: what is sent
            there is not checked.
    """

    def __init__(
        self, default: Queue, tasks_module: str = "", external: Iterable[str] = ()
    ) -> None:
        self.default = default
        self.external = frozenset(external)
        self._tasks_module = tasks_module
        self._by_name = {default.name: default}
        self._servers = [default.server]
        self.run_inline: Callable[[Queue, Any], Awaitable[Any]] | None = None
        self.has_limits = True  # those of tasks; tests do without

    def register(self, settings_class: Any) -> None:
        """Take in worker settings: their queue, their tasks, their server."""
        name: str = settings_class.queue_name
        if name not in self._by_name:
            default = self.default.server.redis_settings
            where = getattr(settings_class, "redis_settings", default)
            self._by_name[name] = Queue(name, self._server(where, name))
        queue = self._by_name[name]
        queue.settings_classes.append(settings_class)
        limits = getattr(settings_class, "limits", ())
        queue.limits += [one for one in limits if one not in queue.limits]

    def _server(self, where: RedisSettings, name: str) -> Server:
        is_cluster = getattr(where, "is_cluster", False)
        for server in self._servers:
            has_queue = not is_cluster or hash_tag(server.queue_name) == hash_tag(name)
            if server.redis_settings == where and has_queue:
                return server
        default = self.default.server
        server = Server(where, default.serializer, name, default._unavailable)
        self._servers.append(server)
        return server

    def _stranger(self, name: str) -> Queue:
        return Queue(name, self._server(self.default.server.redis_settings, name))

    async def close(self) -> None:
        """Close the connections of the running event loop."""
        for server in self._servers:
            await server.close()

    def load(self) -> None:
        """Import the project's tasks, once.

        Raises:
            Exception: Whatever the module raises.
        """
        if self._tasks_module:
            import_module(self._tasks_module)
            self._tasks_module = ""

    @contextmanager
    def inline(self, run: Callable[[Queue, Any], Awaitable[Any]]) -> Iterator[None]:
        """For the length of the block, run jobs instead of sending them; for tests."""
        before, self.run_inline = self.run_inline, run
        try:
            yield
        finally:
            self.run_inline = before

    def known(self) -> list[Queue]:
        """All that are known here, the default one first."""
        return [*self._by_name.values()]

    def get(self, name: str | None) -> Queue:
        """The queue of this name, the default one without.

        Any name will do: whoever looks up, does not send.
        """
        if name is None:
            return self.default
        self.load()
        return self._by_name.get(name) or self._stranger(name)

    def target(self, function: str | Task, queue_name: str | None) -> Target:
        """Where a call of the task goes.

        Raises:
            TypeError: That is no task.
            ValueError: There is no such queue, or no such task; or several queues have
                it, and none of them is the default one.
        """
        self.load()
        queue = self.default if queue_name is None else self._served(queue_name)
        found = queue.find(function)
        if found is None and queue_name is None:
            others = [(one, it) for one in self.known() if (it := one.find(function))]
            if others[1:]:
                names = ", ".join(repr(one.name) for one, _ in others)
                raise ValueError(
                    f"{function!r} is a task of several queues: say _queue_name={names}"
                )
            queue, found = others[0] if others else (queue, None)
        name, task = found or self._unknown(function, queue, queue_name)
        return Target(queue, name, task, queue.limits if self.has_limits else None)

    def _unknown(
        self, function: str | Task, queue: Queue, queue_name: str | None
    ) -> tuple[str, Task | None]:
        """A task that is not known here, where it may be one all the same."""
        queues = self.known() if queue_name is None else [queue]
        known = {task for queue in queues for task in queue.tasks()}
        if not (isinstance(function, str) or callable(function)):
            text = f"a task, or its name, is what to enqueue, not {function!r:.100}"
            raise TypeError(text)
        name = str(getattr(function, "__qualname__", function))
        if known and (queue_name is None or name not in known):
            where = "" if queue_name is None else f" on queue {queue_name!r}"
            raise ValueError(f"no task {name!r}{where}{instead(name, known)}")
        return name, None if isinstance(function, str) else function

    def _served(self, name: str) -> Queue:
        queue = self._by_name.get(name)
        if queue is None:
            is_served = any(one.settings_classes for one in self.known())
            if is_served and name not in self.external:
                raise ValueError(
                    f"no queue {name!r}: no worker settings have it, and it is not "
                    f"external{instead(name, self._by_name)}"
                )
            queue = self._stranger(name)
        return queue


def instead(name: str, known: Iterable[str]) -> str:
    """The end of a message about a name that is not known."""
    if close := get_close_matches(name, known, 1):
        return f"; did you mean {close[0]!r}?"
    return f"; there is {', '.join(sorted(known)) or 'none'}"


def _named(function: Any) -> tuple[str, Task]:
    if isinstance(function, Function | CronJob):
        return function.name, function.coroutine
    if isinstance(function, str):
        return function, import_string(function)
    return function.__qualname__, function
