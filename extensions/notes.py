"""What else is to be said, where a project is not as the queue would like it."""

from __future__ import annotations

import re
from collections.abc import Callable

from paxx import OURS, Project
from seams import OTHER_PACKAGE, Options, env, pyproject

Text = Callable[[str], str]
"""Of a file in the project: empty when there is none."""


def notes(options: Options) -> list[str]:
    """A text for each; empty ones where there is nothing to say."""
    text = Project(options.root).text
    return [it(options, text) for it in (_client, _tasks, _arq, _env)]


def _client(options: Options, text: Text) -> str:
    """Where `paxx ext add arq` has been run on ours."""
    name = f"{options.package}/arq.py"
    if not text(name) or OURS in text(name):
        return ""
    return (
        f"{name} is not the template's any more: `paxx ext add arq` replaces it, and "
        "tasks.py.\nGet yours back from git, or the template's with this:\n\n"
        f"    {options.copier.format('recopy')} --overwrite\n"
    )


def _tasks(options: Options, text: Text) -> str:
    """Where tasks.py is older than the queue."""
    other, tasks = OTHER_PACKAGE[options.package], f"{options.package}/tasks.py"
    if Project(options.root).first((tasks, f"{other}/tasks.py")).startswith(other):
        return (
            f"{other}/tasks.py is yours and was left where it is. The queue is now in "
            f"{options.package}/:\n\n"
            f"    git mv {other}/tasks.py {tasks}\n\n"
            f"and in it, import from {options.package}.arq_worker, not "
            f"{other}.arq_worker.\n"
        )
    if not re.search(r"(?m)^class WorkerSettings:", text(tasks)):
        return ""
    to_json = (
        " Then, once the queue is empty, store jobs as JSON instead of pickle:\n\n"
        f"    {options.copier.format('update')} --data serializer=json"
    )
    return (
        f"{tasks} works as it is. To get retries, the project's "
        "logging,\ngraceful stops, health checks and several queues, change in it:\n\n"
        f"    from {options.package}.arq_worker import BaseWorkerSettings\n\n"
        "    class WorkerSettings(BaseWorkerSettings):\n\n"
        "and delete its lines with redis_settings, max_jobs and job_timeout, which "
        f"are\ninherited.{to_json if options.serializer == 'pickle' else ''}\n"
    )


def _arq(options: Options, text: Text) -> str:
    """Where the project has asked for an arq that is too old."""
    requirement = pyproject.too_old(text("pyproject.toml"))
    if not requirement:
        return ""
    return (
        f"pyproject.toml asks for {requirement}, and the queue needs more:\n\n"
        f"    {pyproject.lines(options)}\n"
    )


def _env(options: Options, text: Text) -> str:
    """Where the environment files, also their comments, say other answers."""
    now, said = _answers(env.lines(options)), ""
    for name in (".env", ".env.example"):
        changes = [
            f"    -{start}{value}\n    +{start}{now[key][1]}\n"
            for key, (start, value) in _answers(text(name)).items()
            if key in now and value != now[key][1]
        ]
        if changes:
            said += f"{name} says something else than the answers:\n\n"
            said += "".join(changes) + "\n"
    return said.removesuffix("\n")


def _answers(text: str) -> dict[str, tuple[str, str]]:
    """What depends on answers in an environment file: start of line, value."""
    start = r"^(ARQ_REDIS_URL=redis://localhost:.*/|# ARQ_\w+=|# More: )(\S+)"
    found = re.findall(start, text, re.MULTILINE)
    return {start.partition("redis:")[0]: (start, value) for start, value in found}
