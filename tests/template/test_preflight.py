"""Bad input gets one clear line, before anything is written."""

import os
from pathlib import Path

import pytest
from support import Shop, copier, run


def refuse(root: Path, template: Path, *arguments: str, **options: object) -> str:
    """What a refused copy prints; the directory is unchanged."""
    before = times(root)
    done = copier(
        *("copy", "--trust", "--defaults", *arguments, template, "."),
        cwd=root,
        check=False,
        **options,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert times(root) == before
    return done.stderr


def times(root: Path) -> dict[Path, int]:
    """When each file was changed; those of git aside."""
    paths = (path for path in root.rglob("*") if ".git" not in path.parts)
    return {path: path.stat().st_mtime_ns for path in paths}


def test_an_empty_directory(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    error = refuse(tmp_path_factory.mktemp("empty"), template)
    assert "is not a Paxx project, it has no main.py, no pyproject.toml" in error
    assert "run copier in the directory that `paxx bootstrap` made." in error


def test_settings_without_a_settings_class(shop: Shop) -> None:
    text = (shop / "settings.py").read_text()
    (shop / "settings.py").write_text(text.replace("Settings(Base", "Config(Base"))
    message = " ".join(shop.wire("write").stderr.split())
    assert "settings.py: it has no single `class Settings(...)` with a base" in message
    assert "Add by hand: from core.arq_settings import ArqSettings" in message


def test_the_answers_file_of_another_template(shop: Shop) -> None:
    (shop / ".copier-answers.yml").write_text("_src_path: gh:other/one\nname: x\n")
    assert "add `-a .copier-answers.arq.yml`" in refuse(shop.root, shop.template)


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        ("redis_db=16", "Type a number from 0 to 15"),
        ("redis_db=-1", "Type a number from 0 to 15"),
        ("max_jobs=0", "Type a number of 1 or more"),
        ("job_timeout=0", "Type a number of seconds, 1 or more"),
        ("max_jobs=many", "Type a number of 1 or more"),
        ("package=lib", "Type core or services"),
        ("include_cron_examples=perhaps", "Type y or n"),
        ("worker_classes=WorkerSettings,Other", "it is read from tasks.py"),
        ("compose_file=", "it cannot be empty, there is docker-compose.yml"),
    ],
)
def test_an_invalid_answer(shop: Shop, answer: str, advice: str) -> None:
    error = refuse(shop.root, shop.template, "-d", answer)
    assert advice in error
    assert answer.partition("=")[0] in error
    assert "Note: " not in error


def test_a_compose_worker_without_a_compose_file(shop: Shop) -> None:
    (shop / "docker-compose.yml").unlink()
    assert "there is no Compose file" in refuse(
        shop.root, shop.template, "-d", "include_compose_worker=true"
    )


def test_an_outbox_without_a_database(shop: Shop) -> None:
    (shop / "db/database.py").unlink()
    assert "there is no db/database.py" in refuse(
        shop.root, shop.template, "-d", "include_outbox=true"
    )


def test_a_file_of_the_users_own(shop: Shop) -> None:
    (shop / "core/arq_worker.py").write_text("# mine\n")
    shop.commit()
    error = refuse(shop.root, shop.template, "--overwrite")
    assert "core/arq_worker.py: not of this template" in error


@pytest.mark.slow
def test_a_copy_over_what_is_not_committed(own_shop_with_queue: Shop) -> None:
    shop = own_shop_with_queue
    path = shop / "core/arq.py"
    path.write_text(path.read_text() + "# mine\n")
    error = refuse(shop.root, shop.template, "--overwrite")
    assert "core/arq.py: git has no copy" in error
    shop.commit()
    shop.copy("--overwrite", commit=False)
    assert "# mine" not in path.read_text()


@pytest.mark.slow
def test_outside_git_it_only_warns(shop: Shop) -> None:
    run(["rm", "-rf", ".git"], cwd=shop.root)
    env = {"GIT_CEILING_DIRECTORIES": os.fspath(shop.root.parent)}
    output = copier(
        *("copy", "--trust", "--defaults", shop.template, "."),
        cwd=shop.root,
        env=env,
    ).stderr
    assert "not in git" in output
    assert (shop / "core/arq.py").exists()


def test_changes_that_are_not_committed_are_noted_before_the_first_question(
    shop: Shop,
) -> None:
    note = "there are changes that are not committed"
    (shop / "notes.txt").write_text("mine\n")
    assert note in shop.copy()
