"""What the template refuses: before anything is written, in one line.

Three times: before the first question, the hook refuses what is not a Paxx project, and
a wrong `--data` (a copy asks with `refuse`, above its notes); at each question, its
validator asks `answer_problem`; after the last one, copier.yml asks `refuse_losses`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import yaml
from copier.errors import UserMessageError
from copier_template_extensions import ContextHook

if TYPE_CHECKING:  # Copier loads each file alone
    from paxx import Project
    from repository import Repository

# What every answers file of this template has, and hardly another one.
FINGERPRINT = "job_timeout:"


class Preflight(ContextHook):
    """Refuses, and puts what copier.yml asks with into Copier's context.

    Copier makes one for each rendering, and asks it hundreds of times.
    """

    _may_begin = False
    _loses_nothing = False

    def hook(self, context: dict[str, Any]) -> None:
        """Add to the context of a string or file that Copier is about to render.

        Raises:
            copier.errors.UserMessageError: Before the first question, when the template
                cannot be copied here. Nothing has been written then.
        """
        conf = context["_copier_conf"]
        project: Project = context["paxx"]
        if _is_scratch(project.root):
            context["neutral_git"]()
        context["answer_problem"] = answer_problem
        context["refuse"] = lambda: self._refuse(context)
        context["refuse_losses"] = lambda: self._refuse_losses(context)
        context["rendered_files"] = lambda: sorted(self._files(context))
        context["ignored_files"] = lambda: context["repository"].ignored(
            [*self._files(context)]
        )
        mode = conf["data"].get("mode", "write")
        if context.get("_stage") == "before" and mode != "write":  # of an update
            raise UserMessageError(
                f"mode={mode}: it is for `copier copy` and `recopy`."
            )
        if context["_copier_phase"] == "prompt":
            self._refuse(context)

    def _refuse(self, context: dict[str, Any]) -> str:
        """Refuse to begin, where something speaks against it; else an empty text."""
        conf = context["_copier_conf"]
        # the name comes last: Copier renders it each time, and has none meanwhile
        if not self._may_begin and str(conf["answers_file"]):
            problem = _refusal(context["paxx"], context["repository"], conf)
            if problem:
                raise UserMessageError(problem)
            self._may_begin = True
        return ""

    def _refuse_losses(self, context: dict[str, Any]) -> str:
        """Refuse to overwrite or delete what git has no copy of.

        Asked by copier.yml after the last question, when nothing has been written.
        """
        project: Project = context["paxx"]
        repository: Repository = context["repository"]
        if self._loses_nothing or _is_scratch(project.root):
            return ""
        files = self._files(context)
        if problem := _wrong(context) or project.link_problem(files):
            raise UserMessageError(problem)
        if context["mode"] != "write":
            return ""
        answers_file = str(context["_copier_conf"]["answers_file"])
        answers = _yaml(project.text(answers_file))
        skipped = {*self._listed("_skip_if_exists", context), answers_file}
        there = {
            name: repository.content(name)
            for name in files
            if name not in skipped and repository.has(name)
        }
        if odd := [name for name in there if answers and not _is_text(there[name])]:
            raise UserMessageError(
                f"{odd[0]}: it is not UTF-8, and git would not merge it. Save it as "
                "UTF-8, commit, and run copier again."
            )
        differing = [
            name
            for name, content in there.items()
            if content != self._rendered(files[name], context)
        ]
        old = f"{project.old_queue}/arq.py"
        if foreign := [name for name in differing if not answers and name != old]:
            raise UserMessageError(
                f"{', '.join(foreign)}: not of this template, which has a file of that "
                "name. Rename yours and run copier again."
            )
        gone = self._rendered_before(context, answers) - files.keys() - skipped
        differing += [name for name in sorted(gone) if repository.has(name)]
        if lost := repository.uncommitted(differing):
            raise UserMessageError(_no_copy(repository, lost))
        self._loses_nothing = True
        return ""

    def _files(self, context: dict[str, Any]) -> dict[str, Path]:
        """What the template renders: its path in the project, and its template."""
        root = Path(context["_copier_conf"]["src_path"]) / "template"
        paths = [path for path in root.rglob("*") if path.is_file()]
        names = [self._name(path.relative_to(root).parts, context) for path in paths]
        left_out = tuple(f"{it}/" for it in self._listed("_exclude", context) if it)
        return {
            name: path
            for name, path in zip(names, paths, strict=True)
            if name and not f"{name}/".startswith(left_out)
        }

    def _rendered(self, template: Path, context: dict[str, Any]) -> bytes:
        """What the template makes of one file."""
        if template.suffix != ".jinja":
            return template.read_bytes()
        return self._string(template.read_text(encoding="utf-8"), context).encode()

    def _rendered_before(
        self, context: dict[str, Any], answers: dict[str, Any]
    ) -> set[str]:
        """The paths of what the version in the answers file has rendered."""
        commit = answers.get("_commit")
        if not isinstance(commit, str) or commit.startswith("-"):
            return set()
        source = str(context["_copier_conf"]["src_path"])
        listing = ("ls-tree", "-r", "--name-only", commit, "template")
        files = context["repository"].run("-C", source, *listing).splitlines()
        paths = [PurePath(file).parts[1:] for file in files]
        return {self._name(parts, {**context, **answers}) for parts in paths} - {""}

    def _name(self, parts: Sequence[str], context: dict[str, Any]) -> str:
        """The path of a template's file in the project; empty when it is left out."""
        names = [self._string(part, context).removesuffix(".jinja") for part in parts]
        return "/".join(names) if all(names) else ""

    def _listed(self, key: str, context: dict[str, Any]) -> list[str]:
        """Paths in copier.yml: those that are left out, or stay when they exist."""
        text = (Path(context["_copier_conf"]["src_path"]) / "copier.yml").read_text()
        return [self._string(it, context) for it in _yaml(text)[key]]

    def _string(self, text: str, context: dict[str, Any]) -> str:
        if "{" not in text:
            return text
        return self.environment.from_string(text).render(context)


def _no_copy(repository: Repository, names: Sequence[str]) -> str:
    """What to do about files that would be lost."""
    listed = repository.run("ls-files", "-v", "--", *names).splitlines()
    what = f"{', '.join(names)}: git has no copy, and it would be overwritten. "
    command = f"git add -f {' '.join(names)}"
    for flag, marks in (("assume-unchanged", "hs"), ("skip-worktree", "S")):
        if hidden := [line[2:] for line in listed if line[0] in marks]:
            what += f"Git was told not to look at it ({flag}). "
            command = f"git update-index --no-{flag} {' '.join(hidden)}"
    return f"{what}Run `{command}`, commit, and run copier again."


def _refusal(project: Project, repository: Repository, conf: Any) -> str:
    """Why not to begin; empty when nothing speaks against it."""
    answers_file, data = str(conf["answers_file"]), dict(conf["data"])
    answers = project.text(answers_file)
    if answers and FINGERPRINT not in answers:
        return (
            f"{answers_file} belongs to another template: add "
            "`-a .copier-answers.arq.yml`, here and for each update."
        )
    kept = _yaml(answers)
    if problem := _wrong({**kept, **data}):
        return problem
    if _is_scratch(project.root):
        return ""
    if problem := _unknown_version(repository, kept.get("_commit"), conf):
        return f"{answers_file}: {problem}"
    if not answers and (problem := _project_problem(project)):
        return problem
    mode = data.get("mode", "write")
    if mode in ("remove", "remove-all"):
        return _leaving_problem(project, repository, answers_file)
    if mode == "wire" and not answers:
        return f"mode=wire: there is no {answers_file} here, so there is no queue yet."
    for name, value in data.items():
        answer = _is_yes(value) if RULES.get(name) == YES_OR_NO else value
        if problem := project.outdated(name, answer):
            return f"{name}: {problem}"
    compose_file = data.get("compose_file", project.compose_file)
    database = _is_yes(data.get("database", project.database))
    for name, needed, what in (
        ("include_compose_worker", compose_file, "Compose file to add the worker to"),
        ("include_outbox", database, "db/database.py of Paxx's to keep jobs in"),
    ):
        if _is_yes(data.get(name)) and not needed:
            return f"{name}: there is no {what}. Add one, or answer no."
    may_overwrite = conf["overwrite"] or sys.stdin.isatty()
    if project.old_queue and mode == "write" and not may_overwrite:
        return (
            f"{project.old_queue}/arq.py is there already: add --overwrite to "
            "replace it. tasks.py stays as it is."
        )
    return ""


def _project_problem(project: Project) -> str:
    """Why the template cannot be copied here, in one line; empty when it can."""
    if sys.version_info < (3, 11):  # noqa: UP036
        return (
            "Copier runs on a Python before 3.11, which the template needs: "
            "`uvx -p 3.13 ...` takes a newer one."
        )
    if problem := project.link_problem():
        return problem
    names = ("main.py", "pyproject.toml")
    missing = [name for name in names if not (project.root / name).is_file()]
    if not project.settings_file and not (project.root / "settings").is_dir():
        missing.append("settings.py")
    if missing:
        return (
            f"{project.root} is not a Paxx project, it has no {', no '.join(missing)}:"
            " run copier in the directory that `paxx bootstrap` made."
        )
    text = project.text(project.settings_file)
    object_ = r"(?m)^(settings *[:=]|from [\w.]+ import (\([^)]*|.*)(\bsettings\b|\*))"
    if project.settings_file and not re.search(object_, text):
        return (
            f"{project.settings_file} has no `settings`, which the queue imports: add "
            "`settings = Settings()` at its end and run copier again."
        )
    return ""


def _unknown_version(repository: Repository, commit: Any, conf: Any) -> str:
    """Why the version that has rendered last is none of the template's.

    A stranger's commit can be in its repository, too: that of a pull request, say.
    """
    source = str(conf["src_path"])
    if commit is None or not repository.run("-C", source, "rev-parse", "HEAD"):
        return ""
    asked = ("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    is_option = str(commit).startswith("-")
    found = "" if is_option else repository.run("-C", source, *asked).strip()
    refs = ("refs/heads", "refs/remotes", "refs/tags")
    contains = ("for-each-ref", "--count=1", f"--contains={found}", *refs)
    newest = ("merge-base", "--is-ancestor", found, "HEAD")
    if found and (
        repository.run("-C", source, *contains)
        or repository.status("-C", source, *newest) == 0
    ):
        return ""
    return (
        f"_commit is {commit}, which no branch and no tag of the template has. "
        "`git checkout` the version of that file that Copier has written."
    )


def _leaving_problem(
    project: Project, repository: Repository, answers_file: str
) -> str:
    """Why nothing may be taken out now; empty when it may."""
    if not project.text(answers_file):
        return f"There is no {answers_file} here, which says what to take out."
    if not project.git:
        return "This directory is not in git, which would keep what is taken out."
    if repository.dirty:
        return "There are changes: commit or stash them, then take the queue out."
    return ""


def _is_scratch(root: Path) -> bool:
    """Is it one of the directories in which `copier update` renders for comparison?

    There is no project in them to have facts about, and an error would stop the update
    halfway. While skip patterns are rendered they are the working directory, ".".
    """
    return any(
        part.startswith("copier.") and ("old_copy." in part or "new_copy." in part)
        for part in root.absolute().parts
    )


def _is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode("utf-8")
    except UnicodeDecodeError:
        return False


@lru_cache
def _yaml(text: str) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError):
        return {}
    return loaded if isinstance(loaded, dict) else {}


# --- Answers ------------------------------------------------------------------------


YES_OR_NO = ("true|false|yes|no|y|n|on|off|1|0", "Type y or n.")
NUMBER = r"[1-9]\d{0,9}"
NAME = (r"[a-z0-9][\w.-]*", "It must be a name of letters, digits, dots and dashes.")
FILE = (r"(\w[\w-]*/)*\w[\w.-]*\.ya?ml", "It must be a YAML file in the project.")

# What an answer must be, whole, and what to say otherwise: what passes means nothing
# more in a script, a Compose file or Python. copier.yml's validators ask here, and so
# does the hook, for the answers file and for --data.
RULES = {
    "package": ("core|services", "Type core or services."),
    "redis_db": (r"\d|1[0-5]", "Type a number from 0 to 15."),
    "max_jobs": (NUMBER, "Type a number of 1 or more."),
    "job_timeout": (NUMBER, "Type a number of seconds, 1 or more."),
    **dict.fromkeys(("include_cron_examples", "include_compose_worker"), YES_OR_NO),
    **dict.fromkeys(("include_jobs_page", "include_outbox"), YES_OR_NO),
    **dict.fromkeys(("structlog", "app_exception", "sqlalchemy"), YES_OR_NO),
    **dict.fromkeys(("database", "metrics", "linux_server"), YES_OR_NO),
    "serializer": ("json|pickle", "Type json or pickle."),
    "mode": (
        "write|wire|diff|check|remove|remove-all",
        "Type write, wire, diff, check, remove or remove-all.",
    ),
    "queue_name": (
        r"[a-z0-9][\w.:/@+-]*",
        "It must be a name of letters, digits and . : / @ + - only.",
    ),
    "worker_classes": (
        r"[a-z_]\w*(,[a-z_]\w*)*",
        "It must be names of classes, with commas between.",
    ),
    "project_name": NAME,
    "compose_file": (f"({FILE[0]})?", FILE[1]),
    "worker_file": FILE,
    "app_service": NAME,
    "worker_service": NAME,
    "redis_service": (f"({NAME[0]})?", NAME[1]),
    "redis_condition": (
        "service_healthy|service_started",
        "It must be service_healthy or service_started.",
    ),
}


def answer_problem(name: str, value: Any) -> str:
    """What to type instead; empty when the answer is fine."""
    pattern, advice = RULES[name]
    fits = re.fullmatch(pattern, str(value), re.ASCII | re.IGNORECASE)
    return "" if fits and isinstance(value, str | int) else advice


def _wrong(answers: dict[str, Any]) -> str:
    """What is wrong with the first answer that is; empty when none is."""
    for name in RULES.keys() & answers.keys():
        if problem := answer_problem(name, answers[name]):
            return f"{name}: {answers[name]!r} is not valid. {problem}"
    return ""


def _is_yes(value: Any) -> bool:
    return str(value).lower() in YES_OR_NO[0].split("|")[::2]  # yes and no by turns
