"""What the template has rendered into the project.

There is no list of files to keep: Copier renders once more, into an empty directory,
what the answers file says.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


class CannotTellError(Exception):
    """What the template has rendered is not known; says why."""


@dataclass(frozen=True)
class Template:
    """What has rendered into a project."""

    root: Path
    """The project."""
    copier: str
    """A Python that has Copier."""
    answers_file: str
    """Its path in the project."""

    def rendered(self, ref: str = "") -> dict[str, bytes]:
        """The files of the version and the answers in the answers file, by path.

        Args:
            ref: The commit to read that from; the working tree, if empty.

        Raises:
            CannotTellError: There is no such file, or Copier cannot get that version.
        """
        try:
            if ref:
                answers = git(self.root, "show", f"{ref}:./{self.answers_file}")
            else:
                answers = (self.root / self.answers_file).read_text()
        except OSError as exc:
            raise CannotTellError(f"there is no {self.answers_file} here") from exc
        with tempfile.TemporaryDirectory(prefix="wire-") as name:
            scratch = Path(name)
            (scratch / self.answers_file).parent.mkdir(parents=True, exist_ok=True)
            (scratch / self.answers_file).write_text(answers)
            self._recopy(scratch)
            return {
                path.relative_to(scratch).as_posix(): path.read_bytes()
                for path in sorted(scratch.rglob("*"))
                if path.is_file() and path != scratch / self.answers_file
            }

    def _recopy(self, directory: Path) -> None:
        command = [self.copier, "-m", "copier", "recopy", "--trust", "--defaults"]
        command += ["--quiet", "--overwrite", "--skip-tasks", "--vcs-ref", ":current:"]
        command += ["--answers-file", self.answers_file, str(directory)]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True)
        if done.returncode:
            raise CannotTellError((done.stderr.strip().splitlines() or [""])[-1])


def dropped_edits(template: Template) -> str:
    """What an update has deleted although the user had changed it, in words."""
    try:
        names = _dropped_edits(template)
    except CannotTellError as exc:
        return f"Whether deleted files had changes of yours is not known: {exc}."
    return "".join(
        f"{name} is gone, and with it what you had changed there. To see that:\n\n"
        f"    git show HEAD:./{name}\n"
        for name in names
    )


def _dropped_edits(template: Template) -> list[str]:
    gone = git(
        template.root, "diff", "--name-only", "--diff-filter=D", "--relative", "HEAD"
    )
    if not gone:
        return []
    files = template.rendered(ref="HEAD")
    return [
        name
        for name in gone.splitlines()
        if name in files
        and not alike(
            git(template.root, "show", f"HEAD:./{name}").encode(), files[name]
        )
    ]


def alike(one: bytes, other: bytes) -> bool:
    """Are the lines the same, whatever they end with? Git may have changed that."""
    return re.split(rb"\r?\n", one) == re.split(rb"\r?\n", other)


def git(root: Path, *arguments: str) -> str:
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
