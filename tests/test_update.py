"""`copier update` from one tagged version to the next, after edits of the user."""

from pathlib import Path

import pytest
from support import Shop, make_template, release


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A template of its own, at v1.0.0."""
    (tmp_path / "template").mkdir()
    return make_template(tmp_path / "template")


def change(template: Path, name: str, old: str, new: str, tag: str) -> None:
    """Release a new version with one change in a package file."""
    path = template / "template/{{ package }}" / f"{name}.jinja"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    release(template, tag)


def test_an_update_keeps_the_users_edits(shop: Shop, versions: Path) -> None:
    shop.template = versions
    shop.copy()
    tasks = "# all my own\n" + (shop / "core/tasks.py").read_text()
    (shop / "core/tasks.py").write_text(tasks)
    settings = (shop / "settings.py").read_text() + "\n# mine\n"
    (shop / "settings.py").write_text(settings)
    arq = (shop / "core/arq.py").read_text()
    (shop / "core/arq.py").write_text(
        arq.replace("loop.create_task(", "loop.create_task(  # mine")
    )
    shop.commit()
    change(versions, "arq.py", "7 * 24 *", "8 * 24 *", "v2.0.0")

    shop.update()

    assert (shop / "core/tasks.py").read_text() == tasks
    assert (shop / "settings.py").read_text() == settings
    expected = arq.replace("loop.create_task(", "loop.create_task(  # mine")
    expected = expected.replace("7 * 24 *", "8 * 24 *")
    assert (shop / "core/arq.py").read_text() == expected
    assert shop.git("diff", "--name-only").split() == [
        ".copier-answers.yml",
        "core/arq.py",
    ]


def test_a_missing_seam_is_reported_not_inserted(shop: Shop, versions: Path) -> None:
    shop.template = versions
    shop.copy()
    main = (shop / "main.py").read_text().replace("    await close_pool()\n", "")
    (shop / "main.py").write_text(main)
    shop.commit()
    release(versions, "v2.0.0")
    output = shop.update()
    assert "main.py lacks the queue's lines" in output
    assert (shop / "main.py").read_text() == main
