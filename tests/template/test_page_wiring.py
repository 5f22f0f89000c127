"""The jobs page's lines in files that are the user's: exact, and gone without a trace."""

import re
import shutil
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import seams
import wire
from hypothesis import given, settings
from hypothesis import strategies as st
from seams import UnknownShapeError, page, password
from support import Shop, git
from test_wire_properties import (
    BOM,
    env_files,
    heads,
    imports,
    newlines,
    parse,
    tails,
)

MAIN, EXAMPLE, ENV = page.SEAM, password.EXAMPLE, password.ENV
PASSWORD = re.compile(rb"ARQ_PAGE_PASSWORD=([\w-]{32})\r?\n")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> seams.Options:
    root = tmp_path_factory.mktemp("project")
    for name in ("core", "services", "db"):
        (root / name).mkdir()
    (root / "settings.py").touch()
    (root / ".gitignore").write_text(".env\n")
    git(root, "init", "-q")
    return seams.Options(root, "core")


def added(
    seam: wire.Seam, source: bytes, options: seams.Options
) -> tuple[bytes, list[bytes]]:
    """The file with the seam, and its new lines; it can be taken out again."""
    result = wire.edited(source, seam, options, mode="write")
    assert wire.edited(result, seam, options, mode="write") == result
    if result != source:
        assert wire.edited(result, seam, options, mode="remove") == source
    before, after = (
        [line.rstrip(b"\r") for line in text.removeprefix(BOM).split(b"\n")]
        for text in (source, result)
    )
    old, new = before, []
    for line in after:
        if old and line == old[0]:
            old.pop(0)
        else:
            new.append(line.strip())
    assert old in ([], [b""])
    return result, [line for line in new if line]


# --- main.py ------------------------------------------------------------------------

SHOP = textwrap.dedent("""\
    from fastapi import FastAPI

    from core.arq import close_pool
    from core.exceptions import register_exception_handlers


    def create_app() -> FastAPI:
        app = FastAPI(title="shop")
        app.include_router(health_router, tags=["health"])
        app.include_router(
            other_router,  # why
        )

        return app
    """)
LINES = [
    b"from core.arq import jobs_page",
    b"app.include_router(jobs_page())",
]


def test_the_page_comes_after_the_other_routers(options: seams.Options) -> None:
    result = wire.edited(SHOP.encode(), MAIN, options, mode="write")
    assert wire.edited(result, MAIN, options, mode="write") == result
    assert wire.edited(result, MAIN, options, mode="remove") == SHOP.encode()
    assert result.decode() == SHOP.replace(
        "import close_pool\n", "import close_pool, jobs_page\n"
    ).replace("    )\n\n", "    )\n    app.include_router(jobs_page())\n\n")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("app = FastAPI()\n", "app = FastAPI()\napp.include_router(jobs_page())\n"),
        ("app: FastAPI = FastAPI(a=1)", "\napp.include_router(jobs_page())"),
        (
            "api = fastapi.FastAPI(\n    a=1,\n)\n",
            ")\napi.include_router(jobs_page())\n",
        ),
        (
            "app = FastAPI()\nif x:\n\tapp.include_router(a)\n\tgo()\n",
            "(a)\n\tapp.include_router(jobs_page())\n\tgo()\n",
        ),
    ],
)
def test_other_shapes(body: str, expected: str, options: seams.Options) -> None:
    result, lines = added(MAIN, f"import fastapi\n\n\n{body}".encode(), options)
    assert expected in result.decode()
    assert len(lines) == 2


@pytest.mark.parametrize(
    "body",
    [
        "app = make_app()\n",
        "app.include_router(a)\nif x:\n    app.include_router(b)\n",
        "a = FastAPI()\ndef f():\n    b = FastAPI()\n",
        "app.include_router(a); b()\n",
    ],
)
def test_unknown_shapes_are_left_alone(body: str, options: seams.Options) -> None:
    with pytest.raises(UnknownShapeError):
        added(MAIN, f"import fastapi\n\n\n{body}".encode(), options)


@pytest.mark.parametrize(
    "line",
    [
        "app.include_router(jobs_page(dependencies=[Depends(admin)]))",
        'app.include_router(jobs_page(), prefix="/internal")',
    ],
)
def test_the_users_own_way_is_kept(line: str, options: seams.Options) -> None:
    text = f"from core.arq import jobs_page\n\napp = FastAPI()\n{line}\n".encode()
    assert added(MAIN, text, options) == (text, [])
    with pytest.raises(UnknownShapeError):
        wire.edited(text, MAIN, options, mode="remove")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("import A, b", "import A, b, jobs_page"),
        ("import set_pool", "import jobs_page, set_pool"),
        ("import b as c  # why", "import b as c, jobs_page  # why"),
    ],
)
def test_an_import_of_the_module_is_shared(
    before: str, after: str, options: seams.Options
) -> None:
    source = f"from core.arq {before}\n\napp = FastAPI()\n".encode()
    result = wire.edited(source, MAIN, options, mode="write")
    assert f"from core.arq {after}\n\n" in result.decode()
    assert wire.edited(result, MAIN, options, mode="remove") == source


@pytest.mark.parametrize("names", ["(\n    a,\n    b,\n)", "(a)", "a,b", "*"])
def test_an_import_that_is_written_in_another_way_is_left(
    names: str, options: seams.Options
) -> None:
    source = f"from core.arq import {names}\n\napp = FastAPI()\n".encode()
    with pytest.raises(UnknownShapeError, match=r"imports core\.arq in a way of its"):
        added(MAIN, source, options)


def test_the_other_package_is_pointed_out(options: seams.Options) -> None:
    source = wire.edited(SHOP.encode(), MAIN, options, mode="write")
    with pytest.raises(UnknownShapeError, match=r"imports jobs_page from core\."):
        added(MAIN, source, replace(options, package="services"))


@st.composite
def apps(draw: st.DrawFn) -> bytes:
    line = st.sampled_from(
        [
            "app.include_router(a)",
            "app.include_router(\n    b,\n    tags=[')'],\n)",
            "app.include_router(c)  # why",
            "app.add_middleware(d)",
            "e = 1; f = 2",
            "# app.include_router(g)",
            "",
        ]
    )
    body = "\n".join(["app = FastAPI()", *draw(st.lists(line, max_size=5))])
    if draw(st.booleans()):
        indent = draw(st.sampled_from(["    ", "\t"]))
        body = f"def make():\n{textwrap.indent(body, indent)}\n{indent}return app"
    text = draw(heads) + "\n".join(draw(imports)) + f"\n\n\n{body}{draw(tails)}"
    return (
        draw(st.sampled_from(["", "\ufeff"])).encode()
        + text.replace("\n", draw(newlines)).encode()
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(source=apps())
def test_every_byte_of_main(source: bytes, options: seams.Options) -> None:
    try:
        result, lines = added(MAIN, source, options)
    except UnknownShapeError:
        return
    parse(result.removeprefix(BOM))
    assert lines == LINES


# --- .env and .env.example ----------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(source=env_files)
def test_every_byte_of_env(source: bytes, options: seams.Options) -> None:
    result, _ = added(ENV, source, options)
    assert result.startswith(source) and PASSWORD.search(result)
    result, lines = added(EXAMPLE, source, options)
    assert lines[-3] == b"# ARQ_PAGE_PASSWORD=at-least-16-characters"


def test_two_projects_have_two_passwords(options: seams.Options) -> None:
    passwords = {PASSWORD.search(added(ENV, b"", options)[0]) for _ in range(2)}
    assert len({match and match[1] for match in passwords}) == 2


@pytest.mark.parametrize("line", ["ARQ_PAGE_PASSWORD=x", "# ARQ_PAGE_PASSWORD="])
def test_a_password_of_ones_own_is_kept(line: str, options: seams.Options) -> None:
    source = f"A=1\n{line}\n".encode()
    assert wire.edited(source, ENV, options, mode="write") == source
    assert wire.edited(source, EXAMPLE, options, mode="write") == source
    with pytest.raises(UnknownShapeError):
        wire.edited(source, ENV, options, mode="remove")


@pytest.mark.slow
@pytest.mark.parametrize("tracked", [True, False])
def test_no_password_where_git_would_see_it(
    tracked: bool, shop: Shop, tmp_path: Path
) -> None:
    if tracked:
        shop.git("add", "-f", ".env")
    else:
        (shop / ".gitignore").write_text("# nothing\n")
    shop.commit()
    output = shop.copy(commit=False)
    assert ".env: git does not ignore it" in output
    assert "ARQ_PAGE_PASSWORD=at-least-16-characters" in output
    assert "ARQ_PAGE_PASSWORD" not in (shop / ".env").read_text()
    assert "ARQ_REDIS_URL" in (shop / ".env").read_text()


@pytest.mark.slow
def test_before_git_is_there_its_ignore_file_counts(shop: Shop) -> None:
    shutil.rmtree(shop / ".git")
    output = shop.copy(commit=False)
    assert ".env (not in git)" in output and "by hand" not in output
    assert PASSWORD.search((shop / ".env").read_bytes())
    shutil.rmtree(shop / "core/arq_runtime")
    (shop / ".gitignore").unlink()
    (shop / ".env").write_text("")
    assert ".env: git does not ignore it" in shop.copy("--overwrite", commit=False)


# --- Copier -------------------------------------------------------------------------


def test_the_message_says_where_to_look(
    shop_with_queue: Shop, copy_output: str
) -> None:
    assert "http://localhost:8000/arq/" in copy_output
    password = PASSWORD.search((shop_with_queue / ".env").read_bytes())
    assert password and password[1].decode() not in copy_output
    assert "the jobs; its password is in .env" in copy_output
    example = (shop_with_queue / ".env.example").read_text()
    assert "# ARQ_PAGE_PASSWORD=" in example
    assert password[1].decode() not in shop_with_queue.git("show", "HEAD")


def test_without_the_page(shop: Shop) -> None:
    output = shop.copy("-d", "include_jobs_page=false")
    assert "/arq/" not in output and "core.arq stats" in output
    assert "jobs_page" not in (shop / "main.py").read_text()


@pytest.mark.slow
def test_an_update_can_bring_the_page_and_take_it(shop: Shop) -> None:
    shop.copy("-d", "include_jobs_page=false")
    assert "jobs_page" not in shop.wire("check", jobs_page=False).stderr
    output = shop.update("-d", "include_jobs_page=true")
    assert (shop / "core/arq_runtime/operate/page.py").exists()
    assert "missing, or too many, in main.py" in output
    assert "ARQ_PAGE_PASSWORD=" not in output
    assert "wired  main.py, .env.example, .env" in shop.wire("wire").stderr
    assert "missing" not in shop.wire("check").stderr
    shop.commit()
    output = shop.update("-d", "include_jobs_page=false")
    assert not (shop / "core/arq_runtime/operate/static").exists()
    assert "missing, or too many, in main.py" in output
    assert "unwired  main.py" in shop.wire("wire", jobs_page=False).stderr
    assert "jobs_page" not in (shop / "main.py").read_text()
    assert "ARQ_PAGE_PASSWORD=" in (shop / ".env").read_text()
