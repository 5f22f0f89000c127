"""What the template knows about the Paxx project it is copied into.

Read only. Copier renders questions and messages with `paxx` in their context: the
`Project` at the destination. Files are rendered from answers alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePath
from typing import Any

import yaml
from copier_template_extensions import ContextHook

OURS = "copier update"
"""What every file of the template says at its head, and none of a project's own."""

COMPOSE_FILES = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
)
"""In Compose's own order of preference."""

REDIS_IMAGES = ("redis", "valkey", "redis-stack", "redis-stack-server", "dragonfly")

NAME = re.compile(r"[a-z0-9][\w.-]*", re.ASCII | re.IGNORECASE)
"""What a name in the project must be to be of use: nothing means more elsewhere."""

FILES = (
    *("core", "services", "db", "deploy", "deploy/linux-server", "settings"),
    *("settings.py", "main.py", "pyproject.toml", ".env", ".env.example"),
    *COMPOSE_FILES,
)
"""What is read or edited, and not the template's."""


@dataclass(frozen=True)
class Project:
    """Facts about the project in one directory, each read once."""

    root: Path

    def text(self, name: str) -> str:
        """The file's text, empty when there is none, or it is outside."""
        path = self.root / name
        if not path.is_file() or self.link_out(name):
            return ""
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def first(self, names: Iterable[str]) -> str:
        """The first of these files that there is; empty when there is none."""
        return next((name for name in names if (self.root / name).is_file()), "")

    def link_out(self, name: str) -> str:
        """The link by which a path leads out of the project; empty when none does."""
        root = os.path.realpath(self.root)  # Path.resolve fails where links circle
        for part in (*reversed(PurePath(name).parents[:-1]), PurePath(name)):
            real = PurePath(os.path.realpath(self.root / part))
            if (self.root / part).is_symlink() and not real.is_relative_to(root):
                return str(part)
        return ""

    def link_problem(self, names: Iterable[str] = FILES) -> str:
        """Why one of these paths is not written to; empty when it may be."""
        links = filter(None, map(self.link_out, names))
        if link := min(links, default=""):
            return (
                f"{link} is a link out of the project, where nothing is written: put a "
                "file or a link within the project there, and run copier again."
            )
        return ""

    # --- What it is ---------------------------------------------------------------

    @cached_property
    def settings_file(self) -> str:
        """settings.py, or the package's __init__.py."""
        return self.first(("settings.py", "settings/__init__.py"))

    @cached_property
    def name(self) -> str:
        """The project's name, which its containers have."""
        script = self.text("deploy/linux-server/deploy.sh")
        match = re.search(r'(?m)^APP_NAME="(.+)"$', script)
        name = match[1] if match else self.root.name
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "app"

    @cached_property
    def package(self) -> str:
        """Where the project keeps its infrastructure: services/ if it has one."""
        if self.old_queue:
            return self.old_queue
        return "services" if (self.root / "services").is_dir() else "core"

    @cached_property
    def old_queue(self) -> str:
        """The package with an arq.py not from here; empty when there is none.

        As a rule that of `paxx ext add arq`.
        """
        text = {it: self.text(f"{it}/arq.py") for it in ("services", "core")}
        return next((it for it in text if text[it] and OURS not in text[it]), "")

    def old_default(self, field: str, default: int) -> int:
        """The number in the default of an arq_* field that settings.py has already."""
        number = r"""["']?(?:redis://localhost:6379/)?(\d+)["']?$"""
        line = rf"(?m)^ +{field}: \w+ = {number}"
        match = re.search(line, self.text(self.settings_file))
        return int(match[1]) if match else default

    @cached_property
    def worker_classes(self) -> str:
        """The worker settings in tasks.py, one for each process, comma-separated.

        A class that serves the queues of others is there in their place.
        """
        found = ["WorkerSettings"]
        for package in ("core", "services"):
            text = self.text(f"{package}/tasks.py")
            text += self.text(f"{package}/tasks/__init__.py")
            for match in re.finditer(r"(?am)^class (\w+)\(([\w, ]+)\):", text):
                class_, bases = match[1], {*re.split(", *", match[2])}
                if {*found, "BaseWorkerSettings"} & bases and class_ not in found:
                    found.append(class_)
                elif "BaseMultiQueueSettings" in bases:
                    body = re.split(r"(?m)^\S", text[match.end() :])[0]
                    weights = re.search(r"(?m)^ +weights\b[^{]*{([^}]*)}", body)
                    served = re.findall(r"\w+", weights[1] if weights else "")
                    own = [it for it in found if it not in served]
                    at_first = found[0] in served
                    found = [class_, *own] if at_first else [*own, class_]
        return ",".join(found)

    # --- What it has --------------------------------------------------------------

    @cached_property
    def structlog(self) -> bool:
        """Does it have Paxx's configure_logging, and the settings for it?"""
        settings = self.text(self.settings_file)
        has_settings = "log_level" in settings and "log_format" in settings
        return has_settings and "def configure_logging(" in self.text("core/logging.py")

    @cached_property
    def app_exception(self) -> bool:
        """Does it have Paxx's AppException, which says how a request is answered?"""
        fields = ("message", "status_code", "detail")
        needed = [f"self.{name} = {name}" for name in fields]
        text = self.text("core/exceptions.py")
        return all(it in text for it in ("class AppException(Exception)", *needed))

    @cached_property
    def sqlalchemy(self) -> bool:
        """Is SQLAlchemy among its dependencies?"""
        return "sqlalchemy" in self.text("pyproject.toml").lower()

    @cached_property
    def database(self) -> bool:
        """Does it have Paxx's SQLAlchemy session factory?"""
        text = self.text("db/database.py")
        return "async_session_factory =" in text and "async def close_db(" in text

    @cached_property
    def metrics(self) -> bool:
        """Did it run `paxx infra add metrics`?"""
        return "prometheus_client" in self.text("services/metrics.py")

    @cached_property
    def linux_server(self) -> bool:
        """Did it run `paxx deploy add linux-server`?"""
        return (self.root / "deploy/linux-server/deploy.sh").is_file()

    def has_password(self) -> bool:
        """Is the password of the jobs page in .env, by now?"""
        return re.search("^ARQ_PAGE_PASSWORD=.", self.text(".env"), re.M) is not None

    # --- Redis --------------------------------------------------------------------

    @cached_property
    def cache_db(self) -> int | None:
        """The Redis database of the cache (REDIS_URL); None when there is no cache."""
        texts = map(self.text, (".env", ".env.example", self.settings_file))
        set_to = r"""(?im)^\s*redis_url\b[^=\n]*=\s*["']?rediss?://[^/\s"']*/?(\d*)"""
        match = re.search(set_to, "\n".join(texts))
        return int(match[1] or 0) if match else None

    @cached_property
    def queue_name(self) -> str:
        """The queue's name in Redis: the project's own, or arq's if it had that."""
        if self.old_queue:
            return "arq:queue"
        return "arq:queue:" + re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    # --- Compose ------------------------------------------------------------------

    @cached_property
    def compose_file(self) -> str:
        """The project's Compose file; empty when there is none."""
        return self.first(COMPOSE_FILES)

    @cached_property
    def override_files(self) -> list[str]:
        """The override files that Compose reads by itself: one at most, as a rule."""
        names = [name.replace(".y", ".override.y") for name in COMPOSE_FILES]
        return [name for name in names if (self.root / name).exists()]

    @cached_property
    def worker_file(self) -> str:
        """Where the Compose worker goes.

        The override file that Compose reads by itself; compose.worker.yml when the
        project has one of its own.
        """
        if self.override_files or not self.compose_file:
            return "compose.worker.yml"
        return self.compose_file.replace(".y", ".override.y")

    @cached_property
    def services(self) -> dict[str, dict[str, Any]]:
        """The services in the Compose file, and in override files of the project's."""
        found: dict[str, dict[str, Any]] = {}
        for file in (self.compose_file, *self.override_files):
            text = self.text(file)
            if OURS in text:
                continue
            for name, service in _compose_services(text).items():
                found[name] = found.get(name, {}) | service
        return found

    @cached_property
    def built_services(self) -> list[str]:
        """The Compose services that are built from the project, and not from a part."""

        def is_built(build: Any) -> bool:
            context = build.get("context", ".") if isinstance(build, dict) else build
            return isinstance(context, str) and os.path.normpath(context) == "."

        return [name for name, it in self.services.items() if is_built(it.get("build"))]

    @cached_property
    def app_service(self) -> str:
        """The Compose service that runs the app: `app`, or the first that is built."""
        built = self.built_services
        return "app" if "app" in self.services or not built else built[0]

    @cached_property
    def worker_service(self) -> str:
        """The Compose service of our worker: `worker`, unless the project has one."""
        return "arq-worker" if "worker" in self.services else "worker"

    @cached_property
    def redis_service(self) -> str:
        """The Compose service that runs Redis; empty when there is none.

        By its image, which is not that of an exporter or a page; else by its name.
        """
        for name, service in self.services.items():
            image = service.get("image")
            if not isinstance(image, str):
                continue
            image = re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", image).rpartition("/")[2]
            if re.fullmatch(rf"({'|'.join(REDIS_IMAGES)})([:@].*)?", image):
                return name
        return next((name for name in REDIS_IMAGES if name in self.services), "")

    @cached_property
    def redis_condition(self) -> str:
        """What to wait for in depends_on."""
        service = self.services.get(self.redis_service, {"healthcheck": "ours"})
        return "service_healthy" if "healthcheck" in service else "service_started"

    @cached_property
    def compose_doubts(self) -> str:
        """What was guessed about the Compose file; empty when nothing was."""
        built = self.built_services
        if self.app_service not in self.services:
            return f"{self.compose_file} has no service that is built from this project"
        if len(built) > 1 and "app" not in built:
            return f"{self.compose_file} builds {', '.join(built)}"
        return ""

    # --- Answers that were kept ---------------------------------------------------

    def outdated(self, name: str, answer: Any) -> str:
        """Why an answer is to be read anew; empty when it holds.

        Copier replaces an answer that its validator finds invalid by the default. It
        holds where an update renders for comparison, and there is no project.
        """
        now = getattr(self, name, None)
        is_project = (self.root / "main.py").is_file()
        if name == "worker_classes" and is_project and answer != now:
            return "it is read from tasks.py, leave it out."
        if name in ("compose_file", "redis_service") and now and not answer:
            return f"it cannot be empty, there is {now}."
        if name in ("metrics", "linux_server") and now and not answer:
            return "it cannot be no, the project has it."
        if name == "redis_condition" and now == "service_started" and answer != now:
            return "it is service_started, as that Redis has no health check."
        return ""

    # --- Git ----------------------------------------------------------------------

    @cached_property
    def git(self) -> bool:
        """Is it tracked by git, which `copier update` needs?"""
        return any((up / ".git").exists() for up in (self.root, *self.root.parents))


# Copier asks for the context some forty times, and must see one state throughout.
_project = lru_cache(Project)


class PaxxProject(ContextHook):
    """Puts `paxx` into Copier's context."""

    def hook(self, context: dict[str, Any]) -> None:
        """Add to the context of a string or file that Copier is about to render."""
        context["paxx"] = _project(Path(context["_copier_conf"]["dst_path"]).absolute())


# --- Compose ------------------------------------------------------------------------


class _ComposeLoader(yaml.SafeLoader):
    """Reads Compose's own tags, such as !reset, as what they are put before."""


def _untagged(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return None


_ComposeLoader.add_multi_constructor("!", _untagged)


def _compose_services(text: str) -> dict[str, dict[str, Any]]:
    """The services by name; none where the file cannot be read."""
    try:
        services = yaml.load(text, _ComposeLoader)["services"]
        named = {k: v for k, v in services.items() if NAME.fullmatch(str(k))}
        return {str(k): v for k, v in named.items() if isinstance(v, dict)}
    except (yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError):
        return {}
    except RecursionError:  # nested without end
        return {}
