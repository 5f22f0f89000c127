"""The main job, end to end: a real project, a real Redis, a real worker."""

import re
import textwrap
import time

import pytest
from support import Shop, run, wait_for

ROUTE = textwrap.dedent("""
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
""")

CLIENT = textwrap.dedent("""
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
        print('length', client.get('/length').json())
    print(status)
""")


def test_a_job_goes_from_a_route_to_the_worker_and_back(
    own_shop_with_queue: Shop, redis_url: str
) -> None:
    (own_shop_with_queue / "features/mail").mkdir()
    (own_shop_with_queue / "features/mail/routes.py").write_text(ROUTE)
    with own_shop_with_queue.worker(redis_url) as worker:
        output = own_shop_with_queue.run(
            "python", "-c", CLIENT, env=own_shop_with_queue.settings(redis_url)
        )
        assert "'status': 'complete'" in output
        assert "'success': True" in output
        assert "length 0" in output
        assert "'result': {'status': 'sent', 'user_id': 123, 'sent_at': '20" in output
        assert "Sending welcome email" in worker.text


def test_a_cron_job_runs(own_shop_with_queue: Shop, redis_url: str) -> None:
    tasks = own_shop_with_queue / "core/tasks.py"
    tasks.write_text(
        tasks.read_text().replace(
            "cron(cleanup_expired_sessions, hour=3, minute=0)",
            "cron(cleanup_expired_sessions, second=set(range(60)))",
        )
    )
    with own_shop_with_queue.worker(redis_url) as worker:
        wait_for(
            lambda: worker.text.count("Cleaned up expired sessions") >= 2,
            15,
            worker.path,
        )


def test_watch_runs_the_changed_code(own_shop_with_queue: Shop, redis_url: str) -> None:
    tasks = own_shop_with_queue / "core/tasks.py"
    with own_shop_with_queue.worker(redis_url, "--watch", ".") as worker:
        pid = worker.process.pid
        time.sleep(1)  # the watcher starts after the worker
        tasks.write_text(
            tasks.read_text().replace('"status": "sent"', '"status": "resent"')
        )
        wait_for(lambda: worker.text.count("redis_version=") == 2, 20, worker.path)
        result = own_shop_with_queue.python(
            "job = await enqueue('send_welcome_email', user_id=1)\n"
            "result = await job.result(timeout=10, poll_delay=0.05)",
            redis_url,
        )
        assert result["status"] == "resent"
        assert worker.process.pid == pid
        assert worker.process.poll() is None


def test_check_tells_a_live_worker_from_none(
    shop_with_queue: Shop, redis_url: str
) -> None:
    settings = ["arq", "core.tasks.WorkerSettings", "--check"]
    env = shop_with_queue.settings(redis_url)
    check = [shop_with_queue.env / "bin/arq", *settings[1:]]
    assert run(check, cwd=shop_with_queue.root, env=env, check=False).returncode == 1
    with shop_with_queue.worker(redis_url) as worker:
        worker.wait_for("redis_version=")
        wait_for(
            lambda: (
                run(check, cwd=shop_with_queue.root, env=env, check=False).returncode
                == 0
            ),
            10,
            worker.path,
        )
    assert run(check, cwd=shop_with_queue.root, env=env, check=False).returncode == 1


def test_burst_ends_when_the_queue_is_empty(
    shop_with_queue: Shop, redis_url: str
) -> None:
    shop_with_queue.python(
        "result = (await enqueue('process_webhook', payload={'a': 1})).job_id",
        redis_url,
    )
    output = shop_with_queue.run(
        *("arq", "core.tasks.WorkerSettings", "--burst"),
        env=shop_with_queue.settings(redis_url),
    )
    assert re.search(r"process_webhook ● \{'processed': True, 'attempt': 1\}", output)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_each_log_line_is_printed_once(
    shop_with_queue: Shop, redis_url: str, log_format: str
) -> None:
    shop_with_queue.python(
        "result = (await enqueue('process_webhook', payload={}, _job_id='j1')).job_id",
        redis_url,
    )
    output = shop_with_queue.run(
        *("arq", "core.tasks.WorkerSettings", "--burst"),
        env={**shop_with_queue.settings(redis_url), "LOG_FORMAT": log_format},
    )
    assert output.count("Starting worker for") == 1
    assert output.count("Processing webhook") == 1
