"""Every kind of edit comes through an update, whatever the user's git is set to.

The template of these tests has a file for each kind: v1.0.0 has thirty lines in it, and
v2.0.0 changes the 20th.
"""

import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Shop, copier, edit, git, release

pytestmark = pytest.mark.slow

OLD = "".join(f"line_{number} = {number}\n" for number in range(1, 31))
NEW = OLD.replace("line_20 = 20", "line_20 = 'new'")
COMPOSE = "docker-compose.override.yml"


def end_of_file(text: str) -> str:
    return text + "mine = 1\n"


#: What the user makes of the old text, and, as it is the same edit, of the new one.
EDITS: dict[str, Callable[[str], str]] = {
    "changed": lambda text: text.replace("line_5 = 5", "line_5 = 'mine'"),
    "inserted": lambda text: text.replace("line_8", "mine = 1\nline_8"),
    "deleted": lambda text: text.replace("line_3 = 3\nline_4 = 4\n", ""),
    "moved": lambda text: text.replace("line_2 = 2\n", "") + "line_2 = 2\n",
    "at_the_start": lambda text: "# mine\n" + text,
    "at_the_end": end_of_file,
    "close_by": lambda text: text.replace("line_17 = 17", "line_17 = 'mine'"),
    "trailing_blank": lambda text: text.replace("line_5 = 5", "line_5 = 'mine' \t"),
    "blank_lines": lambda text: text.replace("line_6", "\n\n   \nline_6"),
    "tabs": lambda text: text.replace("line_7", "if 1:\n\tmine = 1\n    \t\nline_7"),
    "no_newline": lambda text: text.rstrip("\n"),
    "not_ascii": lambda text: text.replace("line_5 = 5", "line_5 = 'mïné \u2028'"),
    "everywhere": lambda text: re.sub(
        r"line_(\d|1[0-5]|[23][4-9]) ", r"mine_\1 ", text
    ),
    "long": lambda text: text + "mine = '" + "x" * 100_000 + "'\n",
    "twice": lambda text: text.replace("line_9", "mine = 1\nline_9") + "mine = 2\n",
}
CLASH = OLD.replace("line_20 = 20", "line_20 = 'mine'")


@pytest.fixture(scope="module")
def versions(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template with those files, at v1.0.0 and v2.0.0."""
    root = Path(shutil.copytree(template, tmp_path_factory.mktemp("edits") / "t"))
    folder = root / "template/{{ package }}"
    git(root, "tag", "-d", "v1.0.0")
    for name in (*EDITS, "clash", "mode", "plain", "deleted_by_me", "renamed", "link"):
        (folder / f"{name}.py").write_text(OLD)
    (folder / "dropped.py").write_text(OLD)
    release(root, "v1.0.0")
    for path in folder.glob("*.py"):
        edit(path, "line_20 = 20", "line_20 = 'new'")
    (folder / "dropped.py").unlink()
    edit(next((root / "template").glob("*worker_file*")), "45s", "50s")
    release(root, "v2.0.0")
    return root


@pytest.fixture(scope="module")
def edited(
    bootstrapped_shop: Shop, versions: Path, tmp_path_factory: pytest.TempPathFactory
) -> Shop:
    """A project of v1.0.0 with all the edits, committed."""
    shop = bootstrapped_shop.copy_to(tmp_path_factory.mktemp("edited") / "shop")
    shop.template = versions
    shop.copy("--vcs-ref", "v1.0.0")
    for name, change in EDITS.items():
        write(shop, name, change(OLD))
    write(shop, "clash", CLASH)
    write(shop, "dropped", end_of_file(OLD))
    shop.edit(COMPOSE, "interval: 5s", "interval: 7s")
    (shop / "core/mode.py").chmod(0o755)
    (shop / "core/deleted_by_me.py").unlink()
    (shop / "core/renamed.py").rename(shop / "core/other_name.py")
    (shop / "core/link.py").unlink()
    (shop / "core/link.py").symlink_to("tasks.py")
    write(shop, "tasks", "# all mine\n")
    shop.commit()
    return shop


def write(shop: Shop, name: str, text: str) -> None:
    (shop / f"core/{name}.py").write_bytes(text.encode())


def read(shop: Shop, name: str) -> str:
    content = (shop / f"core/{name}.py").read_bytes()
    return content.replace(b"\r\n", b"\n").decode()


def assert_nothing_is_lost(shop: Shop, output: str) -> None:
    """All edits are there, with what is new; a conflict is where both changed a line."""
    for name, change in EDITS.items():
        assert read(shop, name) == change(NEW), name
    assert read(shop, "plain") == read(shop, "mode") == NEW
    assert (shop / "core/mode.py").stat().st_mode & stat.S_IXUSR
    clash = read(shop, "clash")
    assert "'mine'" in clash and "'new'" in clash and clash.count("<<<<<<<") == 1
    assert clash.count("line_19") == 1  # the rest is not in the conflict
    compose = (shop / COMPOSE).read_text()
    assert "interval: 7s" in compose and "50s" in compose
    assert read(shop, "tasks") == "# all mine\n"
    assert not [*shop.root.rglob("*.rej")]
    assert "is not clean" not in output
    assert not (shop / "core/dropped.py").exists()
    assert "core/dropped.py is gone, and with it what you had changed" in output
    for name in ("deleted_by_me", "renamed"):
        assert not (shop / f"core/{name}.py").exists()
        assert f"core/{name}.py is deleted or renamed, and got" in output
    assert (shop / "core/link.py").is_symlink()
    assert "core/link.py is a link of yours, and got nothing" in output
    assert read(shop, "other_name") == OLD


#: What each would do to an update is kept from it, so that one hides no other.
SETTINGS = {
    "none": "",
    "an error, and excluded": (
        "[status]\nshowUntrackedFiles = no\n[apply]\nwhitespace = error\n"
        "[core]\nexcludesFile = HERE/excludes\nbigFileThreshold = 1"
    ),
    "an error everywhere, and no diff": (
        "[status]\nshowUntrackedFiles = all\n[apply]\nwhitespace = error-all\n"
        "[core]\nattributesFile = HERE/no-diff\nhooksPath = HERE/git/hooks"
    ),
    "fixed, binary, and a template for repositories": (
        "[apply]\nwhitespace = fix\nignoreWhitespace = change\n"
        "[core]\nattributesFile = HERE/binary"
    ),
    "CRLF": "[core]\nautocrlf = true\nsafecrlf = true",
    "CRLF by another name": "[core]\neol = crlf\nattributesFile = HERE/text",
    "how diffs look": (
        "[diff]\nnoprefix = true\nmnemonicPrefix = true\nsuppressBlankEmpty = true\n"
        "context = 0\nalgorithm = histogram\nexternal = false\n"
        "[color]\nui = always\n[merge]\nconflictStyle = zdiff3\n"
        "[core]\nquotePath = true\nwhitespace = tab-in-indent,cr-at-eol\n"
        "[commit]\ngpgSign = true\nverbose = true\n[status]\nbranch = true"
    ),
    "of the repository": (
        "[status]\nshowUntrackedFiles = no\n[apply]\nwhitespace = error-all"
    ),
}
FILES = {
    "excludes": f"{COMPOSE}\ncore/*.py\n*.rej\n",
    "no-diff": "*.py -diff\n*.yml -diff\n",
    "binary": "*.py binary\n*.yml binary\n",
    "text": "* text\n",
    "git/info/exclude": f"{COMPOSE}\nchanged.py\nclash.py\n",
    "git/info/attributes": "*.py -diff\n",
    "git/hooks/pre-commit": "#!/bin/sh\nsed -i 's/line_5 /LINE_5 /' $(git ls-files '*.py')\n",
}


def git_of_a_user(directory: Path, settings: str) -> dict[str, str]:
    """The environment of a user with these settings of git."""
    for name, text in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    (directory / "git/hooks/pre-commit").chmod(0o755)
    config = directory / "gitconfig"
    config.write_text(settings.replace("HERE", str(directory)) + "\n")
    return {"GIT_CONFIG_GLOBAL": str(config), "GIT_CONFIG_COUNT": "0"}


def update(shop: Shop, env: dict[str, str], *arguments: str, code: int = 0) -> str:
    """What Copier prints."""
    done = copier(
        *("update", "--trust", "--defaults", *arguments),
        cwd=shop.root,
        env=env,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("settings", SETTINGS)
def test_all_edits_with_all_settings(
    edited: Shop, tmp_path: Path, settings: str
) -> None:
    shop = edited.copy_to(tmp_path / "shop")
    env = git_of_a_user(tmp_path, SETTINGS[settings])
    if "repositories" in settings:
        env["GIT_TEMPLATE_DIR"] = str(tmp_path / "git")
    if "CRLF" in settings:
        check_out_again(shop, env)
        assert b"\r\n" in (shop / "core/changed.py").read_bytes()
    if settings == "of the repository":
        with (shop / ".git/config").open("a") as file:
            file.write(Path(env["GIT_CONFIG_GLOBAL"]).read_text())
        env["GIT_CONFIG_GLOBAL"] = os.devnull
    assert_nothing_is_lost(shop, update(shop, env))


def check_out_again(shop: Shop, env: dict[str, str]) -> None:
    """As a new clone has the files."""
    for name in shop.git("ls-files").splitlines():
        (shop / name).unlink()
    git(
        shop.root,
        "-c",
        f"include.path={env['GIT_CONFIG_GLOBAL']}",
        "checkout",
        "-f",
        ".",
    )


def test_what_is_lost_nevertheless_is_named(
    edited: Shop, versions: Path, tmp_path: Path
) -> None:
    """Where git is as the user has set it: here, the versions leave that so."""
    shop = edited.copy_to(tmp_path / "shop")
    root = Path(shutil.copytree(versions, tmp_path / "template"))
    for old, new in (("v1.0.0", "v1.1.0"), ("v2.0.0", "v2.1.0")):
        git(root, "checkout", "-q", old)
        edit(
            root / "extensions/repository.py", "    if env.get(", "    if not env.get("
        )
        release(root, new)
    shop.edit(".copier-answers.yml", str(versions), str(root))
    shop.edit(".copier-answers.yml", "v1.0.0", "v1.1.0")
    shop.commit()
    env = git_of_a_user(tmp_path, "[core]\nexcludesFile = HERE/excludes")
    output = update(shop, env, code=1)
    for name in ("deleted_by_me", "renamed"):
        assert f"The update is not clean: core/{name}.py is back, which" in output
    shop.git("checkout", "-f", ".")
    shop.git("clean", "-fdq")
    env = git_of_a_user(tmp_path, "[core]\nattributesFile = HERE/no-diff")
    output = update(shop, env, code=1)
    said = " ".join(output.split())
    for name in ("changed", "at_the_end", "clash"):
        assert f"not clean: core/{name}.py has lost changes of yours" in said
        assert f"git show HEAD:./core/{name}.py" in said
    assert "core/plain.py" not in output


# --- What git has no copy of ----------------------------------------------------------


@pytest.mark.parametrize("flag", ["--skip-worktree", "--assume-unchanged"])
def test_a_file_that_git_was_told_not_to_look_at(
    edited: Shop, tmp_path: Path, flag: str
) -> None:
    shop = edited.copy_to(tmp_path / "shop")
    shop.git("update-index", flag, COMPOSE)
    shop.edit(COMPOSE, "interval: 7s", "interval: 8s")
    mine = (shop / COMPOSE).read_text()
    template = str(shop.template)
    for arguments in (
        ["update"],
        ["update", "-d", "include_compose_worker=no"],
        ["recopy", "--overwrite"],
        ["copy", "--overwrite", template, "."],
        ["recopy", "-d", "mode=remove-all"],
    ):
        done = copier(
            *(*arguments, "--trust", "--defaults"), cwd=shop.root, check=False
        )
        assert done.returncode != 0
        assert f"{COMPOSE}" in done.stderr and "git has no copy" in done.stderr
        assert "Traceback" not in done.stderr
        assert (shop / COMPOSE).read_text() == mine
        assert shop.git("status", "--porcelain") == ""
    command = f"git update-index --no-{flag.removeprefix('--')} {COMPOSE}"
    done = copier(*("update", "--trust", "--defaults"), cwd=shop.root, check=False)
    assert command in " ".join(done.stderr.split())
    shop.git(*command.split()[1:])
    shop.commit()
    shop.update()
    assert (shop / COMPOSE).read_text() == mine.replace("45s", "50s")


def test_utf_16_is_refused(edited: Shop, tmp_path: Path) -> None:
    shop = edited.copy_to(tmp_path / "shop")
    (shop / "core/changed.py").write_bytes(OLD.encode("utf-16"))
    shop.commit()
    done = copier(*("update", "--trust", "--defaults"), cwd=shop.root, check=False)
    assert done.returncode != 0
    assert "core/changed.py: it is not UTF-8" in done.stderr
    assert shop.git("status", "--porcelain") == ""


# --- Without a network -----------------------------------------------------------------


def test_a_copy_needs_no_network_and_no_uv(shop: Shop, tmp_path: Path) -> None:
    offline = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy")}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/copier").symlink_to(shutil.which("copier") or "")
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    assert not shutil.which("uv", path=path)
    env = {**offline, "PATH": path, "HOME": str(tmp_path)}
    done = copier(
        *("copy", "--trust", "--defaults", shop.template, "."), cwd=shop.root, env=env
    )
    assert "wired  settings.py, main.py, pyproject.toml" in done.stderr
