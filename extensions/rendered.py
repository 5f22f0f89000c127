"""What the template has rendered into the project, and what an update made of it.

There is no list of files to keep: Copier renders once more, into an empty directory,
what the answers file says; from the template that is running, whichever that names.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from copier import run_copy
from paxx import Project
from repository import GIT, Repository, alike


class CannotTellError(Exception):
    """What the template has rendered is not known; says why."""


@dataclass(frozen=True)
class Rendering:
    """What the template has rendered into a project."""

    root: Path
    """The project."""
    answers_file: str
    """Its path in the project."""
    template: str
    """The template that is running: the path of Copier's clone."""

    @property
    def repository(self) -> Repository:
        """The project, as git sees it."""
        return Repository(self.root)

    def files(self, ref: str = "") -> dict[str, bytes]:
        """The files of the version and the answers in the answers file, by path.

        Args:
            ref: The commit to read that from; the working tree, if empty.

        Raises:
            CannotTellError: There is no such file, or the template not that version.
        """
        text = Project(self.root).text(self.answers_file)
        if ref:
            text = self.repository.run("show", f"{ref}:./{self.answers_file}")
        if not text:
            raise CannotTellError(f"there is no {self.answers_file} here")
        # named as Copier names its own, where nothing is refused
        with tempfile.TemporaryDirectory(prefix="copier.old_copy.") as name:
            scratch = Path(name)
            answers_file = scratch / self.answers_file
            answers_file.parent.mkdir(parents=True, exist_ok=True)
            answers_file.write_text(text)
            try:
                self._render(scratch, yaml.safe_load(text).get("_commit"))
            except Exception as exc:  # whatever that version raises
                why = (str(exc).strip().splitlines() or [type(exc).__name__])[-1]
                raise CannotTellError(why) from exc
            return {
                path.relative_to(scratch).as_posix(): path.read_bytes()
                for path in sorted(scratch.rglob("*"))
                if path.is_file() and path != answers_file
            }

    def _render(self, directory: Path, version: str) -> None:
        flags = ("defaults", "overwrite", "quiet", "unsafe", "skip_tasks")
        options: dict[str, Any] = dict.fromkeys(flags, True)
        options |= {"answers_file": self.answers_file, "vcs_ref": version}
        with warnings.catch_warnings(action="ignore"):
            run_copy(self.template, directory, **options)


def losses(rendering: Rendering) -> dict[str, bool]:
    """What is gone of the user's, or did not come of the template's; is it a fault?"""
    try:
        return _losses(rendering)
    except CannotTellError as exc:
        return {f"Whether changes of yours are gone is not known: {exc}.": False}


def _losses(rendering: Rendering) -> dict[str, bool]:
    root, project = rendering.root, Project(rendering.root)
    old = rendering.files(ref="HEAD")
    head = rendering.repository.blobs(old)
    work = {
        name: (root / name).read_bytes()
        for name in old
        if (root / name).is_file() and not project.link_out(name)
    }
    links = [name for name in head if (root / name).is_symlink()]
    changed = [
        name
        for name in head
        if name not in links and not alike(head[name], old[name])
        if name not in work or not alike(work[name], head[name])
    ]
    missed = [*links, *(name for name in old if name not in head)]
    if not changed and not missed:
        return {}
    new = rendering.files()
    found = {}
    for name in missed:
        if name in work and name not in links and new.get(name):
            text = f"{name} is back, which you had deleted or renamed: `git rm` it."
            found[f"The update is not clean: {text}\n"] = True
        elif not alike(new.get(name, old[name]), old[name]):
            why = "a link of yours" if name in links else "deleted or renamed"
            found[f"{name} is {why}, and got nothing of the new version.\n"] = False
    for name in changed:
        see = f" To see that:\n\n    git show HEAD:./{name}\n"
        if name not in work:
            text = f"{name} is gone, and with it what you had changed there."
            found[text + see] = False
        elif (root / f"{name}.rej").exists():
            found[f"{name}.rej has what could not be merged.\n"] = False
        elif name in new and not _is_merged(
            work[name], head[name], old[name], new[name]
        ):
            text = f"The update is not clean: {name} has lost changes of yours."
            found[text + see] = True
    return found


def _is_merged(work: bytes, head: bytes, old: bytes, new: bytes) -> bool:
    """Is this what a merge makes of the two, or could have, where they conflict?"""
    with tempfile.TemporaryDirectory(prefix="wire-") as directory:
        names = ("head", "old", "new")
        for name, content in zip(names, (head, old, new), strict=True):
            (Path(directory) / name).write_bytes(content.replace(b"\r\n", b"\n"))
        command = [*GIT, "merge-file", "-p", "-q", *names]
        merged = subprocess.run(command, cwd=directory, capture_output=True)
    if merged.returncode or re.search(rb"^<<<<<<< before updating", work, re.M):
        return not alike(work, new)
    return alike(work, merged.stdout)
