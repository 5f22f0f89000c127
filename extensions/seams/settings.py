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
    return _without_old_fields(MIXIN.add(text, options, _inherit), options)


def remove(text: str, options: Options) -> str:
    """Settings has its own bases again."""
    use = r"class Settings\(ArqSettings, (.*)"
    return MIXIN.remove(text, options, use, instead=r"class Settings(\1")


SEAM = Seam(("settings.py", "settings/__init__.py"), lines, add, remove)


def _inherit(code: Code, name: str) -> None:
    """Give Settings another base, before its own.

    Raises:
        UnknownShapeError: There is no single class Settings, or it is not
            pydantic-settings'.
    """
    classes = _classes(code)
    if len(classes) != 1 or not classes[0].bases:
        raise UnknownShapeError("it has no single `class Settings(...)` with a base")
    names = {ast.unparse(base).rpartition(".")[2] for base in classes[0].bases}
    if names & {"TypedDict", "NamedTuple", "Enum"} or any(
        code.imported(module, "BaseSettings") for module in ("pydantic", "pydantic.v1")
    ):
        raise UnknownShapeError("its Settings is not one of pydantic-settings")
    index = classes[0].lineno - 1
    line = re.sub(r"^class Settings\((?=\w)", rf"\g<0>{name}, ", code.lines[index])
    if line == code.lines[index]:
        raise UnknownShapeError("the bases of Settings are written in another way")
    code.lines[index] = line


def _classes(code: Code) -> list[ast.ClassDef]:
    found = [it for it in code.tree.body if isinstance(it, ast.ClassDef)]
    return [it for it in found if it.name == "Settings"]


def _without_old_fields(text: str, options: Options) -> str:
    """Delete the fields that `paxx ext add arq` added: they would hide ArqSettings'."""
    values = {
        "arq_redis_url": f"redis://localhost:6379/{options.redis_db}",
        "arq_max_jobs": str(options.max_jobs),
        "arq_job_timeout": str(options.job_timeout),
    }
    field = r"""\n*(?:\n +# Infrastructure)?\n +{}: str = ["'](.*)["']"""
    code = Code(text)
    for it in _classes(code):
        own = slice(it.lineno, it.end_lineno)  # another class may have such fields
        body = "\n".join(["", *code.lines[own]])
        found = {name: re.search(field.format(name), body) for name in values}
        if not all(found.values()):
            return text
        for name, value in values.items():
            if (match := found[name]) and match[1] != value:
                raise UnknownShapeError(
                    f"its field {name} hides the one of ArqSettings; delete it, and "
                    f"set {name.upper()} in the environment to keep its value"
                )
            body = re.sub(field.format(name), "", body, count=1)
        code.lines[own] = body.split("\n")[1:]
    return code.text()
