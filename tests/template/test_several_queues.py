"""One process for both queues of a real project: types, jobs, deployment."""

import json
import signal
from pathlib import Path

import pytest
from support import TEMPLATE, Shop, wait_for

pytestmark = pytest.mark.slow


def page() -> str:
    """The classes as the page has them."""
    text = (TEMPLATE / "docs/control.md").read_text()
    return "class High" + text.partition("class High")[2].partition("```")[0]


def with_both_queues(shop: Shop) -> Shop:
    tasks = shop / "core/tasks.py"
    base = "from core.arq_worker import BaseWorkerSettings"
    text = tasks.read_text().replace(
        base, f"{base.replace('BaseW', 'BaseMultiQueueSettings, BaseW')}"
    )
    tasks.write_text(f"{text}\n\n{page()}")
    shop.commit()
    return shop


def test_one_process_serves_both(own_shop_with_queue: Shop, redis_url: str) -> None:
    shop = with_both_queues(own_shop_with_queue)
    shop.run("ruff", "check", "core/tasks.py", "core/arq_worker.py")
    shop.run("ruff", "format", "--check", "core/tasks.py", "core/arq_worker.py")
    complaints = shop.mypy("core/tasks.py", "core/arq_worker.py").splitlines()
    assert not [
        line for line in complaints if line.startswith(("core/tasks", "core/arq"))
    ]
    name = "core.tasks.AllSettings"
    with shop.worker(redis_url, name=name, LOG_FORMAT="json") as worker:
        worker.wait_for("redis_version=")
        # By its name alone, a task goes to the default queue, as it did before.
        done = shop.python(
            """
            options = {"payload": {}}
            jobs = [await enqueue("process_webhook", **options)]
            jobs.append(await enqueue("process_webhook", _queue_name="high", **options))
            said = [await job.result(timeout=30) for job in jobs]
            result = [one["processed"] for one in said]
            workers = [(await queue_stats(name)).workers for name in (None, "high")]
            result += [one.max_jobs for found in workers for one in found]
            result += [len({one.pid for found in workers for one in found})]
            """,
            redis_url,
        )
        assert done == [True, True, 5, 15, 1]
        lines = [json.loads(it) for it in worker.text.splitlines() if it[0] == "{"]
        said = {line.get("arq_queue") for line in lines if "job_id" in line}
        assert said == {"arq:queue:shop", "high"}
        settings = shop.settings(redis_url)
        checked = shop.run("arq", name, "--check", env=settings)
        assert checked.count("successful") == 2
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(120) == 0
    checked = shop.run("arq", name, "--check", env=settings, check=False)
    assert checked.count("failed") == 2


def test_a_change_restarts_it(own_shop_with_queue: Shop, redis_url: str) -> None:
    shop = with_both_queues(own_shop_with_queue)
    name = "core.tasks.AllSettings"
    with shop.worker(redis_url, "--watch", "core", name=name) as worker:
        wait_for(lambda: worker.text.count("redis_version=") == 2, 120, worker.path)
        Path(shop / "core/tasks.py").touch()
        wait_for(lambda: worker.text.count("redis_version=") >= 4, 120, worker.path)


def test_the_next_update_deploys_it(deployed: Shop, tmp_path: Path) -> None:
    shop = with_both_queues(deployed.copy_to(tmp_path / "shop"))
    shop.update()
    compose = (shop / "docker-compose.override.yml").read_text()
    assert compose.count("uv run arq ") == 1
    assert "command: uv run arq core.tasks.AllSettings --watch ." in compose
    script = (shop / "deploy/linux-server/deploy-worker.sh").read_text()
    assert "ARQ_WORKERS=(AllSettings)\n" in script
