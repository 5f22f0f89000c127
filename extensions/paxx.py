"""What the template knows about the Paxx project it is copied into.

Read only. Copier renders questions, messages and files with `paxx` in their context:
the `Project` at the destination.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml
from copier.errors import UserMessageError
from copier_template_extensions import ContextHook

# In Compose's own order of preference.
COMPOSE_FILES = (
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
)

REDIS_IMAGES = ("redis", "valkey", "redis-stack", "redis-stack-server", "dragonfly")


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
    try:
        services = yaml.load(text, _ComposeLoader)["services"]
        return {str(k): v for k, v in services.items() if isinstance(v, dict)}
    except (yaml.YAMLError, TypeError, KeyError, AttributeError, ValueError):
        return {}


@dataclass(frozen=True)
class Project:
    """Facts about the project in one directory, each read once."""

    root: Path

    def text(self, name: str) -> str:
        """The file's text, empty when there is none."""
        try:
            return (self.root / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    @cached_property
    def problem(self) -> str:
        """Why the template cannot be copied here, in one line; empty when it can."""
        names = ("main.py", "pyproject.toml")
        missing = [name for name in names if not (self.root / name).is_file()]
        if not self.settings_file and not (self.root / "settings").is_dir():
            missing.append("settings.py")
        if missing:
            return (
                f"{self.root} is not a Paxx project, it has no {', no '.join(missing)}:"
                " run copier in the directory that `paxx bootstrap` made."
            )
        if self.settings_file == "settings.py" and not re.search(
            r"^class Settings\b", self.text("settings.py"), re.MULTILINE
        ):
            return (
                "settings.py has no `class Settings`: the queue's settings are added "
                "to that class, so name yours Settings and run copier again."
            )
        if shutil.which("uv") is None:
            return (
                "uv is not on the PATH: it runs the step that edits settings.py and "
                "main.py. Install it (https://docs.astral.sh/uv) and run copier again."
            )
        return ""

    @cached_property
    def main(self) -> bool:
        """Is there a project at all? Not where an update renders for comparison."""
        return (self.root / "main.py").is_file()

    @cached_property
    def settings_file(self) -> str:
        """settings.py, or the package's __init__.py."""
        names = ("settings.py", "settings/__init__.py")
        return next((name for name in names if (self.root / name).is_file()), "")

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
        for package in ("services", "core"):
            text = self.text(f"{package}/arq.py")
            if text and "copier update" not in text:
                return package
        return ""

    def old_default(self, field: str, default: int) -> int:
        """The number in the default of an arq_* field that settings.py has already."""
        match = re.search(
            rf"""^ +{field}: \w+ = ["']?(?:redis://localhost:6379/)?(\d+)["']?$""",
            self.text(self.settings_file),
            re.MULTILINE,
        )
        return int(match[1]) if match else default

    @cached_property
    def git(self) -> bool:
        """Is it tracked by git, which `copier update` needs?"""
        return any((up / ".git").exists() for up in (self.root, *self.root.parents))

    @cached_property
    def structlog(self) -> bool:
        """Does it have Paxx's configure_logging, and the settings for it?"""
        return "def configure_logging(" in self.text("core/logging.py") and all(
            name in self.text(self.settings_file)
            for name in ("log_level", "log_format")
        )

    @cached_property
    def app_exception(self) -> bool:
        """Does it have Paxx's AppException, which says how a request is answered?"""
        text = self.text("core/exceptions.py")
        return "class AppException(Exception)" in text and all(
            f"self.{name} = {name}" in text
            for name in ("message", "status_code", "detail")
        )

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
    def redis_configured(self) -> bool:
        """Is a Redis named in the settings, the environment files or in Compose?"""
        texts = (self.settings_file, ".env", ".env.example")
        return bool(self.redis_service) or any(
            re.search("redis_url", self.text(name), re.IGNORECASE) for name in texts
        )

    @cached_property
    def cache_db(self) -> int | None:
        """The Redis database of the cache (REDIS_URL); None when there is no cache."""
        for name in (".env", ".env.example", self.settings_file):
            match = re.search(
                r"""^\s*redis_url\b[^=\n]*=\s*["']?rediss?://[^/\s"']*/?(\d*)""",
                self.text(name),
                re.IGNORECASE | re.MULTILINE,
            )
            if match:
                return int(match[1] or 0)
        return None

    @cached_property
    def compose_file(self) -> str:
        """The project's Compose file; empty when there is none."""
        names = (name for name in COMPOSE_FILES if (self.root / name).is_file())
        return next(names, "")

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
            if "copier update" in text:  # ours
                continue
            for name, service in _compose_services(text).items():
                found[name] = found.get(name, {}) | service
        return found

    @cached_property
    def built_services(self) -> list[str]:
        """The Compose services that are built from the project."""
        return [name for name, service in self.services.items() if "build" in service]

    @cached_property
    def app_service(self) -> str:
        """The Compose service that runs the app: `app`, or the first that is built."""
        built = self.built_services
        return "app" if "app" in self.services or not built else built[0]

    @cached_property
    def redis_service(self) -> str:
        """The Compose service that runs Redis; empty when there is none.

        By its image, which is not that of an exporter or a page; else by its name.
        """
        for name, service in self.services.items():
            image = str(service.get("image", "")).rpartition("/")[2]
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
            return f"{self.compose_file} has no service that is built"
        if len(built) > 1 and "app" not in built:
            return f"{self.compose_file} builds {', '.join(built)}"
        return ""

    @cached_property
    def worker_classes(self) -> str:
        """The worker settings in tasks.py, one for each queue, comma-separated."""
        found = ["WorkerSettings"]
        for package in ("core", "services"):
            for name in ("tasks.py", "tasks/__init__.py"):
                pattern = r"^class (\w+)\(([\w, ]+)\):"
                text = self.text(f"{package}/{name}")
                for name_, bases in re.findall(pattern, text, re.MULTILINE):
                    known = {*found, "BaseWorkerSettings"}
                    if known & set(re.split(", *", bases)) and name_ not in found:
                        found.append(name_)
        return ",".join(found)

    @cached_property
    def metrics(self) -> bool:
        """Did it run `paxx infra add metrics`?"""
        return "prometheus_client" in self.text("services/metrics.py")

    @cached_property
    def linux_server(self) -> bool:
        """Did it run `paxx deploy add linux-server`?"""
        return (self.root / "deploy/linux-server/deploy.sh").is_file()

    @cached_property
    def name(self) -> str:
        """The project's name, which its containers have."""
        match = re.search(
            r'^APP_NAME="([\w.-]+)"',
            self.text("deploy/linux-server/deploy.sh"),
            re.MULTILINE,
        )
        return match[1] if match else self.root.name

    @cached_property
    def queue_name(self) -> str:
        """The queue's name in Redis: the project's own, or arq's if it had that."""
        if self.old_queue:
            return "arq:queue"
        slug = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        return f"arq:queue:{slug}" if slug else "arq:queue"


# What an answer must be, and what to say otherwise. copier.yml's validators ask here,
# and so does the hook: for an answer given with --data, Copier would show a traceback.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "package": (
        lambda value: value in ("core", "services"),
        "Type core or services.",
    ),
    "redis_db": (
        lambda value: 0 <= int(value) <= 15,
        "Type a number from 0 to 15.",
    ),
    "max_jobs": (
        lambda value: int(value) >= 1,
        "Type a number of 1 or more.",
    ),
    "job_timeout": (
        lambda value: int(value) >= 1,
        "Type a number of seconds, 1 or more.",
    ),
    "include_cron_examples": (
        lambda value: _as_bool(value) is not None,
        "Type y or n.",
    ),
    "include_jobs_page": (
        lambda value: _as_bool(value) is not None,
        "Type y or n.",
    ),
    "include_compose_worker": (
        lambda value: _as_bool(value) is not None,
        "Type y or n.",
    ),
}


def _as_bool(value: Any) -> bool | None:
    texts = {"true": True, "false": False, "yes": True, "no": False}
    texts |= {"y": True, "n": False, "on": True, "off": False, "1": True, "0": False}
    return texts.get(str(value).lower())


def answer_problem(name: str, value: Any) -> str:
    """What to type instead; empty when the answer is fine."""
    valid, advice = RULES[name]
    try:
        return "" if valid(value) else advice
    except (TypeError, ValueError):
        return advice


def _is_scratch(root: Path) -> bool:
    """Is it one of the directories in which `copier update` renders for comparison?

    There is no project in them to have facts about, and an error would stop the update
    halfway. While skip patterns are rendered they are the working directory, ".".
    """
    return any(
        part.startswith("copier.") and ("old_copy." in part or "new_copy." in part)
        for part in root.absolute().parts
    )


# Copier asks for the context some forty times, and must see one state throughout.
_project = lru_cache(Project)


class PaxxProject(ContextHook):
    """Puts `paxx` into Copier's context, and refuses what is not a Paxx project."""

    def hook(self, context: dict[str, Any]) -> None:
        """Add to the context of a string or file that Copier is about to render.

        Raises:
            copier.errors.UserMessageError: Before the first question, when the template
                cannot be copied here. Nothing has been written then.
        """
        conf = context["_copier_conf"]
        root = Path(conf["dst_path"]).absolute()
        context["paxx"] = project = _project(root)
        context["answer_problem"] = answer_problem
        if context["_copier_phase"] == "prompt" and not _is_scratch(root):
            answers_file = str(conf["answers_file"])
            problem = _refusal(project, answers_file, dict(conf["data"]))
            if project.old_queue and not (conf["overwrite"] or sys.stdin.isatty()):
                problem = problem or (
                    f"{project.old_queue}/arq.py is there already: add --overwrite to "
                    "replace it. tasks.py stays as it is."
                )
            if problem:
                raise UserMessageError(problem)


def _refusal(project: Project, answers_file: str, data: dict[str, Any]) -> str:
    """Why not to go on; `data` is what --data said."""
    answers = project.text(answers_file)
    if answers and "job_timeout:" not in answers:
        return (
            f"{answers_file} belongs to another template: add "
            "`-a .copier-answers.arq.yml`, here and for each update."
        )
    if not answers and project.problem:
        return project.problem
    for name in RULES.keys() & data.keys():
        if problem := answer_problem(name, data[name]):
            return f"{name}: {data[name]!r} will not do. {problem}"
    if data.get("worker_classes", project.worker_classes) != project.worker_classes:
        return "worker_classes: it is read from tasks.py, leave it out."
    compose_file = data.get("compose_file", project.compose_file)
    if not compose_file and project.compose_file:
        return f"compose_file: it cannot be empty, there is {project.compose_file}."
    if _as_bool(data.get("include_compose_worker")) and not compose_file:
        return (
            "include_compose_worker: there is no Compose file to add the worker to. "
            "Add one, or answer no."
        )
    return ""
