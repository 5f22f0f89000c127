"""What docs/tasks.md says holds; that its snippets paste: test_readme.py."""

import re

import redis
from support import TEMPLATE, OwnRedis, Shop

TEXT = (TEMPLATE / "docs/tasks.md").read_text()


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
