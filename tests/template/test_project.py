"""The project itself, with what is rendered: settings, app, worker, command."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from support import Shop, free_port, wait_for
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
    cluster = {"ARQ_REDIS_URL": "cluster://n1:6379,n2:6379"}
    numbers = ("ARQ_JOB_TIMEOUT", "ARQ_MAX_JOBS")
    errors = iter(
        errors_of(
            shop_with_queue,
            [
                *({"ARQ_REDIS_URL": url} for url in BAD_URLS),
                *({name: "0"} for name in numbers),
                *(cluster, cluster | {"ARQ_QUEUE_NAME": "arq:queue:{shop}"}),
                *({"ARQ_PAGE_PASSWORD": it} for it in ("short secret", "x" * 16)),
            ],
        )
    )
    for url, error in zip(BAD_URLS, errors, strict=False):
        error = error[error.index("ValidationError") :]
        assert "ARQ_REDIS_URL must be redis://" in error, url
        assert "sec" not in error.replace("SecretStr", "")
        assert "ret@h" not in error
    for name, error in zip(numbers, errors, strict=False):
        assert name.lower() in error and "greater than or equal to 1" in error
    untagged, tagged, short, fine = errors
    assert "ARQ_QUEUE_NAME needs a hash tag" in untagged and tagged == ""
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
    show, stats, logs, retry = commands(
        shop,
        redis_url,
        *("show count --json", "stats", "show fails --json", "retry --all"),
    )
    assert json.loads(show)["result"] == 42
    assert "0 queued, 0 deferred, 0 in progress, 1 failed" in stats
    [said] = json.loads(logs)["log"].splitlines()
    assert json.loads(said)["hint"] == "the log says why" and said in log
    assert retry == "retried 1 job\n"
    usage = shop.run("python", "-m", "core.arq", "--help", env=shop.settings(redis_url))
    assert usage.startswith("Usage: python -m core.arq [OPTIONS] COMMAND")


def commands(shop: Shop, url: str, *lines: str) -> list[str]:
    """What each of these says, one after the other in one process."""
    script = f"""
        import runpy
        import sys
        from contextlib import suppress

        for line in {lines}:
            sys.argv[1:] = line.split()
            with suppress(SystemExit):
                runpy.run_module("core.arq", run_name="__main__", alter_sys=True)
            print("END")
    """
    return shop.script(script, url).split("END\n")[:-1]


def test_metrics(paxx_shop: Callable[..., Shop], redis_url: str) -> None:
    shop = paxx_shop("infra add redis", "infra add metrics")
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
        wait_for(lambda: line in metrics(), 60, worker.path)
