"""The seams, a section each: how one is added, how it is taken out, its lines in words.

An edit takes the bytes of a file and returns them with the seam in it, or as they are
when it is there already; a removal is its mirror. Neither guesses: where a file has
another shape, they raise `UnknownShapeError`, and the user is told the lines instead.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
from python_file import Code, UnknownShapeError, newline_of

DEPENDENCY = "arq>=0.28,<0.29"
OLD_DEPENDENCY = "arq>=0.26"  # of `paxx ext add arq`
OTHER = {"core": "services", "services": "core"}


@dataclass(frozen=True)
class Options:
    """What the seams depend on: the answers."""

    root: Path
    package: str
    redis_db: int = 1
    max_jobs: int = 10
    job_timeout: int = 300


def _undo(
    source: bytes, candidates: Iterator[bytes], add: Callable[[bytes], bytes]
) -> bytes:
    """What the file was before `add`: the candidate that it turns into `source`.

    Where there is none, since the user has moved the lines about, the first.
    """
    first = source
    for index, candidate in enumerate(candidates):
        first = first if index else candidate
        try:
            if add(candidate) == source:
                return candidate
        except UnknownShapeError:
            continue
    return first


# --- settings.py: Settings inherits ArqSettings ---------------------------------------


def settings_lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return (
        f"from {options.package}.arq_settings import ArqSettings\n\n"
        "class Settings(ArqSettings, BaseSettings):"
    )


def add_settings(source: bytes, options: Options) -> bytes:
    """Settings inherits ArqSettings."""
    code = Code(source)
    module = f"{options.package}.arq_settings"
    settings, bases = _settings_class(code)
    imported = code.find_import(module, "ArqSettings") is not None
    other = f"{OTHER[options.package]}.arq_settings"
    if code.find_import(other, "ArqSettings"):
        raise UnknownShapeError(f"it imports ArqSettings from {other}")
    if not imported and b"ArqSettings" in source:
        raise UnknownShapeError("it has an ArqSettings of its own")
    if "ArqSettings" not in [code.text(base.value) for base in bases]:
        first = code.start(bases[0])
        gap = code.source[code.source.rfind(b"(", 0, first) + 1 : first]
        separator = "," + gap.decode() if gap.strip() == b"" and b"\n" in gap else ", "
        code.insert(first, f"ArqSettings{separator}")
    if not imported:
        code.add_import(module, "ArqSettings", options.root)
    _delete_old_fields(code, settings, options)
    return code.render()


def remove_settings(source: bytes, options: Options) -> bytes:
    """Settings has its own bases again."""
    code = Code(source)
    module = f"{options.package}.arq_settings"
    if not code.find_import(module, "ArqSettings"):
        return source
    _, bases = _settings_class(code)
    names = [code.text(base.value) for base in bases]
    if "ArqSettings" not in names or source.count(b"ArqSettings") != 2:
        raise UnknownShapeError("it uses ArqSettings in a way of its own")
    if len(bases) == 1:
        raise UnknownShapeError("Settings would be without a base")

    def without(blank_above: bool) -> bytes:
        code = Code(source)
        _, bases = _settings_class(code)
        index = names.index("ArqSettings")
        if index + 1 < len(bases):
            code.delete(code.start(bases[index]), code.start(bases[index + 1]))
        else:
            code.delete(code.end(bases[index - 1].value), code.end(bases[index].value))
        code.remove_import(module, "ArqSettings", blank_above=blank_above)
        return code.render()

    return _undo(
        source,
        (without(blank_above) for blank_above in (False, True)),
        lambda candidate: add_settings(candidate, options),
    )


def _settings_class(code: Code) -> tuple[cst.ClassDef, list[cst.Arg]]:
    """The class Settings, and its bases.

    Raises:
        UnknownShapeError: There is none, or there are several.
    """
    classes = [
        node
        for node in code.module.body
        if isinstance(node, cst.ClassDef) and node.name.value == "Settings"
    ]
    if len(classes) != 1 or not classes[0].bases:
        raise UnknownShapeError("it has no single `class Settings(...)` with a base")
    return classes[0], list(classes[0].bases)


def _delete_old_fields(code: Code, settings: cst.ClassDef, options: Options) -> None:
    """Delete the fields that `paxx ext add arq` added: they would hide ArqSettings'.

    Raises:
        UnknownShapeError: One says something else than the answers.
    """
    expected = {
        "arq_redis_url": f"redis://localhost:6379/{options.redis_db}",
        "arq_max_jobs": str(options.max_jobs),
        "arq_job_timeout": str(options.job_timeout),
    }
    found = {
        code.text(line.body[0]).partition(": str = ")[0]: line
        for line in settings.body.body
        if isinstance(line, cst.SimpleStatementLine)
    }
    if not expected.keys() <= found.keys():
        return
    for name, value in expected.items():
        line = found[name]
        if code.text(line.body[0]).partition(": str = ")[2].strip("\"'") != value:
            raise UnknownShapeError(
                f"its field {name} hides the one of ArqSettings; delete it, and set "
                f"{name.upper()} in the environment to keep its value"
            )
        comments = [empty.comment for empty in line.leading_lines if empty.comment]
        heading = [comment.value for comment in comments] == ["# Infrastructure"]
        first = comments[0] if heading else line.body[0]
        code.delete_lines(first, line.body[0], blank_above=True)


# --- main.py: the lifespan closes the pool, just before the database ------------------

CLOSE = "await close_pool()"


def main_lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return (
        f"from {options.package}.arq import close_pool\n\n"
        f"    {CLOSE}  # in lifespan, after its yield"
    )


def add_main(source: bytes, options: Options) -> bytes:
    """The lifespan closes the pool."""
    code = Code(source)
    module = f"{options.package}.arq"
    if re.search(rb"\bclose_pool\(", source):
        other = f"{OTHER[options.package]}.arq"
        if code.find_import(other, "close_pool"):
            raise UnknownShapeError(f"it imports close_pool from {other}")
        return source
    functions = [
        node
        for node in code.module.body
        if isinstance(node, cst.FunctionDef) and _is_lifespan(code, node)
    ]
    if len(functions) != 1:
        raise UnknownShapeError("it has no single @asynccontextmanager function")
    found = _Lifespan()
    functions[0].body.visit(found)
    if len(found.yields) != 1:
        raise UnknownShapeError("its lifespan function does not have one `yield`")
    line, parents = found.yields[0]
    after = [close for close in found.closes if code.start(close) > code.start(line)]
    finals = [
        parent.finalbody
        for parent in parents
        if isinstance(parent, cst.Try) and parent.finalbody
    ]
    plain = all(isinstance(parent, cst.IndentedBlock | cst.With) for parent in parents)
    if len(after) == 1:
        code.insert_line(after[0], CLOSE)
    elif finals and isinstance(finals[-1].body.body[0], cst.SimpleStatementLine):
        code.insert_line(finals[-1].body.body[0], CLOSE)
    elif plain and not finals:
        code.append_lines(line, CLOSE)
    else:
        raise UnknownShapeError("its lifespan function does more than is understood")
    if not code.find_import(module, "close_pool"):
        code.add_import(module, "close_pool", options.root)
    return code.render()


def remove_main(source: bytes, options: Options) -> bytes:
    """The lifespan does not close the pool."""
    module = f"{options.package}.arq"
    if not Code(source).find_import(module, "close_pool"):
        return source
    if source.count(b"close_pool") != 2:
        raise UnknownShapeError("it uses close_pool in a way of its own")

    def without(blank_above: bool) -> bytes:
        code = Code(source)
        found = _Calls(CLOSE)
        code.module.visit(found)
        if len(found.lines) != 1:
            raise UnknownShapeError(f"it has no single `{CLOSE}`")
        line, block = found.lines[0]
        if len(line.body) > 1 or len(block.body) == 1:
            raise UnknownShapeError(f"there is nothing but `{CLOSE}` where it is")
        code.delete_lines(line.body[0], line.body[0])
        code.remove_import(module, "close_pool", blank_above=blank_above)
        return code.render()

    return _undo(
        source,
        (without(blank_above) for blank_above in (False, True)),
        lambda candidate: add_main(candidate, options),
    )


def _is_lifespan(code: Code, function: cst.FunctionDef) -> bool:
    return any(
        code.text(decorator.decorator).endswith("asynccontextmanager")
        for decorator in function.decorators
    )


class _Lifespan(cst.CSTVisitor):
    """Finds where a lifespan function yields, and where it closes the database."""

    def __init__(self) -> None:
        self.parents: list[cst.CSTNode] = []
        self.yields: list[tuple[cst.SimpleStatementLine, list[cst.CSTNode]]] = []
        self.closes: list[cst.SimpleStatementLine] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef | cst.Lambda | cst.ClassDef):
            return False
        if isinstance(node, cst.SimpleStatementLine):
            item = node.body[0]
            value = getattr(item, "value", None)
            if isinstance(value, cst.Yield):
                self.yields.append((node, list(self.parents)))
            elif cst.Module([]).code_for_node(item) == "await close_db()":
                self.closes.append(node)
        self.parents.append(node)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if self.parents and self.parents[-1] is original_node:
            self.parents.pop()


class _Calls(cst.CSTVisitor):
    """Finds the lines that begin with a statement, and the blocks they are in."""

    def __init__(self, statement: str) -> None:
        self.statement = statement
        self.lines: list[tuple[cst.SimpleStatementLine, cst.IndentedBlock]] = []

    def visit_IndentedBlock(self, node: cst.IndentedBlock) -> None:
        for line in node.body:
            if (
                isinstance(line, cst.SimpleStatementLine)
                and cst.Module([]).code_for_node(line.body[0]) == self.statement
            ):
                self.lines.append((line, node))


# --- pyproject.toml: one dependency ---------------------------------------------------


def pyproject_lines(options: Options) -> str:
    """The command that adds it."""
    return f'uv add "{DEPENDENCY}"'


def add_pyproject(source: bytes, options: Options) -> bytes:
    """The project depends on arq."""
    names = _dependencies(source)
    if OLD_DEPENDENCY in names:
        wanted = [DEPENDENCY if name == OLD_DEPENDENCY else name for name in names]
    elif any(_is_arq(name) for name in names):
        return source
    else:
        wanted = [*names, DEPENDENCY]
    new = f'"{DEPENDENCY}"'.encode()
    for start, end, items in _arrays(source):
        array = source[start:end]
        if OLD_DEPENDENCY in names:
            old = f'"{OLD_DEPENDENCY}"'.encode()
            array = array.replace(old, new, 1)
        elif items:
            last = items[-1] - start
            rest = array[last:]
            comma = b"," if rest.lstrip().startswith(b",") else b""
            line_end = rest.find(b"\n") + 1
            if line_end:
                indent = _indent(source, items[-1])
                newline = newline_of(source)
                rest = (
                    rest[:line_end] + indent + new + comma + newline + rest[line_end:]
                )
                array = array[:last] + (b"" if comma else b",") + rest
            else:
                array = array[:last] + b", " + new + rest
        else:
            array = b"[" + new + array[1:]
        result = source[:start] + array + source[end:]
        if _is(result, wanted):
            return result
    raise UnknownShapeError("its dependencies are written in a way of their own")


def remove_pyproject(source: bytes, options: Options) -> bytes:
    """The project does not depend on arq."""
    names = _dependencies(source)
    wanted = [name for name in names if not _is_arq(name)]
    if wanted == names:
        return source

    def without() -> Iterator[bytes]:
        item = rb"""["'][Aa][Rr][Qq](?![\w-])[^"'\n]*["']"""
        for pattern, instead in (
            (rb"[ \t]*" + item + rb",?[ \t]*\r?\n", b""),
            (rb",(\s*?\r?\n)[ \t]*" + item + rb"[ \t]*\r?\n", rb"\1"),
            (rb",(  #.*\r?\n)[ \t]*" + item + rb"[ \t]*\r?\n", rb"\1"),
            (rb", *" + item, b""),
            (item + rb",? *", b""),
        ):
            for start, end, _ in _arrays(source):
                array = re.sub(pattern, instead, source[start:end], count=1)
                result = source[:start] + array + source[end:]
                if _is(result, wanted):
                    yield result
        return

    found = list(without())
    if not found:
        raise UnknownShapeError("its dependencies are written in a way of their own")
    return _undo(source, iter(found), lambda one: add_pyproject(one, options))


def _is_arq(requirement: str) -> bool:
    return re.match(r"arq(?![\w.-])", requirement, re.IGNORECASE) is not None


def _dependencies(source: bytes) -> list[str]:
    """The [project] dependencies.

    Raises:
        UnknownShapeError: There are none.
    """
    try:
        dependencies = tomllib.loads(source.decode("utf-8"))["project"]["dependencies"]
        return [str(name) for name in list(dependencies)]
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError) as exc:
        raise UnknownShapeError("it has no [project] dependencies") from exc


def _is(source: bytes, dependencies: list[str]) -> bool:
    try:
        return _dependencies(source) == dependencies
    except UnknownShapeError:
        return False


def _arrays(source: bytes) -> Iterator[tuple[int, int, list[int]]]:
    """Where arrays called dependencies start and end, and where each item ends."""
    for match in re.finditer(rb"""dependencies["']?[ \t]*=[ \t]*\[""", source):
        items: list[int] = []
        token = re.compile(
            rb"""("(?:[^"\\\n]|\\.)*"|'[^'\n]*')|#[^\n]*|(\])|[^"'#\]]+"""
        )
        for found in token.finditer(source, match.end()):
            if found[1]:
                items.append(found.end())
            elif found[2]:
                yield match.end() - 1, found.end(), items
                break


def _indent(source: bytes, item_end: int) -> bytes:
    """The whitespace that starts the line of an item."""
    line = source[source.rfind(b"\n", 0, item_end) + 1 : item_end]
    indent = line[: len(line) - len(line.lstrip())]
    return indent if line.lstrip()[:1] in (b'"', b"'") else b"    "


# --- .env, .env.example: where Redis is -----------------------------------------------


def env_lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return (
        f"# ARQ task queue (more settings: {options.package}/arq_settings.py)\n"
        f"ARQ_REDIS_URL=redis://localhost:6379/{options.redis_db}"
    )


def add_env(source: bytes, options: Options) -> bytes:
    """ARQ_REDIS_URL is set."""
    if re.search(rb"^\s*(export\s+)?ARQ_REDIS_URL\s*=", source, re.M | re.I):
        return source
    newline = newline_of(source)
    lines = newline.join(line.encode() for line in env_lines(options).splitlines())
    return source + (newline if source else b"") + lines + newline


def remove_env(source: bytes, options: Options) -> bytes:
    """The lines as they were added are gone."""
    newline = newline_of(source)
    lines = newline.join(line.encode() for line in env_lines(options).splitlines())
    lines += newline
    if source.count(lines) != 1:
        if add_env(source, options) == source:
            raise UnknownShapeError("its ARQ_REDIS_URL has been changed")
        return source
    candidates = [source.replace(lines, b""), source.replace(newline + lines, b"")]
    return _undo(source, iter(candidates), lambda one: add_env(one, options))


# --- deploy.sh: the app knows Redis, and the worker is deployed along with it ---------

DEPLOY_START = """\
# The ARQ worker: Redis, and one deploy at a time
source "$SCRIPT_DIR/deploy-worker.sh"

"""
DEPLOY_VARIABLES = """\
    "${ARQ_ENV[@]}" \\
"""
DEPLOY_WORKERS = """\
# The ARQ workers of the new version
deploy_worker

"""


def deploy_lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return f"{DEPLOY_START}{DEPLOY_VARIABLES}\n{DEPLOY_WORKERS}".rstrip()


def add_deploy(source: bytes, options: Options) -> bytes:
    """Redis is started first, the app knows it, and the worker follows the app."""
    if b"deploy-worker.sh" in source:
        return source
    source = _insert(source, DEPLOY_START, above=b"# 1. Pull new image")
    source = _insert(source, DEPLOY_VARIABLES, below=b'-e "APP_ENV=')
    return _insert(source, DEPLOY_WORKERS, above=b"# 6. Graceful shutdown")


def remove_deploy(source: bytes, options: Options) -> bytes:
    """None of the three."""
    if b"deploy-worker.sh" not in source:
        return source
    for lines in (DEPLOY_START, DEPLOY_VARIABLES, DEPLOY_WORKERS):
        source = _take_out(source, lines)
    return source


# --- deploy-init.sh: deploy-worker.sh is copied to the server, too --------------------

DEPLOY_INIT = "    deploy/linux-server/deploy-worker.sh \\\n"


def deploy_init_lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return DEPLOY_INIT.rstrip()


def add_deploy_init(source: bytes, options: Options) -> bytes:
    """deploy-worker.sh is among what is copied."""
    if DEPLOY_INIT.rstrip().encode() in source:
        return source
    anchor = b"    deploy/linux-server/deploy-if-changed.sh \\"
    return _insert(source, DEPLOY_INIT, above=anchor)


def remove_deploy_init(source: bytes, options: Options) -> bytes:
    """It is not."""
    if b"deploy-worker.sh" not in source:
        return source
    return _take_out(source, DEPLOY_INIT)


# --- deploy-purge.sh: it knows the workers, and their Redis ---------------------------

DEPLOY_PURGE = """\
# Check the ARQ workers, and their Redis with its volume
while IFS= read -r container; do
    CONTAINERS_FOUND+=("$container")
done < <(docker ps -a --filter "label=arq-worker=$APP_NAME" --format "{{.Names}}")
if docker inspect "${APP_NAME}-redis" &>/dev/null; then
    CONTAINERS_FOUND+=("${APP_NAME}-redis")
fi
if docker volume inspect "${APP_NAME}-redis" &>/dev/null; then
    VOLUMES_FOUND+=("${APP_NAME}-redis")
fi

"""


def deploy_purge_lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return DEPLOY_PURGE.rstrip()


def add_deploy_purge(source: bytes, options: Options) -> bytes:
    """The containers and the volume are among what is found."""
    if b"arq-worker=" in source:
        return source
    return _insert(source, DEPLOY_PURGE, above=b"# Check networks")


def remove_deploy_purge(source: bytes, options: Options) -> bytes:
    """They are not."""
    if b"arq-worker=" not in source:
        return source
    return _take_out(source, DEPLOY_PURGE)


def _insert(
    source: bytes, text: str, *, above: bytes = b"", below: bytes = b""
) -> bytes:
    """Insert lines above or below the one line that has the anchor.

    Raises:
        UnknownShapeError: There is no such line, or more than one.
    """
    anchor = above or below
    if source.count(anchor) != 1:
        raise UnknownShapeError(f"there is no single line with {anchor.decode()!r}")
    at = source.index(anchor)
    offset = source.rfind(b"\n", 0, at) + 1
    if below:
        offset = source.find(b"\n", at) + 1
        if not offset:
            raise UnknownShapeError("its last line does not end")
    lines = text.encode().replace(b"\n", newline_of(source))
    return source[:offset] + lines + source[offset:]


def _take_out(source: bytes, text: str) -> bytes:
    """Take out lines that were inserted.

    Raises:
        UnknownShapeError: They are not there as they were.
    """
    lines = text.encode().replace(b"\n", newline_of(source))
    if source.count(lines) != 1:
        raise UnknownShapeError(f"{text.strip()!r} has been changed")
    return source.replace(lines, b"")
