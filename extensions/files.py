"""Replaces a file's content and nothing else of it; knows whether git sees that."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

from paxx import Project
from repository import Repository
from seams import UnknownShapeError


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


def is_ignored(path: Path) -> bool | None:
    """Does git ignore it, or will it? None where it does not say."""
    project = Project(path.parent)
    if not project.git:
        return path.name in project.text(".gitignore").split() or None
    done = Repository(project.root).status("check-ignore", "-q", path.name)
    return {0: True, 1: False}.get(done)
