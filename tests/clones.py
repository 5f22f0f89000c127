"""Copier's clones of a template, each made once: it makes six for one update.

A clone is of the refs and objects that a repository has, checked out at one of them.
Where those are the same, so is the clone, and so is what git says of it.
"""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from unittest.mock import patch

import plumbum
from copier import _template
from copier._template import Template
from repository import NEUTRAL

MOST = 20
"""So many clones are kept, those that were asked for last."""

_clone = _template.clone
_latest_tag = _template.get_latest_tag
_said: dict[str, Callable[[Template], Any]] = {
    name: vars(Template)[name].func for name in ("commit", "version", "git_index_modes")
}
_kept: dict[Any, Path] = {}
_known: dict[Any, Any] = {}


def _state(url: str) -> tuple[Any, ...] | None:
    """What a clone of a local repository depends on; None where that is not known."""
    root = Path(url) / ".git"
    if not root.is_dir() or (root / "shallow").exists() or not _has_plain_git():
        return None
    refs = [root / "HEAD", root / "packed-refs", *sorted(_files(root / "refs"))]
    return (
        *((str(it.relative_to(root)), it.read_bytes()) for it in refs if it.exists()),
        *sorted(it.name for it in _files(root / "objects")),
    )


def _has_plain_git() -> bool:
    """Has git no settings but the tests' and the template's, which make no other files?

    Those of the template's have git keep its hands off the bytes.
    """
    env = plumbum.local.env
    return env.get("GIT_CONFIG_GLOBAL") == os.devnull and {
        value for name, value in env if name.startswith("GIT_CONFIG_KEY_")
    } <= {"maintenance.auto", *NEUTRAL}


def _files(root: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(root):
        yield from (Path(directory) / name for name in names)


def _cloned_once(url: str, ref: str = "HEAD", location: str | None = None) -> str:
    """Where the clone is. One of HEAD has also what is not committed."""
    state = _state(url)
    if state is None or ref == "HEAD":
        return _clone(url, ref, location)
    key = (ref, state)
    directory = _kept.pop(key, None)
    if directory is None:
        directory = Path(mkdtemp(prefix=_template.CLONE_PREFIX)).resolve()
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        _clone(url, ref, str(directory))
    _kept[key] = directory
    return str(directory)


def _latest_tag_once(url: str, use_prereleases: Any = False) -> str:
    state = _state(url)
    if state is None:
        return _latest_tag(url, use_prereleases)
    key = (use_prereleases, state)
    if _known.get(key, "HEAD") == "HEAD":  # which Copier warns of
        _known[key] = _latest_tag(url, use_prereleases)
    return str(_known[key])


def _said_once(name: str) -> Any:
    """What git says of a clone, which stays as it is."""

    def say(self: Template) -> Any:
        if self.vcs != "git" or self.local_abspath not in _kept.values():
            return _said[name](self)
        key = (name, self.local_abspath)
        if key not in _known:
            _known[key] = _said[name](self)
        return _known[key]

    said: Any = cached_property(say)
    said.__set_name__(Template, name)
    return said


@contextmanager
def made_once() -> Iterator[None]:
    """For the length of the block; whether a template is in git is asked once in it."""
    for key in [*_kept][:-MOST]:
        shutil.rmtree(_kept.pop(key))
    is_in_git = cache(_template.get_repo)
    with ExitStack() as stack:
        for replaced, name, new in (
            (_template, "clone", _cloned_once),
            (_template, "get_latest_tag", _latest_tag_once),
            (_template, "get_repo", is_in_git),
            *((Template, name, _said_once(name)) for name in _said),
        ):
            stack.enter_context(patch.object(replaced, name, new))
        yield
