"""Whatever the files hold: every byte outside the seam stays, and the rest still parses."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
import seams
import wire
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from seams import UnknownShapeError
from seams.pyproject import DEPENDENCY

BOM = b"\xef\xbb\xbf"
names = st.sampled_from(["alpha", "beta", "Gamma", "ünï", "x1", "_y"])
comments = st.sampled_from(["", "  # why", "  #  ", " # ARQ_REDIS_URL close_pool()"])
newlines = st.sampled_from(["\n", "\r\n"])
indents = st.sampled_from(["    ", "\t", "  "])
imports = st.lists(
    st.sampled_from(
        [
            "import os",
            "import os, sys  # both",
            "from typing import Any",
            "from pydantic_settings import (\n    BaseSettings,\n    SettingsConfigDict,\n)",
            "import pydantic_settings as ps",
            "from core.logging import get_logger",
            "from core.a import x; from core.b import y",
            "from settings import settings",
            "from services.cache import *",
            "from .local import z",
            "from zebra import \\\n    stripes",
            "# a comment on its own",
            "",
        ]
    ),
    min_size=1,
    max_size=6,
)
heads = st.sampled_from(
    ["", '"""Doc."""\n\n', "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n", "\n\n"]
)
tails = st.sampled_from(
    [
        "",
        "\n",
        "\n\nsettings = get()\n",
        "\n\ndef f[T](x: T) -> T:\n    return x\n",
        "\n\nif True:\n    import late\n",
        "\n\ntype Alias = int\n# end",
    ]
)
bases = st.sampled_from(
    [
        "(BaseSettings)",
        "( ps.BaseSettings )",
        "(A, B[int], BaseSettings)",
        "(\n    A,\n    BaseSettings,\n)",
        "(A,  # first\n  B)",
        "(BaseSettings, frozen=True)",
        "(make_base(1, (2, 3)))",
        "(ArqSettings, BaseSettings)",
        "",
        "()",
    ]
)


@st.composite
def settings_files(draw: st.DrawFn) -> bytes:
    indent = draw(indents)
    fields = draw(st.lists(st.tuples(names, comments), min_size=1, max_size=4))
    body = "".join(f"{indent}{name}: int = 1{comment}\n" for name, comment in fields)
    text = draw(heads) + "\n".join(draw(imports)) + "\n\n\n"
    text += f"class Settings{draw(bases)}:{draw(comments)}\n{body}{draw(tails)}"
    if draw(st.booleans()):
        text = text.rstrip("\n")
    return (
        draw(st.sampled_from(["", "\ufeff"])).encode()
        + text.replace("\n", draw(newlines)).encode()
    )


@st.composite
def main_files(draw: st.DrawFn) -> bytes:
    indent = draw(indents)
    lines = st.sampled_from(
        ["start()", "await close_db()", "yield", "x = 1; y = 2", "# note", ""]
    )
    block = draw(st.lists(lines, min_size=1, max_size=5))
    wrap = draw(st.sampled_from(["", "try", "with", "if"]))
    body = "".join(f"{indent}{line}\n" for line in block)
    if wrap:
        opening = {"try": "try:", "with": "async with x():", "if": "if x:"}[wrap]
        inner = "".join(f"{indent}{line}" for line in body.splitlines(keepends=True))
        body = f"{indent}{opening}\n{inner}{indent}{indent}pass\n"
        if wrap == "try":
            body += f"{indent}finally:\n{indent * 2}{draw(lines) or 'pass'}\n{indent * 2}pass\n"
    body += f"{indent}{draw(st.sampled_from(['yield', 'await close_db()', 'pass']))}"
    body += draw(comments)
    text = draw(heads) + "\n".join(draw(imports)) + "\n\n\n@asynccontextmanager\n"
    text += f"async def lifespan(app):\n{body}\n\n\napp = FastAPI(lifespan=lifespan)"
    text += draw(tails)
    return text.replace("\n", draw(newlines)).encode()


@st.composite
def pyprojects(draw: st.DrawFn) -> bytes:
    item = st.sampled_from(['"a>=1"', "'b[x]'", '"redis>=5.0"', '"arq-tools"', '"arq"'])
    items = draw(st.lists(item, max_size=4))
    style = draw(st.sampled_from(["one line", "lines", "commented"]))
    if style == "one line":
        array = "[" + ", ".join(items) + "]"
    else:
        end = ",  # why\n" if style == "commented" else ",\n"
        array = "[\n" + "".join(f"    {text}{end}" for text in items) + "]"
    before = draw(st.sampled_from(["", "# top\n", "[build-system]\nrequires = []\n\n"]))
    after = draw(
        st.sampled_from(["", "\n[tool.x]\na = 1 # b\n", "[dependency-groups]\n"])
    )
    text = f'{before}[project]\nname  =  "x"\ndependencies = {array}\n{after}'
    return text.replace("\n", draw(newlines)).encode()


lines = st.text(
    st.characters(
        codec="utf-8", exclude_characters="\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
    ),
    max_size=30,
)
env_files = st.builds(
    lambda rows, newline, end: (newline.join(rows) + (newline if end else "")).encode(),
    st.lists(st.one_of(lines, st.just("ARQ_REDIS_URL=redis://h/3")), max_size=5),
    newlines,
    st.booleans(),
)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> seams.Options:
    root = tmp_path_factory.mktemp("project")
    for name in ("core", "services", "db"):
        (root / name).mkdir()
    (root / "settings.py").touch()
    return seams.Options(root, "core")


def wired(name: str, source: bytes, options: seams.Options) -> bytes:
    """The file with its seam; it stays the same when it is wired once more."""
    seam = next(seam for seam in wire.SEAMS if name in seam.files)
    try:
        result = wire.edited(source, seam, options, mode="write")
    except UnknownShapeError:
        path = Path(options.root, "declined")
        path.write_bytes(source)
        one = dataclasses.replace(seam, files=("declined",), needs_settings=False)
        message = wire.wire(one, options, mode="write")
        assert message.startswith("declined: ")
        assert path.read_bytes() == source
        assume(False)
    assert wire.edited(result, seam, options, mode="write") == result
    if result != source:
        assert wire.edited(result, seam, options, mode="remove") == source
    return result


def parse(source: bytes) -> None:
    """Raises an error if it is not Python."""
    import libcst  # takes a third of a second: only where it is needed

    libcst.parse_module(source)


def added(before: bytes, after: bytes) -> list[bytes]:
    """The lines that were added; asserts that every old one is there, in order."""
    old, result = before.split(b"\n"), []
    for line in after.split(b"\n"):
        if old and line == old[0]:
            old.pop(0)
        else:
            result.append(line.rstrip(b"\r"))
    assert old == [] or old == [b""]
    return result


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(source=settings_files())
def test_settings(source: bytes, options: seams.Options) -> None:
    result = wired("settings.py", source, options)
    assert result.startswith(BOM) == source.startswith(BOM)
    source, result = source.removeprefix(BOM), result.removeprefix(BOM)
    parse(result)
    plain = result
    if b"ArqSettings, BaseSettings" not in source:
        plain = re.sub(
            rb"(class Settings\(\s*)ArqSettings,\s*", rb"\1", result, count=1
        )
        source = re.sub(rb"(class Settings\()\s+", rb"\1", source)
        plain = re.sub(rb"(class Settings\()\s+", rb"\1", plain)
    assert [line for line in added(source, plain) if line] in (
        [b"from core.arq_settings import ArqSettings"],
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(source=main_files())
def test_main(source: bytes, options: seams.Options) -> None:
    result = wired("main.py", source, options)
    parse(result)
    if result != source:
        lines = [line.strip() for line in added(source, result) if line]
        assert sorted(lines) == [
            b"await close_pool()",
            b"from core.arq import close_pool",
        ]


@settings(deadline=None, max_examples=100)
@given(source=pyprojects())
def test_pyproject(source: bytes, options: seams.Options) -> None:
    result = wired("pyproject.toml", source, options)
    before, after = tomllib.loads(source.decode()), tomllib.loads(result.decode())
    if result != source:
        assert after["project"]["dependencies"].pop() == DEPENDENCY
    assert after == before
    new = f'"{DEPENDENCY}"'.encode()
    blank = re.compile(rb"[\s,]")
    assert blank.sub(b"", result.replace(new, b"")) == blank.sub(b"", source)


@settings(deadline=None, max_examples=100)
@given(source=env_files)
def test_env(source: bytes, options: seams.Options) -> None:
    result = wired(".env", source, options)
    assert result.startswith(source)
    assert result == source or result.count(b"ARQ_REDIS_URL") >= 1
