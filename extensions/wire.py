# /// script
# requires-python = ">=3.11"
# dependencies = ["libcst>=1.8"]
# ///
"""Connects the queue to the project: the few lines in files that are the user's own.

Run by Copier in the project, after the files are rendered. What it does not understand
it leaves alone, and prints what to add.

    uv run extensions/wire.py diff --package core
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import rendered
import seams
from python_file import UnknownShapeError
from rendered import CannotTellError
from seams import OTHER, Options


@dataclass(frozen=True)
class Seam:
    """One place in the project that the queue needs: see seams.py."""

    files: tuple[str, ...]
    """Where it can be: the first that exists."""
    add: Callable[[bytes, Options], bytes]
    remove: Callable[[bytes, Options], bytes]
    lines: Callable[[Options], str]
    """What to add, or to take out, by hand."""
    optional: bool = False
    """Nothing is missing when there is no such file."""
    missed: bool = True
    """Is it a mistake when it is not there any more?"""
    wanted: Callable[[Options], bool] = lambda options: True
    """Do the answers ask for it?"""
    needs: str = ""
    """The file without whose seam this one does harm."""


SEAMS = (
    Seam(
        ("settings.py", "settings/__init__.py"),
        seams.add_settings,
        seams.remove_settings,
        seams.settings_lines,
    ),
    Seam(("main.py",), seams.add_main, seams.remove_main, seams.main_lines),
    Seam(
        ("pyproject.toml",),
        seams.add_pyproject,
        seams.remove_pyproject,
        seams.pyproject_lines,
    ),
    Seam(
        (".env.example",),
        seams.add_env,
        seams.remove_env,
        seams.env_lines,
        optional=True,
        needs="settings.py",
    ),
    Seam(
        (".env",),
        seams.add_env,
        seams.remove_env,
        seams.env_lines,
        optional=True,
        needs="settings.py",
    ),
    Seam(
        ("main.py",),
        seams.add_page,
        seams.remove_page,
        seams.page_lines,
        wanted=lambda options: options.jobs_page,
    ),
    Seam(
        (".env.example",),
        seams.add_password_example,
        seams.remove_password_example,
        seams.password_lines,
        optional=True,
        missed=False,
        wanted=lambda options: options.jobs_page,
    ),
    Seam(
        (".env",),
        seams.add_password,
        seams.remove_password,
        seams.password_lines,
        optional=True,
        missed=False,
        wanted=lambda options: options.jobs_page,
    ),
    Seam(
        ("deploy/linux-server/deploy.sh",),
        seams.add_deploy,
        seams.remove_deploy,
        seams.deploy_lines,
        optional=True,
    ),
    Seam(
        ("deploy/linux-server/deploy-init.sh",),
        seams.add_deploy_init,
        seams.remove_deploy_init,
        seams.deploy_init_lines,
        optional=True,
    ),
    Seam(
        ("deploy/linux-server/deploy-purge.sh",),
        seams.add_deploy_purge,
        seams.remove_deploy_purge,
        seams.deploy_purge_lines,
        optional=True,
    ),
)

MODES = {
    "write": "add the seams",
    "diff": "print the diff of that to stdout, change nothing",
    "check": "print which seams are missing, change nothing",
    "remove": "take the seams out, and the template's files but those you have changed",
    "remove-all": "those, too",
}


def edited(source: bytes, seam: Seam, options: Options, *, mode: str) -> bytes:
    """The file with the seam in it, or without it; checked.

    Raises:
        UnknownShapeError: That cannot be, or would not hold.
    """
    edit = seam.remove if mode == "remove" else seam.add
    try:
        result = edit(source, options)
        holds = edit(result, options) == result
    except RecursionError as exc:
        raise UnknownShapeError("its code is nested too deeply") from exc
    if not holds:
        raise UnknownShapeError("the result could not be verified")
    return result


def write(path: Path, data: bytes) -> None:
    """Replace the file's content: in one step, keeping its mode and its owner.

    Raises:
        UnknownShapeError: It is read-only.
    """
    path = path.resolve()
    status = path.stat()
    if not status.st_mode & stat.S_IWUSR:
        raise UnknownShapeError("it is read-only")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".wire-") as directory:
        new = Path(directory) / path.name
        new.write_bytes(data)
        shutil.copymode(path, new)
        if status.st_nlink == 1 and _give(new, status):
            new.replace(path)
        else:  # another name of the file, or its owner, would be lost
            path.write_bytes(data)


def _give(path: Path, owner: os.stat_result) -> bool:
    """Give a new file the owner of another; says if that went well."""
    mine = path.stat()
    if (mine.st_uid, mine.st_gid) == (owner.st_uid, owner.st_gid):
        return True
    try:
        os.chown(path, owner.st_uid, owner.st_gid)
    except OSError:
        return False
    return True


def diff(path: str, old: bytes, new: bytes) -> str:
    """A unified diff."""
    before, after = (
        data.decode(errors="replace").splitlines(keepends=True) for data in (old, new)
    )
    return "".join(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"))


def wire(
    seam: Seam, options: Options, *, mode: str, drafts: dict[str, bytes] | None = None
) -> str:
    """Bring one seam about; returns what to tell the user.

    Mode "diff" writes into `drafts`, by name, and leaves the files alone.
    """
    drafts = {} if drafts is None else drafts
    if mode in ("write", "diff") and not seam.wanted(options):
        return ""
    if mode == "check" and not seam.missed:
        return ""
    name = _existing(seam, options)
    if not name:
        if seam.optional or mode == "remove" or not seam.wanted(options):
            return ""
        return _by_hand(seam.files[0], "there is no such file", seam, options, mode)
    path = options.root / name
    try:
        source = drafts.get(name) or path.read_bytes()
        unwanted = mode == "check" and not seam.wanted(options)
        result = edited(source, seam, options, mode="remove" if unwanted else mode)
        if result == source:
            return ""
        if unwanted:
            return f"{name} has lines too many. Take out:\n\n{seam.lines(options)}\n"
        if mode == "check" and len(result) < len(source):
            return f"{name} has lines too many:\n\n{diff(name, source, result)}"
        if mode == "check":
            return f"{name} lacks the queue's lines:\n\n{seam.lines(options)}\n"
        if mode == "diff":
            drafts[name] = result
            return ""
        if mode == "write" and not _is_wired(seam.needs, options):
            raise UnknownShapeError(f"{seam.needs} does not know the queue yet")
        write(path, result)
    except UnknownShapeError as exc:
        return _by_hand(name, str(exc), seam, options, mode)
    except OSError as exc:
        why = exc.strerror or "it cannot be read"
        return _by_hand(name, why, seam, options, mode)
    target = f" -> {path.readlink()}" if path.is_symlink() else ""
    return f"    {'unwired' if mode == 'remove' else 'wired'}  {name}{target}"


def _existing(seam: Seam, options: Options) -> str:
    return next((name for name in seam.files if (options.root / name).is_file()), "")


def _is_wired(name: str, options: Options) -> bool:
    """Is the seam in this file? True where there is no such seam."""
    for seam in SEAMS:
        if name in seam.files:
            try:
                source = (options.root / _existing(seam, options)).read_bytes()
                return seam.add(source, options) == source
            except (OSError, UnknownShapeError, RecursionError):
                return False
    return True


def _by_hand(path: str, why: str, seam: Seam, options: Options, mode: str) -> str:
    """What to print where nothing was changed."""
    what = "Take out" if mode == "remove" else "Add"
    return (
        f"{path} was left as it is: {why}. {what} by hand:\n\n{seam.lines(options)}\n"
    )


# --- What else is to be said --------------------------------------------------------


def tasks_to_change(options: Options) -> str:
    """What should change in a tasks.py older than the queue; empty if nothing."""
    other = OTHER[options.package]
    moved = options.root / other / "tasks.py"
    if moved.is_file() and not (options.root / options.package / "tasks.py").is_file():
        return (
            f"{other}/tasks.py is yours and was left where it is. The queue is now in "
            f"{options.package}/:\n\n"
            f"    git mv {other}/tasks.py {options.package}/tasks.py\n\n"
            f"and in it, import from {options.package}.arq_worker, not "
            f"{other}.arq_worker.\n"
        )
    tasks = options.root / options.package / "tasks.py"
    if not re.search(r"^class WorkerSettings:", _text(tasks), re.MULTILINE):
        return ""
    return (
        f"{options.package}/tasks.py works as it is. To get retries, the project's "
        "logging,\ngraceful stops, health checks and several queues, change in it:\n\n"
        f"    from {options.package}.arq_worker import BaseWorkerSettings\n\n"
        "    class WorkerSettings(BaseWorkerSettings):\n\n"
        "and delete its lines with redis_settings, max_jobs and job_timeout, which are "
        "inherited.\nThen, once the queue is empty, store jobs as JSON instead of "
        "pickle:\n\n    copier update --data serializer=json\n"
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def arq_to_raise(options: Options) -> str:
    """Where the project has asked for an arq that is too old."""
    requirement, version = seams.old_arq(_text(options.root / "pyproject.toml"))
    if not requirement:
        return ""
    return (
        f"pyproject.toml asks for {requirement}, and the queue needs more than "
        f"{version}:\n\n    {seams.pyproject_lines(options)}\n"
    )


def client_to_restore(options: Options) -> str:
    """Where `paxx ext add arq` has been run on ours."""
    name = f"{options.package}/arq.py"
    text = _text(options.root / name)
    if not text or "copier update" in text:
        return ""
    return (
        f"{name} is not the template's any more: `paxx ext add arq` replaces it, and "
        f"tasks.py.\nGet yours back from git, or the template's with `copier recopy "
        "--overwrite`.\n"
    )


def env_to_change(options: Options) -> str:
    """Where the environment files name another Redis database than the answers."""
    said = []
    for name in (".env", ".env.example"):
        text = _text(options.root / name)
        match = re.search(r"^ARQ_REDIS_URL=(redis://localhost:.*/)(\d+)", text, re.M)
        if match and int(match[2]) != options.redis_db:
            said.append(
                f"{name} still says ARQ_REDIS_URL={match[1]}{match[2]}, "
                f"the queue is in database {options.redis_db}.\n"
            )
    return "".join(said)


# --- Leaving, and what an update has taken along ------------------------------------


def leave(options: Options, template: Template, *, everything: bool) -> Iterator[str]:
    """Take out all that is here of the template; says what was done, and what is left.

    Raises:
        CannotTellError: Nothing was done, and why.
    """
    files = rendered.rendered(options.root, template.copier, template.answers_file)
    for seam in reversed(SEAMS):
        yield wire(seam, options, mode="remove")
    deleted, kept = rendered.delete(
        options.root, files, template.answers_file, everything=everything
    )
    yield from (f"    deleted  {name}" for name in deleted)
    if kept:
        yield f"\nKept, since you have changed it: {', '.join(kept)}"
    left = rendered.references(options.root, options.package, but=kept)
    if left:
        yield "\nThese lines still speak of the queue:\n\n    " + "\n    ".join(left)
    yield "\nLook at it with `git diff HEAD`, then `uv sync` and commit."


def dropped_edits(options: Options, template: Template) -> str:
    """What an update has deleted although the user had changed it."""
    try:
        names = rendered.dropped_edits(
            options.root, template.copier, template.answers_file
        )
    except CannotTellError as exc:
        return f"Whether deleted files had changes of yours is not known: {exc}."
    return "".join(
        f"{name} is gone, and with it what you had changed there. To see that:\n\n"
        f"    git show HEAD:./{name}\n"
        for name in names
    )


# --- The command ------------------------------------------------------------------


@dataclass(frozen=True)
class Template:
    """Where to ask what the template has rendered."""

    copier: str
    """A Python that has Copier."""
    answers_file: str


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"{mode:10} {text}" for mode, text in MODES.items()),
    )
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--package", required=True, choices=OTHER)
    parser.add_argument("--redis-db", type=int, default=1)
    parser.add_argument("--max-jobs", type=int, default=10)
    parser.add_argument("--job-timeout", type=int, default=300, help="seconds")
    parser.add_argument("--no-jobs-page", action="store_false", dest="jobs_page")
    parser.add_argument("--metrics", action="store_true")
    parser.add_argument("--queue-name", default="arq:queue")
    parser.add_argument("--serializer", choices=("json", "pickle"), default="json")
    parser.add_argument("--seam", help="only this file, as in --seam main.py")
    parser.add_argument("--copier", default="python", help="a Python that has Copier")
    parser.add_argument("--answers-file", default=".copier-answers.yml")
    arguments = vars(parser.parse_args(argv))
    mode, only = arguments.pop("mode"), arguments.pop("seam")
    template = Template(arguments.pop("copier"), arguments.pop("answers_file"))
    options = Options(Path.cwd(), **arguments)
    if mode in ("remove", "remove-all"):
        problem = rendered.refusal(options.root)
        if problem:
            sys.exit(f"The queue was left as it is: {problem}.")
        try:
            for message in leave(options, template, everything=mode == "remove-all"):
                _say(message)
        except CannotTellError as exc:
            sys.exit(f"The queue was left as it is: {exc}.")
        return
    drafts: dict[str, bytes] = {}
    messages = [
        wire(seam, options, mode=mode, drafts=drafts)
        for seam in SEAMS
        if only is None or only in seam.files
    ]
    if only is None and mode in ("write", "check"):
        messages += [client_to_restore(options), tasks_to_change(options)]
        messages += [arq_to_raise(options), env_to_change(options)]
    if only is None and mode == "check":
        messages.append(dropped_edits(options, template))
    for message in dict.fromkeys(messages):  # a file may have two seams
        _say(message)
    for name, draft in drafts.items():
        print(diff(name, (options.root / name).read_bytes(), draft), end="")


def _say(message: str) -> None:
    """Print what there is; the diff has stdout for itself."""
    if message:
        print(message, file=sys.stderr)


if __name__ == "__main__":
    main()
