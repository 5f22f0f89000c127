"""settings.py: Settings inherits ArqSettings."""

from __future__ import annotations

import ast
import re

from seams import Options, Seam, UnknownShapeError
from seams.python_file import Code, Imported

MIXIN = Imported("arq_settings", "ArqSettings")


def lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return f"{MIXIN.line(options)}\n\nclass Settings(ArqSettings, BaseSettings):"


def add(text: str, options: Options) -> str:
    """Settings inherits ArqSettings."""
    text = MIXIN.add(
        text, options, lambda code, name: _set_bases(code, "", f"{name}, ")
    )
    return _without_old_fields(text, options)


def remove(text: str, options: Options) -> str:
    """Settings has its own bases again."""
    return MIXIN.remove(
        text, options, lambda code: _set_bases(code, "ArqSettings, ", "")
    )


SEAM = Seam(("settings.py", "settings/__init__.py"), lines, add, remove)


def _set_bases(code: Code, old: str, new: str) -> None:
    """Replace the first base of Settings.

    Raises:
        UnknownShapeError: There is none such; there is no single class Settings, or it
            is not pydantic-settings'.
    """
    classes = [
        node
        for node in code.tree.body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    ]
    if len(classes) != 1 or not classes[0].bases:
        raise UnknownShapeError("it has no single `class Settings(...)` with a base")
    names = {ast.unparse(base).rpartition(".")[2] for base in classes[0].bases}
    if names & {"TypedDict", "NamedTuple", "Enum"} or any(
        code.imported(module, "BaseSettings") for module in ("pydantic", "pydantic.v1")
    ):
        raise UnknownShapeError("its Settings is not one of pydantic-settings")
    index = classes[0].lineno - 1
    start, line = f"class Settings({old}", code.lines[index]
    if not re.match(re.escape(start) + r"\w", line):
        raise UnknownShapeError("the bases of Settings are written in another way")
    code.lines[index] = f"class Settings({new}" + line.removeprefix(start)


def _without_old_fields(text: str, options: Options) -> str:
    """Delete the fields that `paxx ext add arq` added: they would hide ArqSettings'."""
    values = {
        "arq_redis_url": f"redis://localhost:6379/{options.redis_db}",
        "arq_max_jobs": str(options.max_jobs),
        "arq_job_timeout": str(options.job_timeout),
    }
    field = r"""\n*(?:\n +# Infrastructure)?\n +{}: str = ["'](.*)["']"""
    found = {name: re.search(field.format(name), text) for name in values}
    if not all(found.values()):
        return text
    for name, value in values.items():
        if (match := found[name]) and match[1] != value:
            raise UnknownShapeError(
                f"its field {name} hides the one of ArqSettings; delete it, and set "
                f"{name.upper()} in the environment to keep its value"
            )
        text = re.sub(field.format(name), "", text, count=1)
    return text
