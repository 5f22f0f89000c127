"""Every combination of answers renders code that passes the project's own checks."""

import ast
import hashlib
import itertools
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import plumbum
import pytest
import yaml
from copying import shortcuts
from jinja2 import Environment, meta
from jinja2_ansible_filters import AnsibleCoreFiltersExtension
from pytest_copie.plugin import Copie, Result
from support import ENV, TEMPLATE, Shop, as_github, made_once, run

QUESTIONS = yaml.safe_load((TEMPLATE / "copier.yml").read_text())
VALUES = {"package": ["core", "services"], "serializer": ["json", "pickle"]} | {
    name: [True, False]
    for name, question in QUESTIONS.items()
    if not name.startswith("_") and question["type"] == "bool"
}


def mentioned() -> Iterator[tuple[str, ...]]:
    """The answers on which each file of the template depends, its name included."""
    environment = Environment(extensions=[AnsibleCoreFiltersExtension])
    texts = [pattern for pattern in QUESTIONS["_exclude"] if "mode" not in pattern]
    for path in (TEMPLATE / "template").rglob("*"):
        if path.is_file():
            is_template = path.suffix == ".jinja"
            text = path.read_text() if is_template else ""
            texts.append(f"{path.relative_to(TEMPLATE)} {text}")
    for text in texts:
        found = meta.find_undeclared_variables(environment.parse(text))
        yield tuple(sorted(found & VALUES.keys()))


def combinations() -> list[dict[str, object]]:
    """So many answers that each file is rendered in each way in which it can be.

    What is left open by the files of one combination is as the next ones need it.
    """
    wanted: dict[tuple[tuple[str, object], ...], None] = {}
    for names in sorted({*mentioned()}, key=lambda names: (-len(names), names)):
        for values in itertools.product(*(VALUES[name] for name in names)):
            wanted[tuple(zip(names, values, strict=True))] = None
    found: list[dict[str, object]] = []
    while wanted:
        answers: dict[str, object] = {}
        for part in [*wanted]:
            with_part = answers | dict(part)
            if with_part == dict(part) | answers and not _is_refused(with_part):
                answers = with_part
                del wanted[part]
        if not answers.get("database", True):
            answers["include_outbox"] = False
        found.append({name: answers.get(name, VALUES[name][0]) for name in VALUES})
    return found


def _is_refused(answers: dict[str, object]) -> bool:
    return bool(answers.get("include_outbox")) and not answers.get("database", True)


def problems(output: str) -> list[str]:
    """The checker's complaints without line numbers, which the seams shift."""
    lines = [line for line in output.splitlines() if re.search(r"\.py:\d+", line)]
    return sorted(re.sub(r":\d+(:\d+)?", "", line) for line in lines)


def mypy(shop: Shop, shared: Path) -> list[str]:
    """What it says, asked once of all projects with the same code.

    It is the same in either package, but for the names and the order of its imports.
    """

    def alike(text: str) -> str:
        return text.replace("services", "core")

    code = sorted(
        (alike(str(path.relative_to(shop.root))), sorted(alike(text).splitlines()))
        for path in shop.root.rglob("*.py")
        if (text := path.read_text())
    )
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


COMBINATIONS = combinations()
NAMES = [
    "-".join(
        value if isinstance(value, str) else f"no_{name}"
        for name, value in answers.items()
        if value is not True
    )
    for answers in COMBINATIONS
]


@pytest.fixture
def rendered(
    copie: Callable[..., Copie],
    bootstrapped: Path,
    project_env: Path,
    template: Path,
    shared: Path,
) -> Callable[[dict[str, object]], Shop]:
    """The project with the queue as these answers have it. Not to be changed."""

    def render(answers: dict[str, object]) -> Shop:
        def copy(path: Path) -> None:
            parent = Result(project_dir=bootstrapped)
            child = copie(parent_result=parent, child_tpl=template)
            with plumbum.local.env(**ENV), shortcuts():
                result = child.copy(extra_answers=answers)
            assert result.exit_code == 0, result.exception
            # What is not asked for, as the outbox without a database, has no answer.
            found = {name: result.answers.get(name, False) for name in answers}
            assert found == answers
            assert result.project_dir
            shutil.move(result.project_dir, path)

        made = made_once(
            shared / f"rendered-{NAMES[COMBINATIONS.index(answers)]}", copy
        )
        return Shop(made, project_env, template)

    return render


@pytest.mark.slow
@pytest.mark.parametrize("answers", COMBINATIONS, ids=NAMES)
def test_rendered_code_passes_the_projects_own_checks(
    answers: dict[str, object],
    rendered: Callable[[dict[str, object]], Shop],
    shared: Path,
    before: list[str],
) -> None:
    shop, package = rendered(answers), answers["package"]

    def has(pattern: str) -> bool:
        return any((shop / f"{package}").rglob(pattern))

    has_page = answers["include_jobs_page"]
    assert has("*page*") == has_page
    assert ("jobs_page" in (shop / "main.py").read_text()) == has_page
    assert ("ARQ_PAGE_PASSWORD" in (shop / ".env").read_text()) == has_page
    compose = shop / "docker-compose.override.yml"
    assert compose.exists() == answers["include_compose_worker"]
    deploy = shop / "deploy/linux-server/deploy-worker.sh"
    assert deploy.exists() == answers["linux_server"]
    assert has("*metrics*.py") == answers["metrics"]
    assert has("*commit.py") == answers["sqlalchemy"]
    assert has("*outbox.py") == has("*relay.py") == answers["include_outbox"]
    assert (shop / "features/arq_outbox").exists() == answers["include_outbox"]
    cron = "cron(cleanup_expired_sessions" in (shop / f"{package}/tasks.py").read_text()
    assert cron == answers["include_cron_examples"]

    new = shop.git("ls-files", "--others", "--exclude-standard").splitlines()
    ours = [name for name in new if name.endswith(".py")]
    assert f"{package}/arq.py" in ours
    shop.run("ruff", "check", *ours)
    shop.run("ruff", "format", "--check", *ours, "main.py")
    assert ruff(shop) + mypy(shop, shared) == before


@pytest.mark.slow
def test_each_of_them_is_imported(
    rendered: Callable[[dict[str, object]], Shop], bootstrapped_shop: Shop
) -> None:
    """By processes that share what takes long: the libraries, and compiling.

    In one package: the code is the same in the other.
    """
    combinations = {
        tuple(it for it in answers.items() if it[0] != "package"): answers
        for answers in reversed(COMBINATIONS)  # those with core, which imports more
    }.values()
    shops = [rendered(answers) for answers in combinations]
    projects = [
        (str(shop.root), str(answers["package"]))
        for shop, answers in zip(shops, combinations, strict=True)
    ]
    output = bootstrapped_shop.script(f"""
        import functools
        import importlib
        import os
        import pathlib
        import sys

        import aiosqlite, arq.cli, fastapi, fastapi.middleware.cors, prometheus_client
        import pydantic_settings, sqlalchemy.ext.asyncio, structlog, uvloop

        code = functools.cache(lambda data: compile(data, "<rendered>", "exec"))
        loader = importlib.machinery.SourceFileLoader
        loader.source_to_code = lambda self, data, path, **_: code(data)
        sys.dont_write_bytecode = True
        os.environ.pop("PYTHONPATH")
        for project, package in {projects!r}:
            for path in pathlib.Path(project).rglob("*.py"):
                code(path.read_bytes())
            if child := os.fork():
                assert os.waitpid(child, 0)[1] == 0, project
                continue
            os.chdir(project)
            sys.path[:] = [project, *sys.path[2:]]
            importlib.import_module("main")
            importlib.import_module(f"{{package}}.tasks")
            settings = importlib.import_module(f"{{package}}.arq_settings")
            print(*settings.ArqSettings.model_fields, flush=True)
            break
    """)
    fields = [line.upper().split() for line in output.splitlines()]
    for shop, known in zip(shops, fields, strict=True):
        text = (shop / ".env.example").read_text()
        named = re.findall(r"^#? ?(ARQ_\w+)=", text, re.M)
        assert sorted(named) == sorted([*known, "ARQ_REDIS_PORT"])  # Compose's


def test_the_runtime_is_plain_and_in_short_pieces() -> None:
    runtime = TEMPLATE / "template/{{ package }}/arq_runtime"
    assert (runtime / "README.md").read_text().count("\n") <= 25
    for path in runtime.rglob("*.*"):
        if "__pycache__" in path.parts:
            continue
        text = path.read_text()
        assert "{%" not in f"{path.name}{text}" and path.suffix != ".jinja", path
        if path.suffix != ".py":
            continue
        assert text.count("\n") <= 400, path
        for it in ast.walk(ast.parse(text)):
            if isinstance(it, ast.ClassDef):
                assert it.end_lineno - it.lineno < 300, f"{path}: {it.name}"


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
        "main.py": 3,
        "pyproject.toml": 1,
        ".env.example": 17,
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
def test_after_infra_add_redis(paxx_shop: Callable[..., Shop]) -> None:
    shop = paxx_shop("infra add redis")
    output = shop.copy()
    assert "no Redis is configured" not in output
    assert (shop / "services/tasks.py").exists()
    assert "from services.arq import close_pool" in (shop / "main.py").read_text()
    compose = (shop / "docker-compose.override.yml").read_text()
    services = yaml.safe_load(compose.replace("!reset ", ""))["services"]
    assert set(services) == {"app", "worker"}
    shop.run("ruff", "check", "main.py", "services/arq.py", "services/tasks.py")


def test_compose_brings_the_redis(copy_output: str) -> None:
    assert "docker compose up -d redis" in copy_output
    assert "paxx infra add redis" not in copy_output


@pytest.mark.slow
def test_the_database_of_the_cache_is_pointed_out(
    paxx_shop: Callable[..., Shop],
) -> None:
    output = paxx_shop("infra add redis").copy("-d", "redis_db=0")
    assert "your cache uses Redis database 0 too. Another one:" in output
    assert "update --trust --defaults -d redis_db=1" in output


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
    assert "uv run python -m services.arq stats" in output


def test_trust_is_asked_for(shop: Shop, tmp_path: Path) -> None:
    """What is trusted then, and the commands without --trust: test_readme.py."""
    copy = ["copier", "copy", "--defaults", "gh:org/paxx-arq", "."]
    env = as_github(shop.template, tmp_path)
    untrusted = run(copy, cwd=shop.root, env=env, check=False)
    assert untrusted.returncode != 0
    message = "Template uses potentially unsafe features: jinja_extensions, tasks."
    assert message in (TEMPLATE / "docs/index.md").read_text()
    assert message in untrusted.stderr.replace("\n", " ")
    assert shop.git("status", "--porcelain") == ""
