"""The seams: exact, idempotent, and never a guess."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import seams
import tomlkit
import wire
from python_file import UnknownShapeError
from support import TEMPLATE, Shop, run

SCRIPT = TEMPLATE / "extensions/wire.py"


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
        (
            "(\n    Mixin,\n    Base,\n)",
            "(\n    ArqSettings,\n    Mixin,\n    Base,\n)",
        ),
        ("(Base, env_prefix='x')", "(ArqSettings, Base, env_prefix='x')"),
        ("(Base[int])", "(ArqSettings, Base[int])"),
    ],
)
def test_settings_with_other_bases(
    bases: str, expected: str, options: seams.Options
) -> None:
    text = SETTINGS.replace("(BaseSettings)", bases)
    assert f"class Settings{expected}:" in edit("settings.py", text, options)


def test_syntax_newer_than_this_python(options: seams.Options) -> None:
    text = SETTINGS + "\ntype Name = str\ndef first[T](x: list[T]) -> T: return x[0]\n"
    assert "ArqSettings" in edit("settings.py", text, options)


@pytest.mark.parametrize(
    "text",
    [
        "class Settings:\n    pass\n",
        SETTINGS + "\nclass Settings(BaseSettings):\n    pass\n",
        "class Settings(Base):\n    pass\n",
        "from x import *\nclass Settings(Base:\n",
        "def settings(): ...\n",
        "",
    ],
)
def test_settings_of_unknown_shape(text: str, options: seams.Options) -> None:
    with pytest.raises(UnknownShapeError):
        edit("settings.py", text, options)


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


@pytest.mark.parametrize(
    "body",
    [
        "    start()\n",
        "    if x:\n        yield\n    else:\n        yield\n",
        "    for x in y:\n        yield\n",
        "    def inner():\n        yield\n",
        "    try:\n        yield\n    except Error:\n        stop()\n",
        "    start(); yield\n",
    ],
)
def test_main_of_unknown_shape(body: str, options: seams.Options) -> None:
    start, end = MAIN.index("    start()"), MAIN.index("\n\napp =")
    with pytest.raises(UnknownShapeError):
        edit("main.py", MAIN[:start] + body + MAIN[end:], options)


def test_main_with_two_lifespans(options: seams.Options) -> None:
    with pytest.raises(UnknownShapeError):
        edit("main.py", MAIN + MAIN[MAIN.index("@async") :], options)


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


# --- pyproject.toml and .env --------------------------------------------------------


@pytest.mark.parametrize(
    "dependencies",
    [
        '[\n    "a",\n    "b",\n]',
        '["a", "b"]',
        "[]",
        '[\n    "a",  # why\n    # last\n    "b"\n]',
        '[\r\n    "a",\r\n]',
        '["arq-dashboard>=1"]',
    ],
)
def test_pyproject(dependencies: str, options: seams.Options) -> None:
    text = (
        f'# top\n[project]\nname="x"\ndependencies = {dependencies}\n\n[tool.x]\na=1\n'
    )
    result = edit("pyproject.toml", text, options)
    before = tomlkit.parse(text)["project"]["dependencies"]
    after = tomlkit.parse(result)["project"]["dependencies"]
    assert list(after) == [*before, seams.DEPENDENCY]
    assert result.startswith("# top\n") and result.endswith("]\n\n[tool.x]\na=1\n")


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
    assert "\nARQ_REDIS_URL=redis://localhost:6379/1" in result


@pytest.mark.parametrize("line", ["ARQ_REDIS_URL=x", "export ARQ_REDIS_URL = x"])
def test_env_that_has_it(line: str, options: seams.Options) -> None:
    assert edit(".env", f"A=1\n{line}\n", options) == f"A=1\n{line}\n"


# --- The command --------------------------------------------------------------------


def wire_shop(shop: Shop, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["uv", "run", "-q", "--script", SCRIPT, *arguments, "--package", "core"]
    return run(command, cwd=shop.root)


def test_diff_shows_the_diff_and_writes_nothing(shop: Shop) -> None:
    done = wire_shop(shop, "diff")
    assert "+class Settings(ArqSettings, BaseSettings):" in done.stdout
    assert '+    "arq>=0.28,<0.29",' in done.stdout
    assert shop.git("status", "--porcelain") == ""


def test_a_second_run_changes_nothing(shop: Shop) -> None:
    assert "wired  settings.py" in wire_shop(shop, "write").stderr
    shop.commit()
    assert wire_shop(shop, "write").stderr == ""
    assert shop.git("status", "--porcelain") == ""


def test_a_file_it_does_not_know_is_left_alone_and_explained(shop: Shop) -> None:
    (shop / "main.py").write_text("app = make_app()\n")
    (shop / "pyproject.toml").write_text("[tool.poetry]\nname = 'shop'\n")
    shop.commit()
    output = shop.copy(commit=False)
    assert "main.py was left as it is: it has no single @asynccontextmanager" in output
    assert "from core.arq import close_pool" in output
    assert 'uv add "arq>=0.28,<0.29"' in output
    changed = shop.git("diff", "--name-only").split()
    assert "settings.py" in changed
    assert "main.py" not in changed and "pyproject.toml" not in changed


def test_a_settings_package(shop: Shop) -> None:
    (shop / "settings").mkdir()
    shop.git("mv", "settings.py", "settings/__init__.py")
    shop.commit()
    shop.copy()
    text = (shop / "settings/__init__.py").read_text()
    assert "class Settings(ArqSettings, BaseSettings):" in text
    shop.run("python", "-c", "import main", env=shop.settings(""))


def test_a_settings_package_without_the_class_is_explained(shop: Shop) -> None:
    (shop / "settings").mkdir()
    shop.git("mv", "settings.py", "settings/base.py")
    (shop / "settings/__init__.py").write_text(
        "from settings.base import Settings, settings\n"
    )
    shop.commit()
    output = shop.copy()
    assert "settings/__init__.py was left as it is" in output
    assert "class Settings(ArqSettings, BaseSettings):" in output


def test_file_modes_and_links_are_kept(shop: Shop) -> None:
    (shop / "main.py").chmod(0o750)
    (shop / "conf").mkdir()
    (shop / ".env").rename(shop / "conf/env")
    (shop / ".env").symlink_to("conf/env")
    wire_shop(shop, "write")
    assert (shop / "main.py").stat().st_mode & 0o777 == 0o750
    assert (shop / ".env").is_symlink()
    assert "ARQ_REDIS_URL" in (shop / "conf/env").read_text()


def test_a_copy_goes_through_where_uv_cannot_get_the_dependencies(
    shop: Shop, tmp_path: Path
) -> None:
    dev = Path(sys.executable).parent  # it has the dependencies
    path = [part for part in os.environ["PATH"].split(":") if Path(part) != dev]
    offline = {"UV_OFFLINE": "1", "UV_CACHE_DIR": str(tmp_path / "empty")}
    env = {**offline, "VIRTUAL_ENV": "", "PATH": ":".join(path)}
    command = [dev / "copier", "copy", "--trust", "--defaults", shop.template, "."]
    done = run(command, cwd=shop.root, env=env)
    assert "Your files are not wired yet" in done.stdout + done.stderr
    assert (shop / "core/arq.py").exists()
    assert "ArqSettings" not in (shop / "settings.py").read_text()
    run([*command, "--overwrite"], cwd=shop.root)
    assert "ArqSettings" in (shop / "settings.py").read_text()
