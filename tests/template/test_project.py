"""The project itself, with what is rendered: settings, app, worker, command."""

import json
import re
import shutil
import tomllib
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from support import ARQ, TEMPLATE, Shop, environment, free_port, wait_for
from test_connection import BAD_URLS

pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).with_name("in_project")


def errors_of(shop: Shop, environments: list[dict[str, str]]) -> list[str]:
    """What the project's settings say of each of these environments."""
    output = shop.run(
        *("python", str(SCRIPTS / "settings_errors.py")),
        env=shop.settings(""),
        input="".join(f"{json.dumps(env)}\n" for env in environments),
        stdin=None,
    )
    return [json.loads(line) for line in output.splitlines()]


def test_settings_that_cannot_be_are_said_at_start_up_without_the_password(
    shop_with_queue: Shop,
) -> None:
    for url, error in zip(
        BAD_URLS,
        errors_of(shop_with_queue, [{"ARQ_REDIS_URL": url} for url in BAD_URLS]),
        strict=True,
    ):
        error = error[error.index("ValidationError") :]
        assert "ARQ_REDIS_URL must be redis://" in error, url
        assert "sec" not in error.replace("SecretStr", "")
        assert "ret@h" not in error
    names = ["ARQ_JOB_TIMEOUT", "ARQ_MAX_JOBS"]
    for name, error in zip(
        names, errors_of(shop_with_queue, [{name: "0"} for name in names]), strict=True
    ):
        assert name.lower() in error and "greater than or equal to 1" in error
    urls = dict.fromkeys(["ARQ_REDIS_URL"], "cluster://n1:6379,n2:6379")
    [untagged, tagged] = errors_of(
        shop_with_queue, [urls, urls | {"ARQ_QUEUE_NAME": "arq:queue:{shop}"}]
    )
    assert "ARQ_QUEUE_NAME needs a hash tag" in untagged and tagged == ""
    [short, fine] = errors_of(
        shop_with_queue,
        [{"ARQ_PAGE_PASSWORD": "short secret"}, {"ARQ_PAGE_PASSWORD": "x" * 16}],
    )
    assert "ARQ_PAGE_PASSWORD must have 16 characters or more" in short
    assert "short secret" not in short and fine == ""


@pytest.mark.parametrize("name", ["development", "production"])
def test_the_app_has_the_page_and_says_when_there_is_no_queue(
    shop_with_queue: Shop, redis_url: str, name: str
) -> None:
    more = {"ENVIRONMENT": name, "SECRET_KEY": "k" * 40, "ARQ_PAGE_PASSWORD": ""}
    env = {**shop_with_queue.settings(redis_url), **more}
    shop_with_queue.run("python", str(SCRIPTS / "app.py"), env=env)


def test_the_worker_uses_the_projects_database_and_log(
    own_shop_with_queue: Shop, redis_url: str
) -> None:
    shop = own_shop_with_queue
    shutil.copy(SCRIPTS / "tasks.py", shop / "core/tasks.py")
    shop.python(
        "result = (await enqueue('count', start=0, _job_id='count')).job_id", redis_url
    )
    env = {**shop.settings(redis_url), "LOG_FORMAT": "json"}
    log = shop.run("arq", "core.tasks.WorkerSettings", "--burst", env=env)
    [line] = [json.loads(line) for line in log.splitlines() if '"counted"' in line]
    assert (line["job_id"], line["job_try"], line["found"]) == ("count", 1, 42)
    command = ("python", "-m", "core.arq")

    def ask(*arguments: str) -> str:
        return shop.run(*command, *arguments, env=shop.settings(redis_url))

    assert json.loads(ask("show", "count", "--json"))["result"] == 42
    assert "0 queued, 0 deferred, 0 in progress, 1 failed" in ask("stats")
    [said] = json.loads(ask("show", "fails", "--json"))["log"].splitlines()
    assert json.loads(said)["hint"] == "the log says why" and said in log
    assert ask("retry", "--all") == "retried 1 job\n"
    assert ask("--help").startswith("Usage: python -m core.arq [OPTIONS] COMMAND")


def test_metrics(shop: Shop, paxx: Path, redis_url: str) -> None:
    shop.paxx(paxx, "infra", "add", "metrics")
    shop.copy()
    port = free_port()

    def metrics() -> str:
        text = ""
        with (
            suppress(URLError),  # it has just started
            urlopen(f"http://127.0.0.1:{port}/metrics") as response,
        ):
            text = response.read().decode()
        return text

    code = "result = (await enqueue('process_webhook', payload={})).job_id"
    shop.python(code, redis_url)
    with shop.worker(redis_url, ARQ_METRICS_PORT=str(port)) as worker:
        labels = 'outcome="complete",queue="arq:queue:shop",task="process_webhook"'
        line = f"arq_jobs_total{{{labels}}} 1.0"
        wait_for(lambda: line in metrics(), 10, worker.path)


def test_the_snippets_of_beside_pass_the_projects_own_checks_and_run(
    own_shop_with_queue: Shop,
) -> None:
    text = (TEMPLATE / "docs/beside.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 3
    shop = own_shop_with_queue
    for number, snippet in enumerate(snippets):
        (shop / f"snippet_{number}.py").write_text(snippet)
    names = [f"snippet_{number}.py" for number in range(3)]
    assert "All checks passed!" in shop.run("ruff", "check", *names)
    shop.run("ruff", "format", "--check", *names)
    project = tomllib.loads((shop / "pyproject.toml").read_text())["project"]
    shop.env = environment(
        "beside-docs",
        [
            *project["dependencies"],
            *(ARQ, "aiosqlite", "sentry-sdk>=2.75,<3", "fakeredis[lua]>=2.40"),
            *("jinja2", "pytest", "worq-dashboard==0.5.2"),
        ],
        seed=True,
    )
    shop.script(
        """
        import asyncio

        import snippet_0
        import snippet_1
        import snippet_2

        asyncio.run(snippet_2.test_welcome_email())
        """,
        "redis://localhost:1",
    )
