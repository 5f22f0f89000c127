"""Every combination of answers renders code that passes the project's own checks."""

import hashlib
import itertools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from pytest_copie.plugin import Result
from support import TEMPLATE, Shop, as_github, made_once, run

PACKAGES = ["core", "services"]
BOOLEANS = ["include_cron_examples", "include_compose_worker", "structlog"]
COMBINATIONS = [
    {"package": package, **dict(zip(BOOLEANS, values, strict=True))}
    for package in PACKAGES
    for values in itertools.product([True, False], repeat=len(BOOLEANS))
] + [
    {"package": package, name: value}
    for package in PACKAGES
    for name, value in [
        ("metrics", True),
        ("include_jobs_page", False),
        ("app_exception", False),
        ("database", False),
        ("sqlalchemy", False),
        ("serializer", "pickle"),
    ]
]
PACKAGE = TEMPLATE / "template/{{ package }}"
RENDERED = sorted(path.stem for path in PACKAGE.glob("*.py.jinja"))


def problems(output: str) -> list[str]:
    """The checker's complaints without line numbers, which the seams shift."""
    lines = [line for line in output.splitlines() if re.search(r"\.py:\d+", line)]
    return sorted(re.sub(r":\d+(:\d+)?", "", line) for line in lines)


def mypy(shop: Shop, shared: Path) -> list[str]:
    """What it says, asked once of all projects with the same code."""
    paths = sorted(shop.root.rglob("*.py"))
    code = [(str(path.relative_to(shop.root)), path.read_text()) for path in paths]
    said = made_once(
        shared / f"mypy-{hashlib.sha256(repr(code).encode()).hexdigest()}",
        lambda path: path.write_text(shop.mypy(".")),
    )
    return problems(said.read_text())


def ruff(shop: Shop) -> list[str]:
    concise = ["ruff", "check", ".", "--output-format", "concise"]
    return problems(shop.run(*concise, check=False))


@pytest.fixture(scope="module")
def before(bootstrapped_shop: Shop, shared: Path) -> list[str]:
    """What the checkers say of the project without the queue."""
    return ruff(bootstrapped_shop) + mypy(bootstrapped_shop, shared)


@pytest.mark.parametrize(
    "answers",
    [
        COMBINATIONS[0],
        *(
            pytest.param(answers, marks=pytest.mark.slow)
            for answers in COMBINATIONS[1:]
        ),
    ],
    ids=lambda a: "-".join(map(str, a.values())),
)
def test_rendered_code_passes_the_projects_own_checks(
    answers: dict[str, object],
    copie: Callable[..., object],
    bootstrapped: Path,
    project_env: Path,
    template: Path,
    shared: Path,
    before: list[str],
) -> None:
    child = copie(parent_result=Result(project_dir=bootstrapped), child_tpl=template)
    result = child.copy(extra_answers=answers)
    assert result.exit_code == 0, result.exception
    assert {name: result.answers[name] for name in answers} == answers
    shop = Shop(result.project_dir, project_env, template)
    package = str(answers["package"])
    rendered = [f"{package}/{name}" for name in RENDERED]
    assert all((shop / name).is_file() for name in rendered)
    if answers.get("metrics"):
        rendered.append(f"{package}/arq_metrics.py")
    if answers.get("sqlalchemy", True):
        rendered.append(f"{package}/arq_commit.py")
    has_page = bool(answers.get("include_jobs_page", True))
    if has_page:
        rendered.append(f"{package}/arq_page.py")
    assert (shop / f"{package}/arq_static").exists() == has_page
    assert ("jobs_page" in (shop / "main.py").read_text()) == has_page
    assert ("ARQ_PAGE_PASSWORD" in (shop / ".env").read_text()) == has_page
    assert (shop / "docker-compose.override.yml").exists() == answers.get(
        "include_compose_worker", True
    )
    assert (shop / f"{package}/arq_metrics.py").exists() == answers.get(
        "metrics", False
    )
    assert (shop / f"{package}/arq_commit.py").exists() == answers.get(
        "sqlalchemy", True
    )
    known = shop.script(f"""
        from {package}.arq_settings import ArqSettings

        print("RESULT", *ArqSettings.model_fields)
    """)
    named = re.findall(r"^#? ?(ARQ_\w+)=", (shop / ".env.example").read_text(), re.M)
    fields = known.rpartition("RESULT ")[2].upper().split()
    assert sorted(named) == sorted([*fields, "ARQ_REDIS_PORT"])  # Compose's
    cron = "cron(cleanup_expired_sessions" in (shop / f"{package}/tasks.py").read_text()
    assert cron == answers.get("include_cron_examples", True)

    shop.run("ruff", "check", *rendered)
    shop.run("ruff", "format", "--check", *rendered, "main.py")
    assert ruff(shop) + mypy(shop, shared) == before
    shop.script(f"import main, {package}.tasks")


def test_files_depend_on_answers_alone() -> None:
    """What else the template finds out of a project may be another at an update."""
    for path in (TEMPLATE / "template").rglob("*.jinja"):
        text = f"{path.relative_to(TEMPLATE)}\n{path.read_text()}"
        code = re.findall(r"\{[{%].*?[}%]\}", text, re.DOTALL)
        assert not re.search(r"\bpaxx\b", " ".join(code)), path


def test_the_diff_is_small_and_reformats_nothing(shop_with_queue: Shop) -> None:
    diff = ("diff", "--numstat", "--diff-filter=M", "HEAD~")
    changed = dict(
        (name, int(added) + int(removed))
        for added, removed, name in (
            line.split() for line in shop_with_queue.git(*diff).splitlines()
        )
    )
    assert changed == {
        "settings.py": 4,
        "main.py": 4,
        "pyproject.toml": 1,
        ".env.example": 13,
    }


@pytest.mark.slow
def test_a_second_copy_changes_nothing(own_shop_with_queue: Shop) -> None:
    shop = own_shop_with_queue
    before = (shop / ".env").read_bytes()  # with a password, and not in git
    shop.copy("--overwrite", commit=False)
    assert shop.git("status", "--porcelain") == ""
    assert (shop / ".env").read_bytes() == before


def test_answers_reach_the_settings(shop: Shop) -> None:
    shop.copy(
        *("-d", "redis_db=5", "-d", "max_jobs=3", "-d", "job_timeout=7"),
    )
    (shop / ".env").unlink()
    output = shop.script("""
        from settings import settings as s

        print(s.arq_redis_url, s.arq_max_jobs + 0, s.arq_job_timeout + 0)
    """)
    assert output == "redis://localhost:6379/5 3 7\n"


@pytest.mark.slow
def test_after_infra_add_redis(shop: Shop, paxx: Path) -> None:
    shop.paxx(paxx, "infra", "add", "redis")
    output = shop.copy()
    assert "no Redis is configured" not in output
    assert (shop / "services/tasks.py").exists()
    assert "from services.arq import close_pool" in (shop / "main.py").read_text()
    compose = (shop / "docker-compose.override.yml").read_text()
    services = yaml.safe_load(compose.replace("!reset ", ""))["services"]
    assert set(services) == {"app", "worker"}
    shop.run("ruff", "check", "main.py", "services/arq.py", "services/tasks.py")


def test_without_redis_a_note_says_what_to_run(copy_output: str) -> None:
    assert "`paxx infra add redis`" in copy_output


@pytest.mark.slow
def test_the_database_of_the_cache_is_pointed_out(shop: Shop, paxx: Path) -> None:
    shop.paxx(paxx, "infra", "add", "redis")
    output = shop.copy("-d", "redis_db=0")
    assert "your cache uses Redis database 0 too: copier update --data redis_db=1" in (
        output
    )


@pytest.mark.slow
def test_an_override_file_of_the_projects_own_is_kept(shop: Shop) -> None:
    own = "services:\n  app:\n    tty: true\n"
    (shop / "docker-compose.override.yml").write_text(own)
    shop.commit()
    output = shop.copy()
    assert (shop / "docker-compose.override.yml").read_text() == own
    assert (shop / "compose.worker.yml").exists()
    assert (
        "-f docker-compose.yml -f docker-compose.override.yml -f compose.worker.yml"
        in output.replace("\\\n    ", "")
    )


@pytest.mark.slow
def test_the_message_names_the_real_package(shop: Shop) -> None:
    output = shop.copy("-d", "package=services", "-d", "include_jobs_page=no")
    assert "uv run arq services.tasks.WorkerSettings" in output
    assert "from services.arq import enqueue" in output
    assert "uv run python -m services.arq_jobs --help" in output


def test_trust_is_asked_for(shop: Shop, tmp_path: Path) -> None:
    """What is trusted then, and the commands without --trust: test_readme.py."""
    copy = ["copier", "copy", "--defaults", "gh:org/paxx-arq", "."]
    env = as_github(shop.template, tmp_path)
    untrusted = run(copy, cwd=shop.root, env=env, check=False)
    assert untrusted.returncode != 0
    message = "Template uses potentially unsafe features: jinja_extensions, tasks."
    assert message in (TEMPLATE / "README.md").read_text()
    assert message in untrusted.stderr.replace("\n", " ")
    assert shop.git("status", "--porcelain") == ""
