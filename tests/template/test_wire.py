"""The seams: exact, idempotent, and never a guess."""

import os
import resource
import sys
import textwrap
from pathlib import Path

import pytest
import seams
import tomlkit
import wire
from seams import UnknownShapeError
from seams.pyproject import DEPENDENCY
from support import Shop


@pytest.fixture
def options(tmp_path: Path) -> seams.Options:
    for name in ("core", "db"):
        (tmp_path / name).mkdir()
    (tmp_path / "settings.py").touch()
    return seams.Options(tmp_path, "core", 1)


def seam(name: str) -> wire.Seam:
    return next(seam for seam in wire.SEAMS if name in seam.files)


def edit(name: str, text: str, options: seams.Options) -> str:
    return wire.edited(text.encode(), seam(name), options, mode="write").decode()


def undo(name: str, text: str, options: seams.Options) -> str:
    return wire.edited(text.encode(), seam(name), options, mode="remove").decode()


def by_hand(name: str, text: str, options: seams.Options) -> str:
    """What is printed where nothing is written; the lines to add are among it."""
    path = options.root / name
    path.write_text(text)
    message = wire.wire(seam(name), options, mode="write")
    assert message.endswith(f". Add by hand:\n\n{seam(name).lines(options)}\n")
    assert path.read_text() == text
    return message


def added(before: str, after: str) -> list[str]:
    """The lines that are in `after` only, in order; asserts that none went missing."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    result = []
    for line in new:
        if old and line == old[0]:
            old.pop(0)
        else:
            result.append(line)
    assert old == []
    return result


# --- settings.py ------------------------------------------------------------------

SETTINGS = textwrap.dedent('''\
    """Settings."""

    from pydantic_settings import BaseSettings


    class Settings(BaseSettings):
        debug: bool = False  # keep  me
    ''')


def test_settings(options: seams.Options) -> None:
    assert edit("settings.py", SETTINGS, options) == SETTINGS.replace(
        "import BaseSettings\n",
        "import BaseSettings\n\nfrom core.arq_settings import ArqSettings\n",
    ).replace("Settings(BaseSettings)", "Settings(ArqSettings, BaseSettings)")


@pytest.mark.parametrize(
    ("bases", "expected"),
    [
        ("(Mixin, BaseSettings)", "(ArqSettings, Mixin, BaseSettings)"),
        ("(ps.BaseSettings)", "(ArqSettings, ps.BaseSettings)"),
        ("(Base, env_prefix='x')", "(ArqSettings, Base, env_prefix='x')"),
        ("(Base[int])", "(ArqSettings, Base[int])"),
    ],
)
def test_settings_with_other_bases(
    bases: str, expected: str, options: seams.Options
) -> None:
    text = SETTINGS.replace("(BaseSettings)", bases)
    assert f"class Settings{expected}:" in edit("settings.py", text, options)


def test_bases_in_lines_of_their_own_are_left(options: seams.Options) -> None:
    text = SETTINGS.replace("(BaseSettings)", "(\n    Mixin,\n    BaseSettings,\n)")
    assert "bases of Settings" in by_hand("settings.py", text, options)


def test_syntax_newer_than_this_python(options: seams.Options) -> None:
    text = SETTINGS + "\ntype Name = str\ndef first[T](x: list[T]) -> T: return x[0]\n"
    if sys.version_info < (3, 12):
        with pytest.raises(UnknownShapeError, match=r"Python 3\.11, on which Copier"):
            edit("settings.py", text, options)
    else:
        assert "ArqSettings" in edit("settings.py", text, options)


@pytest.mark.parametrize(
    "text",
    [
        "class Settings:\n    pass\n",
        SETTINGS + "\nclass Settings(BaseSettings):\n    pass\n",
        "class Settings(Base):\n    pass\n",
        SETTINGS.replace("(BaseSettings)", "(TypedDict)"),
        SETTINGS.replace("(BaseSettings)", "(typing.NamedTuple)"),
        SETTINGS.replace("(BaseSettings)", "(str, Enum)"),
        SETTINGS.replace("pydantic_settings", "pydantic.v1"),
        SETTINGS.replace("pydantic_settings", "pydantic"),
        SETTINGS + f"\nx = {' + '.join(['1'] * 20_000)}\n",
        "from x import *\nclass Settings(Base:\n",
        "def settings(): ...\n",
        "",
    ],
)
def test_settings_of_unknown_shape(text: str, options: seams.Options) -> None:
    with pytest.raises(UnknownShapeError):
        edit("settings.py", text, options)


@pytest.mark.parametrize(
    ("imported", "classes"),
    [
        ("ArqSettings as Queue", "class Settings(Queue, BaseSettings):"),
        (
            "ArqSettings",
            "class Base(ArqSettings):\n    x: int\n\n\nclass Settings(Base):",
        ),
        (
            "ArqSettings as A",
            "class One(A): ...\nclass Two(One): ...\nclass Settings(Two, BaseSettings):",
        ),
    ],
)
def test_settings_that_inherit_it_in_a_way_of_their_own(
    imported: str, classes: str, options: seams.Options
) -> None:
    text = SETTINGS.replace("class Settings(BaseSettings):", classes).replace(
        "BaseSettings\n\n",
        f"BaseSettings\n\nfrom core.arq_settings import {imported}\n\n",
    )
    assert edit("settings.py", text, options) == text


@pytest.mark.parametrize(
    "addition",
    [
        "\nclass ArqSettings:\n    mine: int = 1\n",
        "\nfrom elsewhere import ArqSettings\n",
        "\nArqSettings = None\n",
    ],
)
def test_an_arqsettings_of_the_users_own(addition: str, options: seams.Options) -> None:
    with pytest.raises(UnknownShapeError, match="another ArqSettings"):
        edit("settings.py", SETTINGS + addition, options)


def test_arqsettings_in_a_comment(options: seams.Options) -> None:
    text = SETTINGS + "    # ArqSettings would go here\n"
    result = edit("settings.py", text, options)
    assert "class Settings(ArqSettings, BaseSettings):" in result
    assert undo("settings.py", result, options) == text


@pytest.mark.parametrize("name", ["settings.py", "main.py"])
@pytest.mark.parametrize(
    "code",
    [
        "load_dotenv()",
        'sys.path.insert(0, "src")',
        "try:\n    import uvloop\nexcept: ...",
        "if TYPE_CHECKING:\n    import uvloop",
        "from .other import thing",
    ],
)
def test_code_between_imports(name: str, code: str, options: seams.Options) -> None:
    text = {"settings.py": SETTINGS, "main.py": MAIN}[name]
    imports, rest = text.split("\n\n\n", 1)
    text = f"import os\n{code}\n{imports}\n\n\n{rest}"
    with pytest.raises(UnknownShapeError, match="imports are not all at its head"):
        edit(name, text, options)


def test_imports_for_the_type_checker_may_follow(options: seams.Options) -> None:
    checked = "\nif TYPE_CHECKING:\n    import os\n"
    text = SETTINGS.replace("import BaseSettings\n", f"import BaseSettings\n{checked}")
    assert "ArqSettings" in edit("settings.py", text, options)


# --- main.py ----------------------------------------------------------------------

MAIN = textwrap.dedent("""\
    import sys
    from contextlib import asynccontextmanager

    from fastapi import FastAPI

    from db.database import close_db
    from settings import settings


    @asynccontextmanager
    async def lifespan(app):
        start()
        yield
        stop()
        await close_db()
        done()


    app = FastAPI(lifespan=lifespan)
    """)


def test_main(options: seams.Options) -> None:
    result = edit("main.py", MAIN, options)
    assert added(MAIN, result) == [
        "from core.arq import close_pool\n",
        "    await close_pool()\n",
    ]
    assert "close_pool()\n    await close_db()" in result
    assert "close_pool\nfrom db.database" in result


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("    yield\n", "    yield\n    await close_pool()\n"),
        ("\tyield\n", "\tyield\n\tawait close_pool()\n"),
        ("    yield {'a': 1}  # state\n", "# state\n    await close_pool()\n"),
        (
            "    try:\n        yield\n    finally:\n        stop()\n",
            "    finally:\n        await close_pool()\n        stop()\n",
        ),
        (
            "    try:\n        yield\n    finally:\n        await close_db()\n",
            "    finally:\n        await close_pool()\n        await close_db()\n",
        ),
        (
            "    async with x() as y:\n        yield\n",
            "        yield\n        await close_pool()\n",
        ),
        # where the database may be closed or not, or often, the pool is before that
        (
            "    yield\n    if x:\n        await close_db()\n",
            "    yield\n    await close_pool()\n    if x:",
        ),
        (
            "    yield\n    return\n    await close_db()\n",
            "    yield\n    await close_pool()\n    return",
        ),
        (
            "    yield\n    for db in dbs:\n        await close_db()\n",
            "    yield\n    await close_pool()\n    for db",
        ),
    ],
)
def test_main_with_another_lifespan(
    body: str, expected: str, options: seams.Options
) -> None:
    start, end = MAIN.index("    start()"), MAIN.index("\n\napp =")
    text = MAIN[:start] + body + MAIN[end:]
    result = edit("main.py", text, options)
    assert expected in result
    assert len(added(text, result)) == 2
    assert undo("main.py", result, options) == text


@pytest.mark.parametrize(
    "body",
    [
        "    start()\n",
        "    if x:\n        yield\n    else:\n        yield\n",
        "    for x in y:\n        yield\n",
        "    def inner():\n        yield\n",
        "    try:\n        yield\n    except Error:\n        stop()\n",
        "    start(); yield\n",
        "    with x():\n        yield\n",
        "    state = yield\n",
        # the pool would be closed before the end, not at each end, or never
        "    try:\n        yield\n    except Error:\n        await close_db()\n",
        "    try:\n        start()\n    finally:\n        yield\n",
        "    while True:\n        yield\n        await close_db()\n",
    ],
)
def test_main_of_unknown_shape(body: str, options: seams.Options) -> None:
    start, end = MAIN.index("    start()"), MAIN.index("\n\napp =")
    with pytest.raises(UnknownShapeError):
        edit("main.py", MAIN[:start] + body + MAIN[end:], options)


def test_only_the_function_given_as_lifespan(options: seams.Options) -> None:
    scope = "@asynccontextmanager\nasync def session_scope():\n    yield make()\n\n\n"
    text = MAIN.replace("app =", scope + "app =")
    result = edit("main.py", text, options)
    assert added(text, result)[1] == "    await close_pool()\n"
    assert scope in result


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lifespan=lifespan", ""),
        ("lifespan=lifespan", "lifespan=make_lifespan()"),
        ("lifespan=lifespan", "lifespan=other"),
        ("app = ", "admin = FastAPI(lifespan=other)\napp = "),
        ("@asynccontextmanager\nasync ", ""),
        (MAIN[MAIN.index("@") : MAIN.index("app =")], "from x import lifespan\n"),
        ("app = ", MAIN[MAIN.index("@") : MAIN.index("app =")] + "app = "),
    ],
)
def test_main_without_a_single_lifespan(
    old: str, new: str, options: seams.Options
) -> None:
    assert old in MAIN
    with pytest.raises(UnknownShapeError):
        edit("main.py", MAIN.replace(old, new, 1), options)


@pytest.mark.parametrize(
    "use",
    [
        "from other.pool import close_pool\n",
        "def close_pool():\n    ...\n",
        "close_pool = None\n",
        "import pool as close_pool\n",
    ],
)
def test_another_close_pool(use: str, options: seams.Options) -> None:
    with pytest.raises(UnknownShapeError, match="another close_pool"):
        edit("main.py", MAIN + use, options)


@pytest.mark.parametrize(
    "mention", ["# close_pool() goes here\n", "x = 'await close_pool()'\n"]
)
def test_a_mention_of_close_pool_is_none(mention: str, options: seams.Options) -> None:
    text = MAIN + mention
    result = edit("main.py", text, options)
    assert len(added(text, result)) == 2
    assert undo("main.py", result, options) == text


@pytest.mark.parametrize(
    ("head", "call"),
    [
        ("from core.arq import close_pool\n", "await close_pool()"),
        ("from core.arq import close_pool as done\n", "await done()"),
        ("from core.arq import close_pool\n", "stack.push_async_callback(close_pool)"),
    ],
)
def test_a_pool_that_is_closed_already(
    head: str, call: str, options: seams.Options
) -> None:
    text = head + MAIN.replace("stop()", call)
    assert edit("main.py", text, options) == text


def test_a_pool_that_is_closed_by_its_module(options: seams.Options) -> None:
    text = "from core import arq\n" + MAIN.replace("stop()", "await arq.close_pool()")
    (options.root / "settings.py").write_text(edit("settings.py", SETTINGS, options))
    assert "it has another close_pool" in by_hand("main.py", text, options)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("await close_pool()", "stack.push_async_callback(close_pool)"),
        ("await close_pool()", "await close_pool(); done()"),
        ("await close_pool()", "pass"),
        ("done()", "atexit(close_pool)"),
        ("import close_pool", "import close_pool as close"),
        ("import close_pool", "import (\n    close_pool,\n)"),
        ("import close_pool", "import close_pool; import late"),
    ],
)
def test_a_use_of_ones_own_is_not_taken_out(
    old: str, new: str, options: seams.Options
) -> None:
    text = edit("main.py", MAIN, options).replace(old, new, 1)
    with pytest.raises(UnknownShapeError, match="in a way of its own"):
        undo("main.py", text, options)


# --- Line endings, indentation, the end of the file ---------------------------------


@pytest.mark.parametrize("name", ["settings.py", "main.py"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("    ", "\t"),
        lambda text: text.rstrip("\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("import", "import  ").replace(
            "Settings.", "Ünïcödé."
        ),
    ],
    ids=["CRLF", "tabs", "no newline at the end", "BOM", "spaces and non-ASCII"],
)
def test_the_files_own_style_is_kept(
    name: str, change: object, options: seams.Options
) -> None:
    text = change({"settings.py": SETTINGS, "main.py": MAIN}[name])  # type: ignore[operator]
    result = edit(name, text, options)
    assert result != text
    if name == "main.py":
        added(text, result)
    assert ("\r\n" in text) == ("\r\n" in result)
    assert result.replace("\r\n", "").count("\n") in (0, result.count("\n"))
    assert ("\t" in text) == ("\t" in result)


@pytest.mark.parametrize("odd", ["\r\n", "\r"])
def test_lines_that_end_in_several_ways_are_left(
    odd: str, options: seams.Options
) -> None:
    text = MAIN.replace("\n", odd, 1)
    with pytest.raises(UnknownShapeError, match="lines end in several ways"):
        edit("main.py", text, options)


# --- pyproject.toml and .env --------------------------------------------------------


@pytest.mark.parametrize(
    "dependencies",
    [
        '[\n    "a",\n    "b",\n]',
        "[\n]",
        '[\n    "a",  # why\n    # last\n    "b",\n]',
        '[\n    "arq-dashboard>=1",\n]',
    ],
)
def test_pyproject(dependencies: str, options: seams.Options) -> None:
    text = (
        f'# top\n[project]\nname="x"\ndependencies = {dependencies}\n\n[tool.x]\na=1\n'
    )
    result = edit("pyproject.toml", text, options)
    before = tomlkit.parse(text)["project"]["dependencies"]
    after = tomlkit.parse(result)["project"]["dependencies"]
    assert list(after) == [*before, DEPENDENCY]
    assert result.startswith("# top\n") and result.endswith("]\n\n[tool.x]\na=1\n")


@pytest.mark.parametrize(
    "dependencies",
    [
        "[]",
        '["a", "b"]',
        '[\n    "a",\n    "b"\n]',
        '[\n\t"a",\n]',
        '[\r\n    "a",\r\n]',
    ],
)
def test_pyproject_that_is_left_to_uv(
    dependencies: str, options: seams.Options
) -> None:
    text = f"[project]\ndependencies = {dependencies}\n"
    path = options.root / "pyproject.toml"
    path.write_bytes(text.encode())
    message = wire.wire(seam("pyproject.toml"), options, mode="write")
    assert f'Add by hand:\n\nuv add "{DEPENDENCY}"\n' in message
    assert path.read_bytes() == text.encode()


@pytest.mark.parametrize(
    "text", ["[tool.poetry.dependencies]\na='1'\n", "[project\n", ""]
)
def test_pyproject_of_unknown_shape(text: str, options: seams.Options) -> None:
    with pytest.raises(UnknownShapeError):
        edit("pyproject.toml", text, options)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("A=1\n", "A=1\n\n# ARQ"),
        ("A=1", "A=1\n# ARQ"),
        ("", "# ARQ"),
        ("A=1\r\n", "A=1\r\n\r\n# ARQ"),
    ],
)
def test_env(text: str, start: str, options: seams.Options) -> None:
    result = edit(".env", text, options)
    assert result.startswith(start)
    assert "\nARQ_REDIS_URL=redis://localhost:${ARQ_REDIS_PORT:-6379}/1" in result


@pytest.mark.parametrize("line", ["ARQ_REDIS_URL=x", "export ARQ_REDIS_URL = x"])
def test_env_that_has_it(line: str, options: seams.Options) -> None:
    assert edit(".env", f"A=1\n{line}\n", options) == f"A=1\n{line}\n"


def test_env_in_another_encoding(options: seams.Options) -> None:
    with pytest.raises(UnknownShapeError, match="not UTF-8"):
        wire.edited("A=1\n".encode("utf-16"), seam(".env"), options, mode="write")


@pytest.mark.parametrize(
    "text", ["A=1\n", "A=1", "", "\n\n", "A=1\r\nB=2\r\n", "A=1\r\n\r\n"]
)
def test_env_is_as_it_was(text: str, options: seams.Options) -> None:
    assert undo(".env", edit(".env", text, options), options) == text


def test_env_that_says_something_else_is_left(options: seams.Options) -> None:
    text = edit(".env", "A=1\n", options).replace("localhost", "redis.internal")
    with pytest.raises(UnknownShapeError, match="has been changed"):
        undo(".env", text, options)


def test_the_dependency_of_paxx_ext_add_arq(options: seams.Options) -> None:
    old = "arq>=0.26"
    text = f'[project]\ndependencies = [\n    "a",\n    "{old}",\n]\n'
    result = edit("pyproject.toml", text, options)
    assert result == text.replace(old, DEPENDENCY)


@pytest.mark.parametrize("name", ["arq", "Arq[watch]==0.28", "arq @ file:///arq"])
def test_a_dependency_of_the_users_own(name: str, options: seams.Options) -> None:
    text = f'[project]\ndependencies = ["{name}"]\n'
    assert edit("pyproject.toml", text, options) == text


# --- deploy/linux-server ------------------------------------------------------------

DEPLOY = textwrap.dedent("""\
    #!/bin/bash
    # 1. Pull new image
    docker run -d \\
        -e "APP_ENV=production" \\
        "$IMAGE"
    # 6. Graceful shutdown
    docker stop""")


@pytest.mark.parametrize("end", ["", "\n", "\nAPP=1"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_deploy(end: str, newline: str, options: seams.Options) -> None:
    text = (DEPLOY + end).replace("\n", newline)
    result = edit("deploy/linux-server/deploy.sh", text, options)
    assert len(added(text, result)) == 7
    assert result.count("\n") == result.count(newline)
    assert undo("deploy/linux-server/deploy.sh", result, options) == text


@pytest.mark.parametrize(
    "text", [DEPLOY.partition("docker run")[0], DEPLOY[: DEPLOY.index(' \\\n    "$IM')]]
)
def test_deploy_of_unknown_shape(text: str, options: seams.Options) -> None:
    with pytest.raises(UnknownShapeError):
        edit("deploy/linux-server/deploy.sh", text, options)


# --- The command --------------------------------------------------------------------


def test_diff_shows_the_diff_and_writes_nothing(shop: Shop) -> None:
    done = shop.wire("diff")
    assert "+class Settings(ArqSettings, BaseSettings):" in done.stdout
    assert f'+    "{DEPENDENCY}",' in done.stdout
    assert shop.git("status", "--porcelain") == ""


def test_a_second_run_changes_nothing(shop: Shop) -> None:
    assert "wired  settings.py" in shop.wire("write").stderr
    shop.commit()
    assert shop.wire("write").stderr == ""
    assert shop.git("status", "--porcelain") == ""


def test_a_file_it_does_not_know_is_left_alone_and_explained(shop: Shop) -> None:
    (shop / "main.py").write_text("app = make_app()\n")
    (shop / "pyproject.toml").write_text("[tool.poetry]\nname = 'shop'\n")
    shop.commit()
    output = shop.copy(commit=False)
    assert "main.py: it has no single function given as `lifespan=`" in output
    assert "from core.arq import close_pool" in output
    assert f'uv add "{DEPENDENCY}"' in output
    changed = shop.git("diff", "--name-only").split()
    assert "settings.py" in changed
    assert "main.py" not in changed and "pyproject.toml" not in changed


@pytest.mark.parametrize("mode", ["write", "diff"])
def test_the_environment_is_left_alone_where_settings_are(
    mode: str, shop: Shop
) -> None:
    """With extra="forbid", settings that do not know ARQ_REDIS_URL refuse it."""
    text = (shop / "settings.py").read_text()
    text = text.replace("(BaseSettings)", "(TypedDict)")
    (shop / "settings.py").write_text(text)
    done = shop.wire(mode)
    diff, output = done.stdout, done.stderr
    assert "settings.py: its Settings is not one of pydantic-settings" in output
    assert ".env: settings.py does not know the queue yet" in output
    assert "ARQ_REDIS_URL" not in diff
    assert "ARQ_REDIS_URL" not in (shop / ".env").read_text()
    assert "ARQ_REDIS_URL" not in (shop / ".env.example").read_text()


def test_hard_links_and_the_owner_are_kept(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "link").hardlink_to(shop / "main.py")
    if os.geteuid() == 0:
        os.chown(shop / "settings.py", 1234, 1234)
    owner = (shop / "settings.py").stat().st_uid
    shop.wire("write")
    assert (tmp_path / "link").read_text() == (shop / "main.py").read_text()
    assert "close_pool" in (tmp_path / "link").read_text()
    assert (shop / "settings.py").stat().st_uid == owner


def test_a_read_only_file_is_explained(shop: Shop) -> None:
    (shop / ".env").chmod(0o400)
    assert ".env: it is read-only" in shop.wire("write").stderr
    assert "ARQ_REDIS_URL" not in (shop / ".env").read_text()


def test_a_file_for_which_there_is_no_room_stays(shop: Shop) -> None:
    before = (shop / "settings.py").read_text()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        said = wire.wire(
            seam("settings.py"), seams.Options(shop.root, "core"), mode="write"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "settings.py: File too large. Add by hand:" in said
    assert (shop / "settings.py").read_text() == before


@pytest.mark.parametrize(
    ("requirement", "is_enough"),
    [
        ("arq>=0.25", False),
        ("arq==0.27.1", False),
        ("arq~=0.26.3", False),
        (DEPENDENCY.partition(",")[0], True),  # without an upper bound
    ],
)
def test_an_arq_that_is_there_already(
    shop: Shop, requirement: str, is_enough: bool
) -> None:
    text = shop.edit(
        "pyproject.toml", "dependencies = [", f'dependencies = [\n    "{requirement}",'
    )
    output = shop.wire("write").stderr
    said = f"asks for {requirement}, and the queue needs more"
    assert (said in output) is not is_enough
    assert (f'uv add "{DEPENDENCY}"' in output) is not is_enough
    assert (shop / "pyproject.toml").read_text() == text


@pytest.mark.slow
def test_a_settings_package(shop: Shop) -> None:
    (shop / "settings").mkdir()
    shop.git("mv", "settings.py", "settings/__init__.py")
    shop.commit()
    shop.copy()
    text = (shop / "settings/__init__.py").read_text()
    assert "class Settings(ArqSettings, BaseSettings):" in text
    shop.run("python", "-c", "import main", env=shop.settings(""))


@pytest.mark.slow
def test_a_settings_package_without_the_class_is_explained(shop: Shop) -> None:
    (shop / "settings").mkdir()
    shop.git("mv", "settings.py", "settings/base.py")
    (shop / "settings/__init__.py").write_text(
        "from settings.base import Settings, settings\n"
    )
    shop.commit()
    output = shop.copy()
    assert "settings/__init__.py: it has no single" in output
    assert "class Settings(ArqSettings, BaseSettings):" in output


def test_file_modes_and_links_are_kept(shop: Shop) -> None:
    (shop / "main.py").chmod(0o750)
    (shop / "conf").mkdir()
    (shop / ".env").rename(shop / "conf/env")
    (shop / ".env").symlink_to("conf/env")
    output = " ".join(shop.wire("write").stderr.split())
    assert ".env.example, .env -> conf/env (not in git)" in output
    assert (shop / "main.py").stat().st_mode & 0o777 == 0o750
    assert (shop / ".env").is_symlink()
    assert "ARQ_REDIS_URL" in (shop / "conf/env").read_text()


@pytest.mark.slow
def test_settings_that_read_the_environment_in_a_way_of_their_own(
    own_shop_with_queue: Shop,
) -> None:
    shop = own_shop_with_queue
    [env] = [it for it in wire.SEAMS if it.files == (".env",) and it.missed]
    (shop / ".env").write_text(env.lines(seams.Options(shop.root, "core", 3)))
    output = shop.script("""
        import os

        from pydantic_settings import BaseSettings, SettingsConfigDict

        from core.arq_settings import ArqSettings

        for config in (
            {"case_sensitive": True},
            {"env_prefix": "SHOP_"},
            {"extra": "forbid"},
            {"extra": "forbid", "case_sensitive": True},
        ):

            class Settings(ArqSettings, BaseSettings):
                model_config = SettingsConfigDict(env_file=".env", **config)

            print("URL", Settings().arq_redis_url)
    """)
    said = output.split("URL ")[1:]
    assert [text.split()[0][-2:] for text in said] == ["/3"] * 4


@pytest.mark.slow
def test_the_wiring_runs_apart_from_the_projects_own_uv(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration and environment may be broken, or not be meant for ours."""
    monkeypatch.setenv("UV_PYTHON", "3.8")
    (shop / "uv.toml").write_text(
        'index-url = "http://127.0.0.1:9"\nno such = setting\n'
    )
    (shop / ".python-version").write_text("3.8\n")
    (shop / ".venv/bin").mkdir(parents=True)
    (shop / ".venv/pyvenv.cfg").write_text("home = /nowhere\nversion = 3.8\n")
    (shop / ".venv/bin/python").write_text("#!/bin/sh\nexit 3\n")
    (shop / ".venv/bin/python").chmod(0o755)
    (shop / "libcst.py").write_text("raise SystemExit('not this one')\n")
    with (shop / "pyproject.toml").open("a") as file:
        file.write('\n[tool.uv]\nrequired-version = ">=999"\n')
    shop.commit()
    assert "wired  settings.py, main.py, " in shop.copy()
