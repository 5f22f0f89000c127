"""A project that ran `paxx ext add arq` comes over, and any project can leave."""

import re
from pathlib import Path

import pytest
import redis
from support import TEMPLATE, Shop, copier, run, wait_for


@pytest.fixture
def old(shop: Shop, paxx: Path) -> Shop:
    shop.paxx(paxx, "infra", "add", "redis")
    shop.paxx(paxx, "ext", "add", "arq")
    return shop


def test_what_is_there_is_not_overwritten_unasked(old: Shop) -> None:
    done = copier(
        *("copy", "--trust", "--defaults", old.template, "."),
        cwd=old.root,
        check=False,
    )
    assert done.returncode != 0
    assert "services/arq.py is there already: add --overwrite" in done.stderr
    assert "Traceback" not in done.stderr
    assert old.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_adoption(old: Shop, redis_url: str) -> None:
    tasks = (old / "services/tasks.py").read_text()
    output = old.copy("--overwrite", commit=False)

    assert "there is a task queue in services/ already" in output
    assert "class WorkerSettings(BaseWorkerSettings):" in output
    assert "copier update --data serializer=json" in output
    assert (old / "services/tasks.py").read_text() == tasks
    settings = (old / "settings.py").read_text()
    assert "arq_" not in settings.replace("services.arq_settings", "")
    assert settings.count("# Infrastructure") == 1  # that of redis_url
    assert "arq>=0.26" not in (old / "pyproject.toml").read_text()
    assert (old / ".env.example").read_text().count("ARQ_REDIS_URL") == 1
    old.commit()
    old.run("ruff", "check", "main.py", "services/arq.py", "services/arq_worker.py")

    # the old tasks.py, with the worker it always had
    code = "job = await enqueue('send_welcome_email', user_id=1)\n"
    with old.worker(redis_url):
        result = old.python(code + "result = await job.result(timeout=10)", redis_url)
        assert result["status"] == "sent"

    # the changes that were printed
    tasks = tasks.replace(
        "class WorkerSettings:", "class WorkerSettings(BaseWorkerSettings):"
    )
    tasks = tasks.replace(
        "from settings import settings\n",
        "from services.arq_worker import BaseWorkerSettings\n",
    )
    for name in (
        "redis_settings =",
        "max_jobs =",
        "job_timeout =",
        "from services.arq import get",
    ):
        tasks = re.sub(rf"    {name}.*\n", "", tasks)
    (old / "services/tasks.py").write_text(tasks)
    old.commit()
    output = old.update("--data", "serializer=json")
    assert "BaseWorkerSettings" not in output
    old.commit()
    with old.worker(redis_url), redis.Redis.from_url(redis_url) as client:
        job_id = old.python(code + "result = job.job_id", redis_url)
        wait_for(lambda: client.exists(f"arq:result:{job_id}"), 10)
        assert client.get(f"arq:result:{job_id}").startswith(b"{")


def test_values_of_the_old_settings_become_the_answers(old: Shop) -> None:
    settings = (old / "settings.py").read_text()
    settings = settings.replace('arq_max_jobs: str = "10"', 'arq_max_jobs: str = "33"')
    settings = settings.replace("localhost:6379/1", "localhost:6379/5")
    (old / "settings.py").write_text(settings)
    old.commit()
    old.copy("--overwrite")
    assert "arq_max_jobs" not in (old / "settings.py").read_text()
    text = (old / "services/arq_settings.py").read_text()
    assert "default=33" in text and "redis://localhost:6379/5" in text


def test_an_old_field_that_says_something_else_is_explained(old: Shop) -> None:
    settings = (old / "settings.py").read_text()
    settings = settings.replace("redis://localhost:6379/1", "redis://queue.internal/1")
    (old / "settings.py").write_text(settings)
    old.commit()
    output = old.copy("--overwrite")
    assert "settings.py was left as it is: its field arq_redis_url hides" in output
    assert (old / "settings.py").read_text() == settings


def test_leaving(shop: Shop) -> None:
    before = shop.git("rev-parse", "HEAD").strip()
    environment = (shop / ".env").read_text()
    shop.copy()
    leaving = (TEMPLATE / "README.md").read_text().split("## Leaving")[1]
    script = re.findall(r"```bash\n(.*?)```", leaving, re.DOTALL)[0]
    run(["bash", "-ec", script], cwd=shop.root)
    assert shop.git("diff", before) == ""
    assert shop.git("status", "--porcelain", "--ignored", "-uall").count("??") == 0
    assert (shop / ".env").read_text() == environment
