"""Projects that are arranged in a way of their own: nothing of them breaks."""

import dataclasses
import json
import os
from pathlib import Path

import pytest
import seams
import wire
from commands import FACTS
from copying import facts
from paxx import Project, _compose_services
from seams import pyproject, settings
from seams.pyproject import DEPENDENCY
from support import Shop, copier, run

pytestmark = pytest.mark.slow

# --- Compose --------------------------------------------------------------------------

NO_APP = {
    "a database only": "db: {image: postgres}",
    "a database that is built": "db: {build: ./db}",
    "parts that are built": "db: {build: {context: docker/db}}\n  web: {build: front}",
    "nothing": "{}",
}
APP = {
    "app": "app: {image: shop}\n  db: {build: ./db}",
    "web": "db: {build: ./db}\n  web: {build: {context: ./, dockerfile: x}}",
    "api": "api: {build: {dockerfile: api.Dockerfile}}",
    "site": "site: {build: .}\n  other: {build: sub/..}",
}


@pytest.mark.parametrize("services", NO_APP)
def test_no_service_is_built_from_the_project(tmp_path: Path, services: str) -> None:
    text = f"services:\n  {NO_APP[services]}\n"
    (tmp_path / "compose.yml").write_text(text)
    project = Project(tmp_path)
    assert project.app_service not in project.services
    assert "has no service that is built from this project" in project.compose_doubts


@pytest.mark.parametrize("name", APP)
def test_the_service_that_is_built_from_the_project(tmp_path: Path, name: str) -> None:
    (tmp_path / "compose.yml").write_text(f"services:\n  {APP[name]}\n")
    project = Project(tmp_path)
    assert project.app_service == name and name in project.services


def test_a_compose_file_without_the_app_gets_no_worker(shop: Shop) -> None:
    (shop / "docker-compose.yml").write_text("services:\n  db: {build: ./db}\n")
    shop.commit()
    output = " ".join(shop.copy().split())
    assert not (shop / "docker-compose.override.yml").exists()
    assert "no service that is built from this project, so no worker is in it" in output
    shop.update("-d", "include_compose_worker=yes", "-d", "app_service=db")
    text = (shop / "docker-compose.override.yml").read_text()
    assert {*_compose_services(text)} == {"db", "worker", "redis"}


@pytest.mark.parametrize(
    "text",
    [
        "services: {app: {image: &a [x], build: *a}}",
        "a: &a [1]\nb: &b [*a, *a]\nservices: {x: {image: *b}}",
        "[" * 5000,
        "services: [1]",
        "services: {app: null, 1: {build: .}, '$(id)': {build: .}}",
        "\0",
        "services:\n  app: {build: [1]}",
    ],
)
def test_compose_files_that_nobody_expects(tmp_path: Path, text: str) -> None:
    (tmp_path / "compose.yml").write_text(text)
    project = Project(tmp_path)
    assert project.app_service in ("app", "1")
    assert project.redis_service == "" and project.worker_service == "worker"


# --- Settings --------------------------------------------------------------------------


def test_what_needs_the_settings_is_left_alone_where_they_are(
    shop: Shop,
) -> None:
    shop.edit(
        "settings.py", "class Settings(BaseSettings):", "class Settings(TypedDict):"
    )
    before = {name: (shop / name).read_text() for name in ("main.py", ".env.example")}
    output = shop.wire("write").stderr
    assert "wired  pyproject.toml" in output and "main.py," not in output
    for name in (*before, ".env"):
        assert f"{name}: settings.py does not know the" in output
        assert "ARQ_" not in (shop / name).read_text() or name not in before
    assert {name: (shop / name).read_text() for name in before} == before


# --- Leaving ----------------------------------------------------------------------------


@pytest.mark.parametrize("own", ['"arq>=0.25.0"', '"arq"', "'ARQ[watch]>=0.28'"])
def test_an_arq_that_was_there_before_stays(own: str, tmp_path: Path) -> None:
    options = seams.Options(tmp_path, "core")
    text = f'[project]\ndependencies = [\n    {own},\n    "a",\n]\n'
    assert pyproject.SEAM.remove(text, options) == text
    ours = pyproject.SEAM.add(text.replace(own, '"b"'), options)
    assert DEPENDENCY in ours
    assert DEPENDENCY not in pyproject.SEAM.remove(ours, options)


MODULES = ("queue", "operator", "types", "yaml", "copier", "string", "ast", "tomllib")


def test_modules_that_are_called_like_pythons(own_shop_with_queue: Shop) -> None:
    """Nothing is imported from the project: in an update's check, and for leaving."""
    shop = own_shop_with_queue
    for name in MODULES:
        (shop / f"{name}.py").write_text("raise SystemExit('not this one')\n")
    shop.commit()
    env = {"PYTHONPATH": str(shop.root), "PYTHONSTARTUP": str(shop / "queue.py")}
    script = shop.template / "extensions/wire.py"
    for mode in ("check", "remove"):
        python = (
            Path(run(["which", "copier"]).stdout.strip()).resolve().parent / "python"
        )
        done = run(
            [python, "-EB", script, mode],
            cwd=shop.root,
            env={**env, FACTS: json.dumps(facts(template=str(shop.template)))},
            check=False,
        )
        assert "not this one" not in done.stderr
        assert done.returncode == 0, done.stderr
    assert not (shop / "core/arq.py").exists()


# --- Preview ----------------------------------------------------------------------------


def test_a_preview_is_what_is_written_also_before_the_package_is_there(
    tmp_path: Path,
) -> None:
    source = "import os\n\nfrom core_tools import a\nfrom zebra import b\n\n\n"
    source += "class Settings(BaseSettings):\n    x: int = 1\n"
    options = seams.Options(tmp_path, "core")
    (tmp_path / "zebra.py").touch()
    preview = settings.SEAM.add(source, options)
    (tmp_path / "core").mkdir()
    assert settings.SEAM.add(source, options) == preview


@pytest.mark.skipif(
    os.geteuid() != 0, reason="files can be given to others by root only"
)
def test_secrets_are_not_shown_where_git_refuses_the_directory(shop: Shop) -> None:
    (shop / ".env").write_text("SECRET=sesame\n")
    for path in (shop.root, shop / ".git"):
        os.chown(path, 1234, 1234)
    done = run(["git", "status"], cwd=shop.root, check=False)
    assert "dubious ownership" in done.stderr
    output = copier(
        *("copy", "--trust", "--defaults", "-d", "mode=diff", shop.template, "."),
        cwd=shop.root,
    )
    assert "sesame" not in output.stdout and "+++ b/.env\n" not in output.stdout
    assert "+++ b/settings.py" in output.stdout
    assert ".env changes, too; it is not shown" in output.stderr


def test_an_env_file_that_git_has_is_shown(shop: Shop) -> None:
    shop.git("add", "-f", ".env")
    shop.commit()
    assert "+++ b/.env\n" in shop.wire("diff").stdout


def test_a_new_seam_comes_with_the_version_that_has_it(shop: Shop) -> None:
    seam = dataclasses.replace(settings.SEAM, since="1.10.0")
    for since, is_new in (("1.9.3", True), ("v1.10.0", False), ("2", False)):
        assert wire._is_newer(seam, since) is is_new
    assert not wire._is_newer(settings.SEAM, "1.0.0")
