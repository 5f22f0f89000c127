"""The seams, a section each: how one is added, how it is taken out, its lines in words.

An edit takes the bytes of a file and returns them with the seam in it, or as they are
when it is there already; a removal is its mirror. Neither guesses: where a file has
another shape, they raise `UnknownShapeError`, and the user is told the lines instead.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import libcst as cst
import libcst.matchers as m
from python_file import Code, UnknownShapeError, newline_of

DEPENDENCY = "arq>=0.28,<0.29"
OTHER = {"core": "services", "services": "core"}


@dataclass(frozen=True)
class Options:
    """What the seams depend on: the answers."""

    root: Path
    package: str
    redis_db: int = 1
    max_jobs: int = 10
    job_timeout: int = 300
    queue_name: str = "arq:queue"
    serializer: str = "json"
    jobs_page: bool = True
    metrics: bool = False


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
    other = f"{OTHER[options.package]}.arq_settings"
    if code.imports_name(other, "ArqSettings"):
        raise UnknownShapeError(f"it imports ArqSettings from {other}")
    name = code.imports_name(module, "ArqSettings")
    if not name and code.count("ArqSettings"):
        raise UnknownShapeError("it has an ArqSettings of its own")
    if "Settings" not in _heirs(code, name):
        first = code.start(bases[0])
        gap = code.source[code.source.rfind(b"(", 0, first) + 1 : first]
        separator = "," + gap.decode() if gap.strip() == b"" and b"\n" in gap else ", "
        code.insert(first, f"{name or 'ArqSettings'}{separator}")
    if not name:
        code.add_import(module, "ArqSettings", options.root)
    _delete_old_fields(code, settings, options)
    return code.render()


def remove_settings(source: bytes, options: Options) -> bytes:
    """Settings has its own bases again."""
    code = Code(source)
    module = f"{options.package}.arq_settings"
    if not code.imports_name(module, "ArqSettings"):
        return source
    _, bases = _settings_class(code)
    names = [code.text(base.value) for base in bases]
    if "ArqSettings" not in names or code.count("ArqSettings") != 2:
        raise UnknownShapeError("it uses ArqSettings in a way of its own")
    if len(bases) == 1:
        raise UnknownShapeError("Settings would be without a base")

    def without(blank: str) -> bytes:
        code = Code(source)
        _, bases = _settings_class(code)
        index = names.index("ArqSettings")
        if index + 1 < len(bases):
            code.delete(code.start(bases[index]), code.start(bases[index + 1]))
        else:
            code.delete(code.end(bases[index - 1].value), code.end(bases[index].value))
        code.remove_import(module, "ArqSettings", blank=blank)
        return code.render()

    return _undo(
        source,
        (without(blank) for blank in ("", "above", "below")),
        lambda candidate: add_settings(candidate, options),
    )


NO_SETTINGS = {"TypedDict", "NamedTuple", "Protocol", "Enum", "IntEnum", "StrEnum"}
"""Bases of classes that cannot inherit from a pydantic one."""


def _settings_class(code: Code) -> tuple[cst.ClassDef, list[cst.Arg]]:
    """The class Settings, and its bases.

    Raises:
        UnknownShapeError: There is none, or several, or it is not pydantic-settings'.
    """
    classes = [node for node in _classes(code) if node.name.value == "Settings"]
    if len(classes) != 1 or not classes[0].bases:
        raise UnknownShapeError("it has no single `class Settings(...)` with a base")
    bases = list(classes[0].bases)
    names = {code.text(base.value).rpartition(".")[2] for base in bases}
    old = ("pydantic", "pydantic.v1", "pydantic.v1.env_settings")
    if names & NO_SETTINGS or any(code.imports_name(m, "BaseSettings") for m in old):
        raise UnknownShapeError("its Settings is not one of pydantic-settings")
    return classes[0], bases


def _classes(code: Code) -> list[cst.ClassDef]:
    return [node for node in code.module.body if isinstance(node, cst.ClassDef)]


def _heirs(code: Code, name: str) -> set[str]:
    """The class of this name, and the classes that inherit from it."""
    heirs = {name}
    for node in _classes(code):
        if heirs & {code.text(base.value) for base in node.bases}:
            heirs.add(node.name.value)
    return heirs


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
        code.delete_lines(first, line.body[0], blank="above")


# --- main.py: the lifespan closes the pool, just before the database ------------------


def main_lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return (
        f"from {options.package}.arq import close_pool\n\n"
        "    await close_pool()  # in lifespan, after its yield"
    )


def add_main(source: bytes, options: Options) -> bytes:
    """The lifespan closes the pool."""
    code = Code(source)
    module = f"{options.package}.arq"
    other = f"{OTHER[options.package]}.arq"
    if code.imports_name(other, "close_pool"):
        raise UnknownShapeError(f"it imports close_pool from {other}")
    name = code.imports_name(module, "close_pool")
    if code.count(name) > 1 or _closes_by_module(code, options.package):
        return source
    if not name and code.count("close_pool"):
        raise UnknownShapeError("it has a close_pool of its own")
    line, above = _place_to_close(code)
    insert = code.insert_line if above else code.append_lines
    insert(line, f"await {name or 'close_pool'}()")
    if not name:
        code.add_import(module, "close_pool", options.root)
    return code.render()


def remove_main(source: bytes, options: Options) -> bytes:
    """The lifespan does not close the pool."""
    code = Code(source)
    module = f"{options.package}.arq"
    if not code.imports_name(module, "close_pool"):
        return source
    call = m.SimpleStatementLine([m.Expr(m.Await(m.Call(m.Name("close_pool"))))])
    blocks = m.findall(code.module, m.IndentedBlock())
    places = [
        (line, block)
        for block in blocks
        if isinstance(block, cst.IndentedBlock)
        for line in block.body
        if m.matches(line, call)
    ]
    if len(places) != 1 or code.count("close_pool") != 2:
        raise UnknownShapeError("it uses close_pool in a way of its own")
    if len(places[0][1].body) == 1:
        raise UnknownShapeError("closing the pool is all that happens there")

    def without(blank: str) -> bytes:
        code = Code(source)
        [line] = m.findall(code.module, call)
        code.delete_lines(line, line)
        code.remove_import(module, "close_pool", blank=blank)
        return code.render()

    return _undo(
        source,
        (without(blank) for blank in ("", "above", "below")),
        lambda candidate: add_main(candidate, options),
    )


def _closes_by_module(code: Code, package: str) -> bool:
    """Is close_pool called as an attribute of the module arq?"""
    names = {f"{package}.arq", code.imports_name(package, "arq")}
    attributes = m.findall(code.module, m.Attribute(attr=m.Name("close_pool")))
    return any(
        isinstance(node, cst.Attribute) and code.text(node.value) in names
        for node in attributes
    )


def _place_to_close(code: Code) -> tuple[cst.SimpleStatementLine, bool]:
    """A line of the lifespan, and whether to close the pool above it; below it if not.

    That is above `await close_db()`, at the start of a `finally`, or below the `yield`.

    Raises:
        UnknownShapeError: It is not plain to see where the lifespan ends.
    """
    function = _lifespan(code)
    yields = m.findall(function.body, m.Yield())
    if len(yields) != 1:
        raise UnknownShapeError("its lifespan does not have one `yield`")
    way = _way_to(yields[0], function.body)
    close_db = m.SimpleStatementLine([m.Expr(m.Await(m.Call(m.Name("close_db"))))])
    leave = m.SimpleStatementLine([m.OneOf(m.Return(), m.Raise())])
    closes = [
        line
        for line in m.findall(function.body, close_db)
        if code.start(line) > code.start(yields[0])
    ]
    for block in way.after if len(closes) == 1 else ():
        for line in block:
            if line is closes[0] and isinstance(line, cst.SimpleStatementLine):
                return line, True
            if m.matches(line, leave):
                break
    if closes:
        raise UnknownShapeError("its lifespan closes the database in a way of its own")
    if way.finals and isinstance(way.finals[-1][0], cst.SimpleStatementLine):
        return way.finals[-1][0], True
    if way.in_try or len(way.line.body) > 1:
        raise UnknownShapeError("its lifespan does more than is understood")
    return way.line, False


Block = Sequence[cst.BaseStatement | cst.BaseSmallStatement]


@dataclass
class _Way:
    """How to get to the `yield` of a lifespan."""

    line: cst.SimpleStatementLine
    in_try: bool
    finals: list[Block]
    """The `finally` blocks around it, the outermost first."""
    after: list[Block]
    """What runs after it, once and in any case: those, and what follows it."""


def _way_to(wanted: cst.CSTNode, suite: cst.BaseSuite) -> _Way:
    """The way to a `yield`, through `with` and `try` only.

    Raises:
        UnknownShapeError: It is in a loop, say, or in a `finally`.
    """
    in_try = False
    finals: list[Block] = []
    after: list[Block] = []
    while wanted in m.findall(suite, m.Yield()):
        position, statement = next(
            (number, statement)
            for number, statement in enumerate(suite.body, start=1)
            if wanted in m.findall(statement, m.Yield())
        )
        if not in_try:
            after.append(suite.body[position:])
        if isinstance(statement, cst.SimpleStatementLine):
            return _Way(statement, in_try, finals, after + finals)
        if isinstance(statement, cst.Try):
            in_try = True
            if statement.finalbody:
                finals.append(statement.finalbody.body.body)
        elif not isinstance(statement, cst.With):
            break
        suite = statement.body
    raise UnknownShapeError("its lifespan does more than is understood")


def _lifespan(code: Code) -> cst.FunctionDef:
    """The function given as `lifespan=`.

    Raises:
        UnknownShapeError: There is none, or several, or it is from elsewhere.
    """
    given = m.findall(code.module, m.Arg(keyword=m.Name("lifespan")))
    names = {code.text(arg.value) for arg in given if isinstance(arg, cst.Arg)}
    functions = [
        node
        for node in code.module.body
        if isinstance(node, cst.FunctionDef) and node.name.value in names
    ]
    if len(names) != 1 or len(functions) != 1 or not functions[0].asynchronous:
        raise UnknownShapeError("it has no single function given as `lifespan=`")
    return functions[0]


# --- main.py: the app has the jobs page -----------------------------------------------


def page_lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return (
        f"from {options.package}.arq_page import jobs_page\n\n"
        "    app.include_router(jobs_page())"
    )


def add_page(source: bytes, options: Options) -> bytes:
    """The app includes the page's router, after its other ones."""
    code = Code(source)
    module = f"{options.package}.arq_page"
    other = f"{OTHER[options.package]}.arq_page"
    if code.imports_name(other, "jobs_page"):
        raise UnknownShapeError(f"it imports jobs_page from {other}")
    name = code.imports_name(module, "jobs_page")
    if code.count(name) > 1:
        return source
    if not name and code.count("jobs_page"):
        raise UnknownShapeError("it has a jobs_page of its own")
    line, app = _last_router(code)
    code.append_lines(line, f"{app}.include_router({name or 'jobs_page'}())")
    if not name:
        code.add_import(module, "jobs_page", options.root)
    return code.render()


def remove_page(source: bytes, options: Options) -> bytes:
    """The app does not include the page's router."""
    code = Code(source)
    module = f"{options.package}.arq_page"
    if not code.imports_name(module, "jobs_page"):
        return source
    router = m.Call(m.Name("jobs_page"), args=[])
    include = m.Call(_INCLUDE_ROUTER, args=[m.Arg(router, keyword=None)])
    line_of_it = m.SimpleStatementLine([m.Expr(include)])
    places = _places(code, line_of_it)
    if len(places) != 1 or code.count("jobs_page") != 2:
        raise UnknownShapeError("it uses jobs_page in a way of its own")
    if len(places[0][1]) == 1:
        raise UnknownShapeError("including jobs_page is all that happens there")

    def without(blank: str) -> bytes:
        code = Code(source)
        [(line, _)] = _places(code, line_of_it)
        code.delete_lines(line, line)
        code.remove_import(module, "jobs_page", blank=blank)
        return code.render()

    return _undo(
        source,
        (without(blank) for blank in ("", "above", "below")),
        lambda candidate: add_page(candidate, options),
    )


_INCLUDE_ROUTER = m.Attribute(m.Name(), m.Name("include_router"))


def _last_router(code: Code) -> tuple[cst.SimpleStatementLine, str]:
    """The line to include another router below, and the app's name.

    Raises:
        UnknownShapeError: Routers are included in several places, or in none, and there
            is no single `app = FastAPI(...)`.
    """
    fastapi = m.Name("FastAPI") | m.Attribute(attr=m.Name("FastAPI"))
    made = m.Assign([m.AssignTarget(m.Name())], m.Call(fastapi)) | m.AnnAssign(
        m.Name(), value=m.Call(fastapi)
    )
    routers = m.SimpleStatementLine([m.Expr(m.Call(_INCLUDE_ROUTER))])
    found = _places(code, routers) or _places(code, m.SimpleStatementLine([made]))
    names = {re.split(r"\W", code.text(line.body[0]))[0] for line, _ in found}
    if len(names) != 1 or any(block is not found[0][1] for _, block in found):
        raise UnknownShapeError("it has no single place where routers are included")
    return found[-1][0], names.pop()


def _places(
    code: Code, wanted: m.BaseMatcherNode
) -> list[tuple[cst.SimpleStatementLine, Block]]:
    """The lines that are as wanted, and the blocks they are in."""
    blocks = [code.module, *m.findall(code.module, m.IndentedBlock())]
    return [
        (node, block.body)
        for block in blocks
        if isinstance(block, cst.Module | cst.IndentedBlock)
        for node in block.body
        if isinstance(node, cst.SimpleStatementLine) and m.matches(node, wanted)
    ]


# --- pyproject.toml: one dependency ---------------------------------------------------


def pyproject_lines(options: Options) -> str:
    """The command that adds it."""
    return f'uv add "{DEPENDENCY}"'


def add_pyproject(source: bytes, options: Options) -> bytes:
    """The project depends on arq."""
    names = _dependencies(source)
    old = [name for name in names if _is_old(name)]
    if any(_is_arq(name) for name in names) and not old:
        return source
    wanted = [DEPENDENCY if name in old else name for name in names]
    wanted += [DEPENDENCY] * (not old)
    for start, end, items in _arrays(source):
        if old:
            text = source[start:end].replace(old[0].encode(), DEPENDENCY.encode(), 1)
        else:
            text = _append(source, start, end, items)
        result = source[:start] + text + source[end:]
        if _is(result, wanted):
            return result
    raise UnknownShapeError("its dependencies are written in a way of their own")


def _append(source: bytes, start: int, end: int, items: list[int]) -> bytes:
    """The array with one more item; the ends of those it has are given."""
    new = f'"{DEPENDENCY}"'.encode()
    if not items:
        return b"[" + new + source[start + 1 : end]
    before, rest = source[start : items[-1]], source[items[-1] : end]
    line_end = rest.find(b"\n") + 1
    if not line_end:
        return before + b", " + new + rest
    comma, needed = (b",", b"") if rest.lstrip()[:1] == b"," else (b"", b",")
    line = _indent(source, items[-1]) + new + comma + newline_of(source)
    return before + needed + rest[:line_end] + line + rest[line_end:]


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


def old_arq(text: str) -> tuple[str, str]:
    """The project's own requirement of an arq older than the queue's, and its version.

    Both are empty where there is none, or where ours takes its place.
    """
    try:
        names = _dependencies(text.encode())
    except UnknownShapeError:
        return "", ""
    for name in names:
        match = re.search(r"(?:>=|==|~=|>) *(0\.\d+)", name)
        if _is_arq(name) and match and not _is_old(name):
            lowest = tuple(map(int, match[1].split(".")))
            if lowest < (0, 28):
                return name, match[1]
    return "", ""


def _is_arq(requirement: str) -> bool:
    return re.match(r"arq(?![\w.-])", requirement, re.IGNORECASE) is not None


def _is_old(requirement: str) -> bool:
    """Is it that of `paxx ext add arq`?"""
    return re.fullmatch(r"arq *>= *0\.26", requirement, re.IGNORECASE) is not None


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
    other = "pickle" if options.serializer == "json" else "json"
    port = "\n# ARQ_METRICS_PORT=9191  # of the worker; 0: no metrics"
    return f"""\
# ARQ task queue
# ARQ_REDIS_PORT=6379  # where that is taken: moves Compose's Redis and the next line
ARQ_REDIS_URL=redis://localhost:${{ARQ_REDIS_PORT:-6379}}/{options.redis_db}
# ARQ_QUEUE_NAME={options.queue_name}
# ARQ_MAX_JOBS={options.max_jobs}  # that one worker runs at the same time
# ARQ_JOB_TIMEOUT={options.job_timeout}  # seconds
# ARQ_SERIALIZER={options.serializer}  # or {other}{port if options.metrics else ""}
# More: {options.package}/arq_settings.py"""


def add_env(source: bytes, options: Options) -> bytes:
    """ARQ_REDIS_URL is set."""
    try:
        source.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise UnknownShapeError("it is not UTF-8") from exc
    if re.search(rb"^\s*(export\s+)?ARQ_REDIS_URL\s*=", source, re.M | re.I):
        return source
    newline = newline_of(source)
    lines = newline.join(line.encode() for line in env_lines(options).splitlines())
    return source + (newline if source else b"") + lines + newline


def remove_env(source: bytes, options: Options) -> bytes:
    """The lines as they were added are gone, whatever the answers were then."""
    newline = newline_of(source)
    pattern = b""
    for line in env_lines(replace(options, metrics=True)).splitlines():
        start = rb"^(\\# ARQ_\w+=|\\# More|ARQ_REDIS_URL=.*/).*"
        known = re.sub(start, rb"\1.*", re.escape(line.encode())) + newline
        pattern += b"(" + known + b")?" if "METRICS" in line else known
    found = list(re.finditer(rb"^" + pattern, source, re.M))
    if len(found) != 1:
        if add_env(source, options) == source:
            raise UnknownShapeError("its ARQ_REDIS_URL has been changed")
        return source
    before, after = source[: found[0].start()], source[found[0].end() :]
    if not after or before.endswith(newline * 2):
        before = before.removesuffix(newline)
    return before + after


# --- .env, .env.example: the password of the jobs page --------------------------------

PASSWORD_EXAMPLE = """\
# ARQ_PAGE_PASSWORD=at-least-16-characters
# ARQ_PAGE_ARGUMENTS=true  # false: the page hides arguments and results"""
PASSWORD_COMMENT = (
    "# Password of the jobs page at /arq/, with any user name; without one, no page"
)


def password_lines(options: Options) -> str:
    """The seam, to add or to take out by hand."""
    return f"{PASSWORD_COMMENT}\nARQ_PAGE_PASSWORD=at-least-16-characters"


def add_password(source: bytes, options: Options) -> bytes:
    """ARQ_PAGE_PASSWORD is set, to one that nobody can guess."""
    if _has_password(source):
        return source
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", ".env"], cwd=options.root, capture_output=True
    )
    if ignored.returncode:
        raise UnknownShapeError("git does not ignore it, so it is no place for secrets")
    return _with_password(source, f"ARQ_PAGE_PASSWORD={secrets.token_urlsafe(24)}")


def remove_password(source: bytes, options: Options) -> bytes:
    """The lines as they were added are gone."""
    return _remove_password(source, rb"ARQ_PAGE_PASSWORD=[\w-]{32}")


def add_password_example(source: bytes, options: Options) -> bytes:
    """There are comments about the settings of the page."""
    if _has_password(source):
        return source
    return _with_password(source, PASSWORD_EXAMPLE)


def remove_password_example(source: bytes, options: Options) -> bytes:
    """The lines as they were added are gone."""
    lines = PASSWORD_EXAMPLE.encode().replace(b"\n", newline_of(source))
    return _remove_password(source, re.escape(lines))


def _has_password(source: bytes) -> bool:
    pattern = rb"^[ \t#]*(export\s+)?ARQ_PAGE_PASSWORD\s*="
    return re.search(pattern, source, re.M | re.I) is not None


def _with_password(source: bytes, text: str) -> bytes:
    newline = newline_of(source)
    lines = newline.join(
        line.encode() for line in (PASSWORD_COMMENT, *text.splitlines())
    )
    return source + (newline if source else b"") + lines + newline


def _remove_password(source: bytes, line: bytes) -> bytes:
    newline = newline_of(source)
    pattern = re.escape(PASSWORD_COMMENT.encode()) + newline + b"(" + line + b")"
    found = re.search(pattern + newline, source)
    if not found:
        if _has_password(source):
            raise UnknownShapeError("its ARQ_PAGE_PASSWORD has been changed")
        return source
    before, after = source[: found.start()], source[found.end() :]
    candidates = [before + after, before.removesuffix(newline) + after]
    return _undo(
        source, iter(candidates), lambda one: _with_password(one, found[1].decode())
    )


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
