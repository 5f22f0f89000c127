"""What the template knows about the Paxx project it is copied into.

Read only. Copier renders questions, messages and files with `paxx` in their context:
the `Project` at the destination.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path, PurePath
from typing import Any

import yaml
from copier.errors import UserMessageError
from copier_template_extensions import ContextHook

# What every answers file of this template has, and hardly another one.
FINGERPRINT = "job_timeout:"

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
        if self.settings_file and not re.search(
            r"^(settings *[:=]|from [\w.]+ import (\([^)]*|.*)(\bsettings\b|\*))",
            self.text(self.settings_file),
            re.MULTILINE,
        ):
            return (
                f"{self.settings_file} has no `settings`, which the queue imports: add "
                "`settings = Settings()` at its end and run copier again."
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
    def dirty(self) -> bool:
        """Are there changes that are not committed?"""
        return bool(_git(self.root, "status", "--porcelain"))

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
    def worker_service(self) -> str:
        """The Compose service of our worker: `worker`, unless the project has one."""
        return "arq-worker" if "worker" in self.services else "worker"

    @cached_property
    def redis_service(self) -> str:
        """The Compose service that runs Redis; empty when there is none.

        By its image, which is not that of an exporter or a page; else by its name.
        """
        for name, service in self.services.items():
            image = str(service.get("image", ""))
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

    def outdated(self, name: str, answer: Any) -> str:
        """Why an answer is to be read anew; empty when it holds.

        Copier replaces an answer that its validator finds invalid by the default. It
        holds where an update renders for comparison, and there is no project.
        """
        now = getattr(self, name)
        several = "," in f"{answer}{now}"
        if name == "worker_classes" and self.main and several and answer != now:
            return "tasks.py has other queues by now."
        if name in ("compose_file", "redis_service") and now and not answer:
            return f"There is {now} by now."
        if name in ("metrics", "linux_server") and now and not answer:
            return "The project has it by now."
        if name == "redis_condition" and now == "service_started" and answer != now:
            return "The Redis of the project's own has no health check."
        return ""

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
def _is_bool(value: Any) -> bool:
    return _as_bool(value) is not None


def _is_plain(value: Any) -> bool:
    """Can it be written into a script, a Compose file and Python as it is?"""
    return re.fullmatch(r"[^\"'`$\\{}\x00-\x1f]*", str(value)) is not None


YES_OR_NO = (_is_bool, "Type y or n.")
PLAIN = (_is_plain, "It must have no quotes, $ or the like.")

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
    "include_cron_examples": YES_OR_NO,
    "include_compose_worker": YES_OR_NO,
    "include_jobs_page": YES_OR_NO,
    "structlog": YES_OR_NO,
    "app_exception": YES_OR_NO,
    "sqlalchemy": YES_OR_NO,
    "database": YES_OR_NO,
    "metrics": YES_OR_NO,
    "linux_server": YES_OR_NO,
    "serializer": (
        lambda value: value in ("json", "pickle"),
        "Type json or pickle.",
    ),
    "mode": (
        lambda value: value in ("write", "diff", "check", "remove", "remove-all"),
        "Type write, diff, check, remove or remove-all.",
    ),
    "queue_name": PLAIN,
    "worker_classes": PLAIN,
    "project_name": PLAIN,
    "compose_file": PLAIN,
    "worker_file": PLAIN,
    "app_service": PLAIN,
    "worker_service": PLAIN,
    "redis_service": PLAIN,
    "redis_condition": PLAIN,
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
        context["refuse_losses"] = lambda: self._refuse_losses(context)
        context["rendered_files"] = lambda: sorted(self._rendered(context))
        context["ignored_files"] = lambda: _ignored(root, [*self._rendered(context)])
        mode = conf["data"].get("mode", "write")
        if context.get("_stage") == "before" and mode != "write":  # of an update
            raise UserMessageError(
                f"mode={mode}: it is for `copier copy` and `recopy`."
            )
        answers_file = str(conf["answers_file"])
        # empty while Copier is finding out what it is
        if answers_file and context["_copier_phase"] == "prompt":
            problem = _refusal(project, answers_file, dict(conf["data"]))
            if project.old_queue and not (conf["overwrite"] or sys.stdin.isatty()):
                problem = problem or (
                    f"{project.old_queue}/arq.py is there already: add --overwrite to "
                    "replace it. tasks.py stays as it is."
                )
            if problem:
                raise UserMessageError(problem)

    def _refuse_losses(self, context: dict[str, Any]) -> str:
        """Refuse to overwrite or delete what git has no copy of.

        Asked by copier.yml after the last question, when nothing has been written.

        Raises:
            copier.errors.UserMessageError: Something would be lost.
        """
        conf = context["_copier_conf"]
        root = Path(conf["dst_path"]).absolute()
        if _is_scratch(root) or context["mode"] != "write":
            return ""
        project = _project(root)
        answers_file = str(conf["answers_file"])
        answers = _yaml(project.text(answers_file))
        skipped = [*self._skipped(context), answers_file]
        touched = [
            name
            for name, content in self._rendered(context).items()
            if name not in skipped and _differs(root / name, content)
        ]
        foreign = [name for name in touched if name != f"{project.old_queue}/arq.py"]
        if foreign and not answers:
            raise UserMessageError(
                f"{', '.join(foreign)}: not of this template, which has a file of that "
                "name. Rename yours and run copier again."
            )
        before = self._rendered_before({**context, **answers}, answers)
        gone = before - self._rendered(context).keys() - {*skipped}
        touched += [name for name in sorted(gone) if (root / name).is_file()]
        lost = [name for name in touched if name not in _in_git(root)]
        if lost:
            raise UserMessageError(
                f"{', '.join(lost)}: git has no copy, and it would be overwritten. Run "
                f"`git add -f {' '.join(lost)}`, commit, and run copier again."
            )
        return ""

    def _rendered(self, context: dict[str, Any]) -> dict[str, bytes]:
        """What the template renders from these answers: path and content."""
        root = Path(context["_copier_conf"]["src_path"]) / "template"
        files: dict[str, bytes] = {}
        for path in root.rglob("*"):
            name = self._name(path.relative_to(root).parts, context)
            if name and path.is_file():
                files[name] = path.read_bytes()
                if path.suffix == ".jinja":
                    files[name] = self._string(files[name].decode(), context).encode()
        return files

    def _rendered_before(
        self, context: dict[str, Any], answers: dict[str, Any]
    ) -> set[str]:
        """The paths of what the version in the answers file has rendered."""
        commit, source = answers.get("_commit"), context["_copier_conf"]["src_path"]
        if not isinstance(commit, str) or commit.startswith("-"):
            return set()
        listed = _git(Path(source), "ls-tree", "-r", "--name-only", commit, "template")
        paths = [PurePath(line).parts[1:] for line in listed.splitlines()]
        return {self._name(parts, context) for parts in paths} - {""}

    def _name(self, parts: Sequence[str], context: dict[str, Any]) -> str:
        """The path of a template's file in the project; empty when it is left out."""
        names = [self._string(part, context) for part in parts]
        return "/".join(names).removesuffix(".jinja") if all(names) else ""

    def _skipped(self, context: dict[str, Any]) -> list[str]:
        """The files that stay as they are when they exist."""
        text = (Path(context["_copier_conf"]["src_path"]) / "copier.yml").read_text()
        return [self._string(it, context) for it in _yaml(text)["_skip_if_exists"]]

    def _string(self, text: str, context: dict[str, Any]) -> str:
        return self.environment.from_string(text).render(context)


def _differs(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() != content


def _yaml(text: str) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(text)
    except yaml.YAMLError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _git(root: Path, *arguments: str) -> str:
    """What git prints; nothing when it fails, or is not there."""
    try:
        return subprocess.run(
            ["git", "-c", "core.quotePath=false", *arguments],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def _in_git(root: Path) -> set[str]:
    """The files of which the last commit has a copy, as they are."""
    committed = _git(root, "ls-tree", "-r", "--name-only", "HEAD").splitlines()
    changed = _git(root, "diff", "--name-only", "--relative", "HEAD").splitlines()
    return {*committed} - {*changed}


def _ignored(root: Path, names: list[str]) -> list[str]:
    """Those of the files that git ignores."""
    found = _git(root, "check-ignore", "--", *names).splitlines()
    return [name for name in found if name not in _in_git(root)]


def _refusal(project: Project, answers_file: str, data: dict[str, Any]) -> str:
    """Why not to go on; `data` is what --data said."""
    answers = project.text(answers_file)
    if answers and FINGERPRINT not in answers:
        return (
            f"{answers_file} belongs to another template: add "
            "`-a .copier-answers.arq.yml`, here and for each update."
        )
    for name in RULES.keys() & data.keys():
        if problem := answer_problem(name, data[name]):
            return f"{name}: {data[name]!r} will not do. {problem}"
    if _is_scratch(project.root):
        return ""
    if not answers and project.problem:
        return project.problem
    if data.get("worker_classes", project.worker_classes) != project.worker_classes:
        return "worker_classes: it is read from tasks.py, leave it out."
    for name in ("metrics", "linux_server"):
        if name in data and project.outdated(name, _as_bool(data[name])):
            return f"{name}: it cannot be no, the project has it."
    compose_file = data.get("compose_file", project.compose_file)
    if not compose_file and project.compose_file:
        return f"compose_file: it cannot be empty, there is {project.compose_file}."
    if _as_bool(data.get("include_compose_worker")) and not compose_file:
        return (
            "include_compose_worker: there is no Compose file to add the worker to. "
            "Add one, or answer no."
        )
    return ""
