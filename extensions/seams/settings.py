"""settings.py: Settings inherits ArqSettings."""

from __future__ import annotations

import ast

from seams import Options, Seam, UnknownShapeError
from seams.python_file import Code, Imported

MIXIN = Imported("arq_settings", "ArqSettings")


def lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return f"{MIXIN.line(options)}\n\nclass Settings(ArqSettings, BaseSettings):"


def add(source: bytes, options: Options) -> bytes:
    """Settings inherits ArqSettings."""
    code = Code(source)
    settings = _settings_class(code)
    name = MIXIN.found(code, options)
    if "Settings" not in _heirs(code, name):
        first = code.start(settings.bases[0])
        gap = code.source[code.source.rfind(b"(", 0, first) + 1 : first]
        separator = b"," + gap if not gap.strip() and b"\n" in gap else b", "
        code.insert(first, (name or MIXIN.name).encode() + separator)
    if not name:
        MIXIN.add(code, options)
    _delete_old_fields(code, settings, options)
    return code.render()


def remove(source: bytes, options: Options) -> bytes:
    """Settings has its own bases again."""
    return MIXIN.remove(source, options, _delete_base, add)


SEAM = Seam(("settings.py", "settings/__init__.py"), lines, add, remove)


def _delete_base(code: Code) -> None:
    """Take ArqSettings out of the bases of Settings."""
    bases = _settings_class(code).bases
    names = [code.text(base) for base in bases]
    if MIXIN.name not in names:
        raise UnknownShapeError("it uses ArqSettings in a way of its own")
    if len(bases) == 1:
        raise UnknownShapeError("Settings would be without a base")
    code.delete_item(bases, names.index(MIXIN.name))


NO_SETTINGS = {"TypedDict", "NamedTuple", "Protocol", "Enum", "IntEnum", "StrEnum"}
"""Bases of classes that cannot inherit from a pydantic one."""


def _classes(code: Code) -> list[ast.ClassDef]:
    return [node for node in code.tree.body if isinstance(node, ast.ClassDef)]


def _settings_class(code: Code) -> ast.ClassDef:
    """The class Settings.

    Raises:
        UnknownShapeError: There is none, or several, or it is not pydantic-settings'.
    """
    classes = [node for node in _classes(code) if node.name == "Settings"]
    if len(classes) != 1 or not classes[0].bases:
        raise UnknownShapeError("it has no single `class Settings(...)` with a base")
    names = {code.text(base).rpartition(".")[2] for base in classes[0].bases}
    old = ("pydantic", "pydantic.v1", "pydantic.v1.env_settings")
    if names & NO_SETTINGS or any(code.imports_name(m, "BaseSettings") for m in old):
        raise UnknownShapeError("its Settings is not one of pydantic-settings")
    return classes[0]


def _heirs(code: Code, name: str) -> set[str]:
    """The class of this name, and the classes that inherit from it."""
    heirs = {name}
    for node in _classes(code):
        if heirs & {code.text(base) for base in node.bases}:
            heirs.add(node.name)
    return heirs


def _delete_old_fields(code: Code, settings: ast.ClassDef, options: Options) -> None:
    """Delete the fields that `paxx ext add arq` added: they would hide ArqSettings'."""
    expected = {
        "arq_redis_url": f"redis://localhost:6379/{options.redis_db}",
        "arq_max_jobs": str(options.max_jobs),
        "arq_job_timeout": str(options.job_timeout),
    }
    found = {
        code.text(line).partition(": str = ")[0]: line
        for line in settings.body
        if isinstance(line, ast.AnnAssign)
    }
    if not expected.keys() <= found.keys():
        return
    for name, value in expected.items():
        line = found[name]
        if code.text(line).partition(": str = ")[2].strip("\"'") != value:
            raise UnknownShapeError(
                f"its field {name} hides the one of ArqSettings; delete it, and set "
                f"{name.upper()} in the environment to keep its value"
            )
        code.delete_line(line, blank="above", above="# Infrastructure")
