"""The main job, end to end: a real project, a real Redis, a real worker."""

import json
import os
import re
from contextlib import suppress

import pytest
import redis
from support import QUEUE, Shop, run, wait_for

ROUTE = """
    from typing import Annotated

    from arq import ArqRedis
    from fastapi import APIRouter, Depends

    from core.arq import enqueue, get_job_status, get_pool

    router = APIRouter()


    @router.post("/welcome/{user_id}")
    async def welcome(user_id: int):
        job = await enqueue("send_welcome_email", user_id=user_id)
        return {"job_id": job.job_id}


    @router.get("/jobs/{job_id}")
    async def job(job_id: str):
        return await get_job_status(job_id)


    @router.get("/length")
    async def length(pool: Annotated[ArqRedis, Depends(get_pool)]) -> int:
        return await pool.zcard("arq:queue:shop")
"""

CLIENT = """
    import time

    from fastapi.testclient import TestClient

    from features.mail.routes import router
    from main import app

    app.include_router(router)
    with TestClient(app) as client:
        job_id = client.post("/welcome/123").json()["job_id"]
        for _ in range(200):
            status = client.get(f"/jobs/{job_id}").json()
            if status["status"] == "complete":
                break
            time.sleep(0.05)
        print("length", client.get("/length").json())
    print(status)
"""


def test_a_job_goes_from_a_route_to_the_worker_and_back(
    own_shop_with_queue: Shop, redis_url: str
) -> None:
    own_shop_with_queue.write("features/mail/routes.py", ROUTE)
    with own_shop_with_queue.worker(redis_url) as worker:
        output = own_shop_with_queue.script(CLIENT, redis_url)
        assert "'status': 'complete'" in output
        assert "'success': True" in output
        assert "length 0" in output
        assert "'result': {'status': 'sent', 'user_id': 123, 'sent_at': '20" in output
        assert "Sending welcome email" in worker.text


@pytest.mark.slow
def test_a_cron_job_runs(own_shop_with_queue: Shop, redis_url: str) -> None:
    own_shop_with_queue.edit(
        "core/tasks.py",
        "cron(cleanup_expired_sessions, hour=3, minute=0)",
        "cron(cleanup_expired_sessions, second=set(range(60)))",
    )
    with own_shop_with_queue.worker(redis_url) as worker:
        wait_for(
            lambda: worker.text.count("Cleaned up expired sessions") >= 2,
            15,
            worker.path,
        )


@pytest.mark.slow
def test_watch_runs_the_changed_code(own_shop_with_queue: Shop, redis_url: str) -> None:
    tasks = own_shop_with_queue / "core/tasks.py"
    with own_shop_with_queue.worker(redis_url, "--watch", ".") as worker:
        pid = worker.process.pid
        old, new = '"status": "sent"', '"status": "resent"'
        changed = own_shop_with_queue.edit("core/tasks.py", old, new)

        def noticed() -> bool:
            # the watcher starts after the worker: it may not have seen the first change
            tasks.write_text(changed)
            with suppress(AssertionError):
                wait_for(lambda: "shutdown on SIGINT" in worker.text, 2)
            return "shutdown on SIGINT" in worker.text

        wait_for(noticed, 20, worker.path)
        wait_for(lambda: worker.text.count("redis_version=") > 1, 20, worker.path)
        code = """
            job = await enqueue("send_welcome_email", user_id=1)
            result = await job.result(timeout=10, poll_delay=0.02)
        """
        assert own_shop_with_queue.python(code, redis_url)["status"] == "resent"
        assert worker.process.pid == pid
        assert worker.process.poll() is None
        with redis.Redis.from_url(redis_url) as client:
            [key] = client.keys(f"{QUEUE}:worker:*")
            watched = json.loads(client.get(key))["pid"]
            assert watched != pid
    assert worker.process.returncode == 0
    with pytest.raises(ProcessLookupError):
        os.kill(watched, 0)


@pytest.mark.slow
def test_check_tells_a_live_worker_from_none(
    shop_with_queue: Shop, redis_url: str
) -> None:
    def check() -> int:
        return run(
            [shop_with_queue.env / "bin/arq", "core.tasks.WorkerSettings", "--check"],
            cwd=shop_with_queue.root,
            env=shop_with_queue.settings(redis_url),
            check=False,
        ).returncode

    assert check() == 1
    with shop_with_queue.worker(redis_url) as worker:
        wait_for(lambda: check() == 0, 10, worker.path)
    assert check() == 1


BURST = ("arq", "core.tasks.WorkerSettings", "--burst")


def test_burst_ends_when_the_queue_is_empty(
    shop_with_queue: Shop, redis_url: str
) -> None:
    shop_with_queue.python(
        "result = (await enqueue('process_webhook', payload={'a': 1})).job_id",
        redis_url,
    )
    output = shop_with_queue.run(*BURST, env=shop_with_queue.settings(redis_url))
    assert re.search(r"process_webhook ● \{'processed': True, 'attempt': 1\}", output)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_each_log_line_is_printed_once(
    shop_with_queue: Shop, redis_url: str, log_format: str
) -> None:
    shop_with_queue.python(
        "result = (await enqueue('process_webhook', payload={}, _job_id='j1')).job_id",
        redis_url,
    )
    env = {**shop_with_queue.settings(redis_url), "LOG_FORMAT": log_format}
    output = shop_with_queue.run(*BURST, env=env)
    assert output.count("Starting worker for") == 1
    assert output.count("Processing webhook") == 1
