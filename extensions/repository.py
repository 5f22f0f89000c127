"""What git knows of the project.

Copier loads this file alone, as `paxx.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import plumbum
from copier_template_extensions import ContextHook

GIT = (
    *("git", "-c", "core.quotePath=false", "--no-optional-locks"),
    # what the project has set and hooked runs nothing
    *("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}"),
)


@dataclass(frozen=True)
class Repository:
    """The project in one directory, as git sees it; its answers are read anew."""

    root: Path

    @cached_property
    def dirty(self) -> bool:
        """Are there changes that are not committed?"""
        return bool(self.run("status", "--porcelain"))

    def changed(self) -> list[str]:
        """The files that differ from the last commit, by now, or are not in it."""
        new = self.run("ls-files", "--others", "--exclude-standard")
        names = new + self.run("diff", "--relative", "--name-only", "HEAD")
        return sorted({*names.splitlines()})

    def conflicts(self) -> list[str]:
        """The files that an update could not merge, by now."""
        unmerged = ("--name-only", "--diff-filter=U")
        return self.run("diff", "--relative", *unmerged).splitlines()

    def run(self, *arguments: str) -> str:
        """What git prints; nothing when it fails, or is not there."""
        done = self._git(arguments)
        return "" if done.returncode else done.stdout.decode(errors="replace")

    def status(self, *arguments: str) -> int:
        """What git ends with; 128 as well where it is not there."""
        return self._git(arguments).returncode

    def _git(
        self, arguments: Sequence[str], stdin: str = ""
    ) -> subprocess.CompletedProcess[bytes]:
        command = [*GIT, *arguments]
        try:
            return subprocess.run(
                command, cwd=self.root, capture_output=True, input=stdin.encode()
            )
        except OSError:
            return subprocess.CompletedProcess(command, 128, b"")

    def blobs(self, names: Iterable[str]) -> dict[str, bytes]:
        """What the last commit has of these files."""
        names = list(names)
        asked = "".join(f"HEAD:./{name}\n" for name in names)
        rest, found = self._git(("cat-file", "--batch"), asked).stdout, {}
        for name in names:
            head, _, rest = rest.partition(b"\n")
            if match := re.search(rb" blob (\d+)$", head):
                size = int(match[1])
                found[name], rest = rest[:size], rest[size + 1 :]
        return found

    def uncommitted(self, names: Sequence[str]) -> list[str]:
        """Those of the files of which the last commit has no copy, as they are now.

        The bytes are compared: git can have been told not to look at a file.
        """
        blobs = self.blobs(names)
        return [
            it
            for it in names
            if it not in blobs or not alike(blobs[it], self.content(it))
        ]

    def has(self, name: str) -> bool:
        """Is there such a file, or a link?"""
        return (self.root / name).is_file() or (self.root / name).is_symlink()

    def content(self, name: str) -> bytes:
        """What git would keep of a file: of a link, where it leads."""
        path = self.root / name
        if path.is_symlink():
            return os.fsencode(path.readlink())
        return path.read_bytes() if path.is_file() else b""

    def ignores(self, name: str) -> bool:
        """Does git ignore a file, or will it?"""
        done = self.status("check-ignore", "-q", name)
        if done in (0, 1):
            return not done
        # there is no git as yet, or it refuses
        return name in self.content(".gitignore").decode(errors="replace").split()

    def ignored(self, names: Sequence[str]) -> list[str]:
        """Those of the files that git ignores, and has no copy of."""
        return self.uncommitted(self.run("check-ignore", "--", *names).splitlines())


def alike(one: bytes, other: bytes) -> bool:
    """Are the lines the same, whatever they end with? Git may have changed that."""
    return one.replace(b"\r\n", b"\n") == other.replace(b"\r\n", b"\n")


NEUTRAL = {
    "core.autocrlf": "input",
    "core.safecrlf": "false",
    "core.eol": "lf",
    "core.excludesFile": os.devnull,
    "core.attributesFile": os.devnull,
    "core.bigFileThreshold": "512m",
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "status.showUntrackedFiles": "normal",
    "diff.suppressBlankEmpty": "false",
    "apply.ignoreWhitespace": "no",
    "apply.whitespace": "nowarn",
}
"""Git's settings while Copier merges: the user's may drop what was edited."""


def _be_neutral() -> str:
    """Have Copier's git take these settings, from now on, and no hooks or excludes."""
    env = plumbum.local.env
    count = int(env.get("GIT_CONFIG_COUNT", "0"))
    if env.get(f"GIT_CONFIG_KEY_{count - 1}") != [*NEUTRAL][-1]:
        for number, (key, value) in enumerate(NEUTRAL.items(), start=count):
            env[f"GIT_CONFIG_KEY_{number}"] = key
            env[f"GIT_CONFIG_VALUE_{number}"] = value
        env["GIT_CONFIG_COUNT"] = str(count + len(NEUTRAL))
        env["GIT_TEMPLATE_DIR"] = ""
        env["GIT_ATTR_NOSYSTEM"] = "1"
    return ""


# As that of `paxx`.
_repository = lru_cache(Repository)


class Git(ContextHook):
    """Puts `repository` into Copier's context."""

    def hook(self, context: dict[str, Any]) -> None:
        """Add to the context of a string or file that Copier is about to render."""
        root = Path(context["_copier_conf"]["dst_path"]).absolute()
        context["repository"] = _repository(root)
        context["neutral_git"] = _be_neutral
