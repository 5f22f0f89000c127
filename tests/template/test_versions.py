"""From each older version to what is in the working tree: edits are kept or named."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from support import TEMPLATE, Shop, git, release

pytestmark = pytest.mark.slow

BEFORE = "9cdc67b"
"""The last commit in which the runtime's files lay beside the user's."""


def older() -> list[str]:
    """That, and each version that was released; none where there is no history."""
    command = ["git", "-C", str(TEMPLATE), "rev-parse", "--verify", "-q", BEFORE]
    if subprocess.run(command, capture_output=True).returncode:
        return []
    return [BEFORE, *git(TEMPLATE, "tag", "--list", "v*").split()]


def versions(template: Path, ref: str, directory: Path) -> Path:
    """A template that was so, and is as it is now."""
    archive = subprocess.run(
        ["git", "-C", str(TEMPLATE), "archive", ref], capture_output=True, check=True
    )
    directory.mkdir()
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(directory, filter="data")
    git(directory, "init", "-q", "-b", "main")
    release(directory, "v0.1.0")
    for name in ("copier.yml", "extensions", "template"):
        path = directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if (template / name).is_dir():
            shutil.copytree(template / name, path)
        else:
            shutil.copy(template / name, path)
    release(directory, "v999.0.0")
    return directory


@pytest.mark.parametrize("ref", older())
@pytest.mark.parametrize("kind", ["untouched", "edited"])
def test_an_update_from(
    shop: Shop, template: Path, tmp_path: Path, ref: str, kind: str
) -> None:
    before = {*shop.git("ls-files").split()}
    shop.template = versions(template, ref, tmp_path / "template")
    shop.copy("--vcs-ref", "v0.1.0")
    ours = [
        name
        for name in shop.git("ls-files").split()
        if name not in before and name.endswith((".py", ".js", ".css", ".yml"))
        if name not in (".copier-answers.yml", "core/tasks.py")
    ]
    mine = {".js": "// mine", ".css": "/* mine */"}
    lines = {name: mine.get(Path(name).suffix, "# mine") for name in ours}
    if kind == "edited":
        for name, line in lines.items():
            with (shop / name).open("a") as file:
                file.write(f"{line}\n")
    (shop / "core/tasks.py").write_text("# all mine\n")
    shop.commit()
    output = shop.update()
    assert "is not clean" not in output
    assert (shop / "core/tasks.py").read_text() == "# all mine\n"
    there = [name for name in ours if (shop / name).exists()]
    if kind == "untouched":
        assert shop.git("diff", "--name-only", "--diff-filter=U") == ""
        assert "is gone" not in output
        return
    for name in there:
        assert lines[name] in (shop / name).read_text().splitlines()
    for name in {*ours} - {*there}:
        assert f"{name} is gone, and with it what you had changed" in output
