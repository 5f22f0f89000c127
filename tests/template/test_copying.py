"""What the tests' own way to run Copier leaves out makes no difference."""

import re
import shutil
from pathlib import Path

import pytest
from support import Shop, copier, edit, release, run

pytestmark = pytest.mark.slow


def outcome(shop: Shop, *, in_process: bool) -> tuple[str, ...]:
    """What an update has said, line by line, and what it has made of the project."""
    words = ("update", "--trust", "--defaults")
    if in_process:
        done = copier(*words, cwd=shop.root)
    else:
        done = run(["copier", *words], cwd=shop.root)
    made = shop.git("status", "--porcelain", "-uall") + shop.git("diff")
    shop.git("add", "-A")
    said = re.sub(r"/\S*copier\._vcs\.clone\.\w+", "CLONE", done.stderr)
    lines = sorted(said.splitlines())  # a directory's files come in any order
    return done.stdout, *lines, made, shop.git("ls-files", "-s")


def test_the_same_as_by_the_command(shop_with_queue: Shop, tmp_path: Path) -> None:
    """In an update, where it leaves out most: two clones, four renderings, wiring.

    Also the second time, with all that is kept of the first.
    """
    template = Path(shutil.copytree(shop_with_queue.template, tmp_path / "template"))
    edit(template / "template/{{ package }}/arq.py.jinja", '"""', '"""Theirs: ')
    release(template, "v2.0.0")
    outcomes = []
    for way in ("first", "second", "command"):
        shop = shop_with_queue.copy_to(tmp_path / way / "shop")
        answers = str(shop.template), str(template)
        edit(shop / ".copier-answers.yml", *answers)
        edit(shop / "core/arq.py", '"""', '"""Mine: ')
        shop.commit()
        outcomes.append(outcome(shop, in_process=way != "command"))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert "Conflicts" in "".join(outcomes[0]) and "CLONE" in "".join(outcomes[0])
