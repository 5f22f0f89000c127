"""What the template has rendered into the project, and what became of it since.

There is no list of files to keep: Copier renders once more, into an empty directory,
what the answers file says.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

REFERENCES = r"\b{package}(\.| import .*)\b(arq\w*|tasks)\b|\bARQ_[A-Z]"
"""What still speaks of the queue, for `git grep -E`."""


class CannotTellError(Exception):
    """What the template has rendered is not known; says why."""


def rendered(
    root: Path, copier: str, answers_file: str, ref: str = ""
) -> dict[str, bytes]:
    """The files of the version and the answers in the answers file, by path.

    Args:
        root: The project.
        copier: The Python that has Copier.
        answers_file: Its path in the project.
        ref: The commit to read it from; the working tree, if empty.

    Raises:
        CannotTellError: There is no such file, or Copier cannot get that version.
    """
    try:
        if ref:
            answers = _git(root, "show", f"{ref}:./{answers_file}")
        else:
            answers = (root / answers_file).read_text()
    except OSError as exc:
        raise CannotTellError(f"there is no {answers_file} here") from exc
    with tempfile.TemporaryDirectory(prefix="wire-") as name:
        scratch = Path(name)
        (scratch / answers_file).parent.mkdir(parents=True, exist_ok=True)
        (scratch / answers_file).write_text(answers)
        command = [copier, "-m", "copier", "recopy", "--trust", "--defaults", "--quiet"]
        command += ["--overwrite", "--skip-tasks", "--vcs-ref", ":current:"]
        command += ["--answers-file", answers_file, str(scratch)]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise CannotTellError((done.stderr.strip().splitlines() or [""])[-1])
        return {
            path.relative_to(scratch).as_posix(): path.read_bytes()
            for path in sorted(scratch.rglob("*"))
            if path.is_file() and path != scratch / answers_file
        }


def refusal(root: Path) -> str:
    """Why nothing may be taken out now; empty when it may."""
    try:
        changes = _git(root, "status", "--porcelain", "--", ".")
    except CannotTellError:
        return "this directory is not in git, which would keep what is taken out"
    return "there are changes: commit or stash them first" if changes else ""


def delete(
    root: Path, files: dict[str, bytes], answers_file: str, *, everything: bool
) -> tuple[list[str], list[str]]:
    """Delete the files that are as they were rendered; all, if wanted.

    Returns:
        What was deleted, and what was kept.
    """
    deleted, kept = [], []
    for name, content in files.items():
        path = root / name
        if not path.is_file() or not (content or _came_with(root, name, answers_file)):
            continue
        if everything or _lines(path.read_bytes()) == _lines(content):
            path.unlink()
            deleted.append(name)
            for directory in path.relative_to(root).parents[:-1]:
                if not any((root / directory).iterdir()):
                    (root / directory).rmdir()
        else:
            kept.append(name)
    (root / answers_file).unlink()
    return [*deleted, answers_file], kept


def references(root: Path, package: str, *, but: Iterable[str]) -> list[str]:
    """Lines of the project that still speak of the queue, as `file:number: line`."""
    pattern = REFERENCES.replace("{package}", package)
    done = subprocess.run(
        ["git", "grep", "-nIE", pattern, "--", ".", *(f":!{name}" for name in but)],
        cwd=root,
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()


def dropped_edits(root: Path, copier: str, answers_file: str) -> list[str]:
    """The files that an update has deleted although the user had changed them.

    Raises:
        CannotTellError: As `rendered`.
    """
    gone = _git(root, "diff", "--name-only", "--diff-filter=D", "--relative", "HEAD")
    if not gone:
        return []
    files = rendered(root, copier, answers_file, ref="HEAD")
    return [
        name
        for name in gone.splitlines()
        if name in files
        and _lines(_git(root, "show", f"HEAD:./{name}").encode()) != _lines(files[name])
    ]


def _came_with(root: Path, name: str, answers_file: str) -> bool:
    """Is it as old as the answers file? An empty file may have been there before."""
    added = ("log", "--diff-filter=A", "--format=%H", "-1", "--")
    return _git(root, *added, name) == _git(root, *added, answers_file)


def _lines(content: bytes) -> list[bytes]:
    """The lines, whatever they end with: git may have changed that."""
    return re.split(rb"\r?\n", content)


def _git(root: Path, *arguments: str) -> str:
    """What git prints.

    Raises:
        CannotTellError: It fails, or is not there.
    """
    try:
        return subprocess.run(
            ["git", "-c", "core.quotePath=false", *arguments],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError) as exc:
        raise CannotTellError(f"git {arguments[0]} fails") from exc
