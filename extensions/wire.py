# /// script
# requires-python = ">=3.11"
# dependencies = ["libcst>=1.8", "tomlkit>=0.13"]
# ///
"""Connects the queue to the project: the few lines in files that are the user's own.

Run by Copier in the project, once, after the files are rendered. Each seam is one
function: it takes the bytes of a file and returns them with the seam added, or as they
are when it is there already. A file whose shape it does not know it leaves alone, and
prints what to add.

    uv run --script extensions/wire.py --package core --dry-run
"""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import libcst as cst
import tomlkit
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array

DEPENDENCY = "arq>=0.28,<0.29"
OTHER = {"core": "services", "services": "core"}


class UnknownShapeError(Exception):
    """The file does not look the way a seam needs it; says why."""


@dataclass(frozen=True)
class Options:
    """What the seams depend on."""

    root: Path
    package: str
    redis_db: int = 1
    max_jobs: int = 10
    job_timeout: int = 300


def newline_of(source: bytes) -> bytes:
    """The file's line ending."""
    return b"\r\n" if b"\r\n" in source else b"\n"


# --- Python files -----------------------------------------------------------------


class Code:
    """A parsed Python file that is edited by inserting bytes: all others stay."""

    def __init__(self, source: bytes) -> None:
        """Parse it.

        Raises:
            UnknownShapeError: It is not UTF-8, or not Python.
        """
        try:
            source.decode("utf-8")
            wrapper = MetadataWrapper(
                cst.parse_module(source.removeprefix(b"\xef\xbb\xbf")),
                unsafe_skip_copy=True,
            )
        except (UnicodeDecodeError, cst.ParserSyntaxError) as exc:
            raise UnknownShapeError("it cannot be parsed") from exc
        self.source = source
        self.module = wrapper.module
        self._spans = wrapper.resolve(ByteSpanPositionProvider)
        self._shift = 3 if source.startswith(b"\xef\xbb\xbf") else 0
        self._inserts: list[tuple[int, bytes]] = []
        self._deletes: list[tuple[int, int]] = []

    def start(self, node: cst.CSTNode) -> int:
        """Offset of the node's first byte."""
        return self._spans[node].start + self._shift

    def end(self, node: cst.CSTNode) -> int:
        """Offset after the node's last byte."""
        span = self._spans[node]
        return span.start + span.length + self._shift

    def insert(self, offset: int, text: str) -> None:
        """Insert text at an offset of the original."""
        self._inserts.append((offset, text.encode()))

    def insert_line(self, before: cst.SimpleStatementLine, text: str) -> None:
        """Insert a line above a statement, indented alike."""
        line_start, indent = self._line(before)
        line = indent + text.encode() + newline_of(self.source)
        self._inserts.append((line_start, line))

    def append_lines(self, after: cst.SimpleStatementLine, *lines: str) -> None:
        """Insert lines below a statement, indented alike."""
        _, indent = self._line(after)
        newline = newline_of(self.source)
        texts = [indent + line.encode() if line else b"" for line in lines]
        line_end = self.source.find(b"\n", self.end(after.body[-1]))
        if line_end < 0:
            insert = len(self.source), newline + newline.join(texts)
        else:
            insert = line_end + 1, newline.join(texts) + newline
        self._inserts.append(insert)

    def _line(self, statement: cst.SimpleStatementLine) -> tuple[int, bytes]:
        """Offset of the statement's line, and its indentation.

        Raises:
            UnknownShapeError: Something else comes before it in its line.
        """
        first = self.start(statement.body[0])
        line_start = self.source.rfind(b"\n", 0, first) + 1
        if self._shift and line_start == 0:
            line_start = self._shift
        indent = self.source[line_start:first]
        if indent.strip():
            raise UnknownShapeError("the line to add to holds more than one statement")
        return line_start, indent

    def delete_lines(self, first: cst.CSTNode, last: cst.CSTNode) -> None:
        """Delete the lines of these statements, and the blank ones above."""
        start = self.source.rfind(b"\n", 0, self.start(first)) + 1
        while self.source[:start].endswith((b"\n\n", b"\n\r\n")):
            start = self.source.rfind(b"\n", 0, start - 1) + 1
        end = self.source.find(b"\n", self.end(last)) + 1 or len(self.source)
        self._deletes.append((start, end))

    def render(self) -> bytes:
        """The edited file."""
        edits = [(offset, offset, text) for offset, text in self._inserts]
        edits += [(start, end, b"") for start, end in self._deletes]
        result = self.source
        for start, end, text in sorted(edits, reverse=True):
            result = result[:start] + text + result[end:]
        return result

    def imports(self) -> list[cst.SimpleStatementLine]:
        """The import statements at the head of the file, before any other code."""
        found: list[cst.SimpleStatementLine] = []
        for index, line in enumerate(self.module.body):
            if not isinstance(line, cst.SimpleStatementLine):
                break
            if all(isinstance(item, cst.Import | cst.ImportFrom) for item in line.body):
                found.append(line)
            elif index > 0 or not isinstance(line.body[0], cst.Expr):
                break
        return found

    def has_import(self, module: str, name: str) -> bool:
        """Is there a `from module import name` at the head of the file?"""
        return any(
            isinstance(item, cst.ImportFrom)
            and _module_name(item) == module
            and not isinstance(item.names, cst.ImportStar)
            and any(alias.evaluated_name == name for alias in item.names)
            for line in self.imports()
            for item in line.body
        )

    def add_import(self, module: str, name: str, root: Path) -> None:
        """Add `from module import name` where isort would put it.

        Raises:
            UnknownShapeError: The file starts with no imports.
        """
        imports = self.imports()
        if not imports:
            raise UnknownShapeError("it does not start with imports")
        text = f"from {module} import {name}"
        own = [
            line
            for line in imports
            if isinstance(line.body[0], cst.ImportFrom)
            and _is_first_party(_module_name(line.body[0]), root)
        ]
        for line in own:
            assert isinstance(line.body[0], cst.ImportFrom)
            if _module_name(line.body[0]) > module:
                self.insert_line(line, text)
                return
        if own:
            self.append_lines(own[-1], text)
        else:
            self.append_lines(imports[-1], "", text)


def _module_name(node: cst.ImportFrom) -> str:
    """The dotted name; empty for a relative import."""
    if node.relative or node.module is None:
        return ""
    return cst.Module([]).code_for_node(node.module)


def _is_first_party(module: str, root: Path) -> bool:
    name = module.partition(".")[0]
    return bool(name) and ((root / name).is_dir() or (root / f"{name}.py").is_file())


def wire_settings(source: bytes, options: Options) -> bytes:
    """settings.py: Settings inherits ArqSettings."""
    code = Code(source)
    module = f"{options.package}.arq_settings"
    classes = [
        node
        for node in code.module.body
        if isinstance(node, cst.ClassDef) and node.name.value == "Settings"
    ]
    if len(classes) != 1 or not classes[0].bases:
        raise UnknownShapeError("it has no single `class Settings(...)` with a base")
    bases = classes[0].bases
    names = [code.module.code_for_node(base.value) for base in bases]
    if "ArqSettings" not in names:
        first = code.start(bases[0])
        gap = code.source[code.source.rfind(b"(", 0, first) + 1 : first]
        separator = "," + gap.decode() if gap.strip() == b"" and b"\n" in gap else ", "
        code.insert(first, f"ArqSettings{separator}")
    other = OTHER[options.package]
    if code.has_import(f"{other}.arq_settings", "ArqSettings"):
        raise UnknownShapeError(f"it imports ArqSettings from {other}.arq_settings")
    if not code.has_import(module, "ArqSettings"):
        code.add_import(module, "ArqSettings", options.root)
    _delete_old_fields(code, classes[0], options)
    return code.render()


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
        code.module.code_for_node(line.body[0]).partition(": str = ")[0]: line
        for line in settings.body.body
        if isinstance(line, cst.SimpleStatementLine)
    }
    if not expected.keys() <= found.keys():
        return
    for name, value in expected.items():
        line = found[name]
        text = code.module.code_for_node(line.body[0])
        if text.partition(": str = ")[2].strip("\"'") != value:
            raise UnknownShapeError(
                f"its field {name} hides the one of ArqSettings; delete it, and set "
                f"{name.upper()} in the environment to keep its value"
            )
        comments = [empty.comment for empty in line.leading_lines if empty.comment]
        heading = [comment.value for comment in comments] == ["# Infrastructure"]
        code.delete_lines(comments[0] if heading else line.body[0], line.body[0])


def settings_lines(options: Options) -> str:
    """What wire_settings adds."""
    return (
        f"from {options.package}.arq_settings import ArqSettings\n\n"
        "class Settings(ArqSettings, BaseSettings):"
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


def _is_lifespan(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.FunctionDef) and any(
        cst.Module([])
        .code_for_node(decorator.decorator)
        .endswith("asynccontextmanager")
        for decorator in node.decorators
    )


def wire_main(source: bytes, options: Options) -> bytes:
    """main.py: the lifespan closes the pool, just before the database."""
    code = Code(source)
    module = f"{options.package}.arq"
    if re.search(rb"\bclose_pool\(", source):
        other = OTHER[options.package]
        if code.has_import(f"{other}.arq", "close_pool"):
            raise UnknownShapeError(f"it imports close_pool from {other}.arq")
        return source
    functions = [node for node in code.module.body if _is_lifespan(node)]
    if len(functions) != 1:
        raise UnknownShapeError("it has no single @asynccontextmanager function")
    function = functions[0]
    assert isinstance(function, cst.FunctionDef)
    found = _Lifespan()
    function.body.visit(found)
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
        code.insert_line(after[0], "await close_pool()")
    elif finals and isinstance(finals[-1].body.body[0], cst.SimpleStatementLine):
        code.insert_line(finals[-1].body.body[0], "await close_pool()")
    elif plain and not finals:
        code.append_lines(line, "await close_pool()")
    else:
        raise UnknownShapeError("its lifespan function does more than is understood")
    if not code.has_import(module, "close_pool"):
        code.add_import(module, "close_pool", options.root)
    return code.render()


def main_lines(options: Options) -> str:
    """What wire_main adds."""
    return (
        f"from {options.package}.arq import close_pool\n\n"
        "    await close_pool()  # in lifespan, after its yield"
    )


# --- Other files ------------------------------------------------------------------


def wire_pyproject(source: bytes, options: Options) -> bytes:
    """pyproject.toml: one dependency."""
    try:
        document = tomlkit.parse(source.decode("utf-8"))
        dependencies = document["project"]["dependencies"]
    except (UnicodeDecodeError, TOMLKitError, KeyError, TypeError) as exc:
        raise UnknownShapeError("it has no [project] dependencies") from exc
    if not isinstance(dependencies, Array):
        raise UnknownShapeError("it has no [project] dependencies")
    names = [str(item) for item in dependencies]
    if "arq>=0.26" in names:  # of `paxx ext add arq`: too old
        dependencies[names.index("arq>=0.26")] = DEPENDENCY
    elif any(re.match(r"arq\b(?!-)", name) for name in names):
        return source
    else:
        dependencies.append(DEPENDENCY)
    return tomlkit.dumps(document).encode()


def pyproject_lines(options: Options) -> str:
    """The command that adds what wire_pyproject does."""
    return f'uv add "{DEPENDENCY}"'


def wire_env(source: bytes, options: Options) -> bytes:
    """.env and .env.example: where Redis is."""
    if re.search(rb"^\s*(export\s+)?ARQ_REDIS_URL\s*=", source, re.M | re.I):
        return source
    newline = newline_of(source)
    if not source:
        start = b""
    elif source.endswith(b"\n"):
        start = newline
    else:
        start = newline * 2
    lines = [line.encode() for line in env_lines(options).splitlines()]
    return source + start + newline.join(lines) + newline


def env_lines(options: Options) -> str:
    """What wire_env adds."""
    return (
        f"# ARQ task queue (more settings: {options.package}/arq_settings.py)\n"
        f"ARQ_REDIS_URL=redis://localhost:6379/{options.redis_db}"
    )


# --- deploy/linux-server, from `paxx deploy add linux-server` -----------------------


def wire_deploy(source: bytes, options: Options) -> bytes:
    """deploy.sh: the app knows Redis, and the worker is deployed along with it."""
    if b"deploy-worker.sh" in source:
        return source
    environment, worker = deploy_lines(options).split("\n\n")
    source = _insert(source, b'-e "APP_ENV=', environment, after=True)
    return _insert(source, b"# 6. Graceful shutdown", worker + "\n", after=False)


def deploy_lines(options: Options) -> str:
    """What wire_deploy adds."""
    match = re.search(
        r'^APP_NAME="(.+)"', _text(options.root / "deploy/linux-server/deploy.sh"), re.M
    )
    name = match[1] if match else "app"
    url = f"redis://{name}-redis:6379/{options.redis_db}"
    return (
        f'    -e "ARQ_REDIS_URL=${{ARQ_REDIS_URL:-{url}}}" \\\n\n'
        "# The ARQ worker of the new version\n"
        'DB_URL="$DB_URL" "$SCRIPT_DIR/deploy-worker.sh" "$IMAGE"'
    )


def wire_deploy_init(source: bytes, options: Options) -> bytes:
    """deploy-init.sh: deploy-worker.sh is copied to the server, too."""
    line = deploy_init_lines(options)
    if line.encode() in source:
        return source
    return _insert(
        source, b"    deploy/linux-server/deploy-if-changed.sh \\", line, after=False
    )


def deploy_init_lines(options: Options) -> str:
    """What wire_deploy_init adds."""
    return "    deploy/linux-server/deploy-worker.sh \\"


def _insert(source: bytes, anchor: bytes, text: str, *, after: bool) -> bytes:
    """Insert lines below or above the one line that has the anchor.

    Raises:
        UnknownShapeError: There is no such line, or more than one.
    """
    if source.count(anchor) != 1:
        raise UnknownShapeError(f"there is no single line with {anchor.decode()!r}")
    at = source.index(anchor)
    offset = source.index(b"\n", at) + 1 if after else source.rfind(b"\n", 0, at) + 1
    return source[:offset] + text.encode() + b"\n" + source[offset:]


def tasks_to_change(options: Options) -> str:
    """What should change in a tasks.py older than the queue; empty if nothing."""
    other = OTHER[options.package]
    moved = options.root / other / "tasks.py"
    if moved.is_file() and not (options.root / options.package / "tasks.py").is_file():
        return (
            f"{other}/tasks.py is yours and was left where it is. The queue is now in "
            f"{options.package}/:\n\n"
            f"    git mv {other}/tasks.py {options.package}/tasks.py\n\n"
            f"and in it, import from {options.package}.arq_worker, not "
            f"{other}.arq_worker.\n"
        )
    tasks = options.root / options.package / "tasks.py"
    if not re.search(r"^class WorkerSettings:", _text(tasks), re.MULTILINE):
        return ""
    return (
        f"{options.package}/tasks.py works as it is. To get retries, the project's "
        "logging,\ngraceful stops, health checks and several queues, change in it:\n\n"
        f"    from {options.package}.arq_worker import BaseWorkerSettings\n\n"
        "    class WorkerSettings(BaseWorkerSettings):\n\n"
        "and delete its lines with redis_settings, max_jobs and job_timeout, which are "
        "inherited.\nThen, once the queue is empty, store jobs as JSON instead of "
        "pickle:\n\n    copier update --data serializer=json\n"
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def env_to_change(options: Options) -> str:
    """Where an environment file names another Redis database than the answers."""
    for name in (".env", ".env.example"):
        text = _text(options.root / name)
        match = re.search(r"^ARQ_REDIS_URL=redis://localhost:6379/(\d+)", text, re.M)
        if match and int(match[1]) != options.redis_db:
            return (
                f"{name} still says ARQ_REDIS_URL=redis://localhost:6379/{match[1]}, "
                f"the queue is in database {options.redis_db}.\n"
            )
    return ""


# --- The command ------------------------------------------------------------------


@dataclass(frozen=True)
class Seam:
    """One place in the project that the queue needs."""

    files: tuple[str, ...]
    """Where it can be: the first that exists."""
    edit: Callable[[bytes, Options], bytes]
    lines: Callable[[Options], str]
    """What to add by hand."""
    optional: bool = False
    """Nothing is missing when there is no such file."""


SEAMS = (
    Seam(("settings.py", "settings/__init__.py"), wire_settings, settings_lines),
    Seam(("main.py",), wire_main, main_lines),
    Seam(("pyproject.toml",), wire_pyproject, pyproject_lines),
    Seam((".env.example",), wire_env, env_lines, optional=True),
    Seam((".env",), wire_env, env_lines, optional=True),
    Seam(("deploy/linux-server/deploy.sh",), wire_deploy, deploy_lines, optional=True),
    Seam(
        ("deploy/linux-server/deploy-init.sh",),
        wire_deploy_init,
        deploy_init_lines,
        optional=True,
    ),
)


def edited(source: bytes, seam: Seam, options: Options) -> bytes:
    """The file with the seam in it, checked.

    Raises:
        UnknownShapeError: The seam cannot be added, or would not hold.
    """
    result = seam.edit(source, options)
    if seam.edit(result, options) != result:
        raise UnknownShapeError("the result could not be verified")
    return result


def write(path: Path, data: bytes) -> None:
    """Replace the file's content in one step, keeping its mode."""
    path = path.resolve()
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".wire-") as directory:
        new = Path(directory) / path.name
        new.write_bytes(data)
        shutil.copymode(path, new)
        new.replace(path)


def diff(path: str, old: bytes, new: bytes) -> str:
    """A unified diff."""
    before, after = (
        data.decode(errors="replace").splitlines(keepends=True) for data in (old, new)
    )
    return "".join(difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"))


def by_hand(path: str, why: str, lines: str) -> str:
    """What to print where nothing was changed."""
    return f"{path} was left as it is: {why}. Add by hand:\n\n{lines}\n"


def wire(seam: Seam, options: Options, *, write_files: bool, check: bool) -> str:
    """Add one seam; returns what to tell the user."""
    existing = (name for name in seam.files if (options.root / name).is_file())
    name = next(existing, "")
    if not name:
        if seam.optional:
            return ""
        return by_hand(seam.files[0], "there is no such file", seam.lines(options))
    path = options.root / name
    try:
        source = path.read_bytes()
        result = edited(source, seam, options)
        if result == source:
            return ""
        if check:
            return f"{name} lacks the queue's lines:\n\n{seam.lines(options)}\n"
        if not write_files:
            return diff(name, source, result)
        write(path, result)
    except UnknownShapeError as exc:
        return by_hand(name, str(exc), seam.lines(options))
    except OSError as exc:
        return by_hand(name, exc.strerror or "it cannot be read", seam.lines(options))
    return f"    wired  {name}"


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--package", required=True, help="core or services")
    parser.add_argument("--redis-db", type=int, default=1)
    parser.add_argument("--max-jobs", type=int, default=10)
    parser.add_argument("--job-timeout", type=int, default=300, help="seconds")
    parser.add_argument("--seam", help="only this file, as in --seam main.py")
    parser.add_argument(
        "--dry-run", action="store_true", help="print a diff, change nothing"
    )
    parser.add_argument(
        "--check", action="store_true", help="print what is missing, change nothing"
    )
    arguments = parser.parse_args(argv)
    options = Options(
        Path.cwd(),
        arguments.package,
        arguments.redis_db,
        arguments.max_jobs,
        arguments.job_timeout,
    )
    messages = [
        wire(seam, options, write_files=not arguments.dry_run, check=arguments.check)
        for seam in SEAMS
        if arguments.seam is None or arguments.seam in seam.files
    ]
    if arguments.seam is None and not arguments.dry_run:
        messages += [tasks_to_change(options), env_to_change(options)]
    for message in filter(None, messages):
        print(message, file=sys.stderr)


if __name__ == "__main__":
    main()
