"""What the tests' own way to run Copier leaves out makes no difference."""

import re
from pathlib import Path

import pytest
from support import Shop, copier, edit, release, run

pytestmark = pytest.mark.slow


def outcome(shop: Shop, *arguments: str | Path, in_process: bool) -> tuple[str, ...]:
    """What Copier has said, line by line, and what it has made of the project."""
    words = (*arguments[:1], "--trust", "--defaults", *arguments[1:])
    if in_process:
        done = copier(*words, cwd=shop.root)
    else:
        done = run(["copier", *words], cwd=shop.root)
    made = shop.git("status", "--porcelain", "-uall") + shop.git("diff")
    shop.git("add", "-A")
    said = re.sub(r"/\S*copier\._vcs\.clone\.\w+", "CLONE", done.stderr)
    lines = sorted(said.splitlines())  # a directory's files come in any order
    return done.stdout, *lines, made, shop.git("ls-files", "-s")


def test_the_same_as_by_the_command(shop: Shop, tmp_path: Path) -> None:
    """Also the second time, with all that is kept of the first."""
    template = tmp_path / "template"
    run(["cp", "-r", shop.template, template])
    ways = {"first": True, "second": True, "command": False}
    shops = {way: shop.copy_to(tmp_path / way / "shop") for way in ways}

    def outcomes(*arguments: str | Path) -> set[tuple[str, ...]]:
        return {outcome(shops[way], *arguments, in_process=ways[way]) for way in ways}

    assert len(outcomes("copy", template, ".")) == 1
    for each in shops.values():
        edit(each / "core/arq.py", '"""', '"""Mine: ')
        each.commit()
    edit(template / "template/{{ package }}/arq.py.jinja", '"""', '"""Theirs: ')
    release(template, "v2.0.0")
    [outcome_] = outcomes("update")
    said = "".join(outcome_)
    assert "Conflicts" in said and "CLONE" in said
