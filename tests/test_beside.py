"""What projects run beside the queue, with the real packages, each in the worker."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import redis
from support import ARQ, QUEUE, TEMPLATE, Shop, environment, indented

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def beside_env(bootstrapped: Path) -> Path:
    """An environment with what a project needs, and what may be beside it."""
    project = tomllib.loads((bootstrapped / "pyproject.toml").read_text())["project"]
    return environment(
        "beside",
        [
            *project["dependencies"],
            *(ARQ, "aiosqlite", "httpx2", "jinja2"),
            *("sentry-sdk>=2.75,<3", "opentelemetry-sdk"),
            *("opentelemetry-instrumentation-arq==0.50b1", "arq-prometheus==0.3.0"),
            *("fastapi-arq==0.3.0", "z4j-arq==1.13.0", "fakeredis[lua]>=2.40"),
            *("dishka>=1.10", "modern-di-arq>=4.1", "time-machine", "freezegun"),
            "worq-dashboard==0.5.2",  # asks for Python 3.12, but runs on 3.11
        ],
        seed=True,
    )


@pytest.fixture
def shop(shop_with_queue: Shop, beside_env: Path, tmp_path: Path) -> Shop:
    """A project with the queue, to be changed at will."""
    own = shop_with_queue.copy_to(tmp_path / "shop")
    own.env = beside_env
    return own


def burst(shop: Shop, url: str, **env: str) -> str:
    """Run the worker until the queue is empty; what it prints."""
    env = {**shop.settings(url), **env}
    return shop.run("arq", "core.tasks.WorkerSettings", "--burst", env=env)


# --- Sentry ---------------------------------------------------------------------------

SENTRY_INIT = """
    import json
    import os

    import sentry_sdk
    from sentry_sdk.transport import Transport


    class Recording(Transport):
        def capture_envelope(self, envelope):
            with open(os.environ["RECORDED"], "a") as file:
                for item in envelope.items:
                    if item.type in ("event", "transaction"):
                        file.write(json.dumps(item.payload.json, default=str) + "\\n")


    sentry_sdk.init("http://key@localhost/1", transport=Recording, traces_sample_rate=1)
"""

SENTRY_TASKS = """
    import asyncio

    from arq import func

    from core.arq_worker import BaseWorkerSettings, no_retry


    async def works(ctx):
        return 1


    async def fails(ctx):
        raise ValueError(f"try {ctx['job_try']}")


    async def recovers(ctx):
        if ctx["job_try"] == 1:
            raise ValueError("the first try")


    @no_retry(KeyError)
    async def picky(ctx):
        raise KeyError("at once")


    async def leaves(ctx):
        raise SystemExit(3)


    async def stubborn(ctx):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("not now") from None


    async def slow(ctx):
        await asyncio.sleep(60)


    class WorkerSettings(BaseWorkerSettings):
        functions = [
            works, fails, recovers, picky,
            func(leaves, max_tries=1),
            func(slow, timeout=0.1),
            func(stubborn, timeout=0.1),
        ]
        retry_delay = 0.05
"""


def recorded(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("order", ["init first", "init last"])
def test_sentry_has_one_event_of_a_job_that_failed_for_good(
    shop: Shop, redis_url: str, tmp_path: Path, order: str
) -> None:
    parts = [indented(SENTRY_INIT, 0), indented(SENTRY_TASKS, 0)]
    shop.write_tasks("\n\n".join(parts if order == "init first" else parts[::-1]))
    tasks = ["works", "fails", "recovers", "picky", "leaves", "slow", "stubborn"]
    shop.python(
        f"""
        for name in {[*tasks, "gone"]}:
            await enqueue(name, _job_id=name)
        result = 0
        """,
        redis_url,
    )
    with redis.Redis.from_url(redis_url) as client:
        client.zadd(QUEUE, {"expired": 1})
        client.set("arq:retry:works", 3)  # as three killed workers leave it
    log = burst(shop, redis_url, RECORDED=str(tmp_path / "recorded"))
    events = [one for one in recorded(tmp_path / "recorded") if "exception" in one]
    errors = {}
    for event in events:
        last = event["exception"]["values"][-1]
        errors.setdefault(event["tags"]["arq_task_id"], []).append(
            f"{last['type']}: {last['value']}"
        )
    killed = "its worker was killed, or cut off from Redis, while it ran"
    assert errors == {
        "works": [f"JobExecutionFailed: max 3 retries exceeded: {killed}"],
        "fails": ["ValueError: try 3"],
        "picky": ["KeyError: 'at once'"],
        "leaves": ["SystemExit: 3"],
        "slow": ["TimeoutError: "],
        "stubborn": ["TimeoutError: "],
        "gone": ["JobExecutionFailed: function 'gone' not found"],
        "expired": ["JobExecutionFailed: job expired"],
    }, log
    fails = next(one for one in events if one["tags"]["arq_task_id"] == "fails")
    crumbs = [one["message"] for one in fails["breadcrumbs"]["values"]]
    assert "ValueError: try 2" in crumbs
    assert fails["transaction"] == "fails"


def test_sentry_follows_a_request_into_its_job(
    shop: Shop, redis_url: str, tmp_path: Path
) -> None:
    shop.write("recording.py", SENTRY_INIT)
    shop.write_tasks("import recording  # noqa: F401\n" + indented(SENTRY_TASKS, 0))
    env = {"RECORDED": str(tmp_path / "recorded")}
    trace_id = shop.python(
        """
        import recording

        with recording.sentry_sdk.start_transaction(name="request") as request:
            await enqueue("works")
            await enqueue_many("recovers", [{}])
        result = request.trace_id
        """,
        redis_url,
        env=env,
    )
    burst(shop, redis_url, **env)
    found = [
        one for one in recorded(tmp_path / "recorded") if one.get("spans") is not None
    ]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for one in found:
        assert one["contexts"]["trace"]["trace_id"] == trace_id
        by_name.setdefault(one["transaction"], []).append(one)
    assert {name: len(by_name[name]) for name in by_name} == {
        "request": 1,
        "works": 1,
        "recovers": 2,
    }
    spans = {span["description"]: span for span in by_name["request"][0]["spans"]}
    assert spans["works"]["op"] == "queue.submit.arq"
    trace = by_name["works"][0]["contexts"]["trace"]
    assert trace["parent_span_id"] == spans["works"]["span_id"]
    assert trace["status"] == "ok"
    statuses = [one["contexts"]["trace"]["status"] for one in by_name["recovers"]]
    assert statuses == ["aborted", "ok"]


# --- OpenTelemetry --------------------------------------------------------------------

OTEL_SETUP = """
    import json
    import os

    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
    from opentelemetry.instrumentation.arq import ArqInstrumentor


    class Recording(SpanExporter):
        def export(self, spans):
            with open(os.environ["RECORDED"], "a") as file:
                for span in spans:
                    file.write(span.to_json(indent=None) + "\\n")


    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Recording()))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("shop")
    if "INSTRUMENTED" in os.environ:
        ArqInstrumentor().instrument()
"""

OTEL_TASKS = """
    import recording  # noqa: F401
    from datetime import datetime

    from pydantic import BaseModel

    from core.arq_worker import BaseWorkerSettings


    class Order(BaseModel):
        at: datetime


    async def works(ctx, order: Order):
        with recording.tracer.start_as_current_span("inside"):
            return order.at


    async def recovers(ctx):
        if ctx["job_try"] == 1:
            raise ValueError("the first try")


    def in_a_thread(ctx):
        with recording.tracer.start_as_current_span("inside a thread"):
            return 1


    class WorkerSettings(BaseWorkerSettings):
        functions = [works, recovers, in_a_thread]
        retry_delay = 0.05
"""


@pytest.mark.parametrize("instrumented", [False, True])
def test_a_trace_goes_from_the_request_through_its_jobs(
    shop: Shop, redis_url: str, tmp_path: Path, instrumented: bool
) -> None:
    shop.write("recording.py", OTEL_SETUP)
    shop.write_tasks(OTEL_TASKS)
    env = {"RECORDED": str(tmp_path / "recorded")}
    if instrumented:
        env["INSTRUMENTED"] = "1"
    shop.python(
        """
        from datetime import datetime

        import recording

        with recording.tracer.start_as_current_span("request"):
            await enqueue("works", {"at": datetime(2026, 1, 1)})
            await enqueue_many("recovers", [{}])
            await enqueue("in_a_thread")
            pool = await get_pool()  # as arq's users do, with what is patched into it
            await pool.enqueue_job("recovers")
        result = 0
        """,
        redis_url,
        env=env,
    )
    log = burst(shop, redis_url, **env)
    spans = recorded(tmp_path / "recorded")
    by_id = {one["context"]["span_id"]: one for one in spans}
    lines = [
        f"{by_id[one['parent_id']]['name']} > {one['name']}"
        for one in spans
        if one["parent_id"]
    ]
    # arq's own enqueue_job takes nothing along, unless it is instrumented
    wanted = [
        "enqueue works > works",
        "enqueue recovers > recovers",
        "enqueue recovers > recovers",
        "enqueue in_a_thread > in_a_thread",
        "in_a_thread > inside a thread",
        "request > enqueue works",
        "request > enqueue recovers",
        "request > enqueue in_a_thread",
        "works > inside",
    ]
    if instrumented:
        wanted += ["request > recovers", "recovers > recovers", "recovers > recovers"]
    assert sorted(lines) == sorted(wanted), log
    kinds = {one["name"]: one["kind"] for one in spans}
    assert kinds["in_a_thread"] == "SpanKind.CONSUMER"
    failed = [one for one in spans if one["status"]["status_code"] == "ERROR"]
    assert {one["name"] for one in failed} == {"recovers"}
    assert "the first try" in failed[0]["status"]["description"]


# --- Dashboards and metrics -----------------------------------------------------------

WATCHED_TASKS = """
    from datetime import date

    from core.arq_worker import BaseWorkerSettings


    async def add(ctx, a: int, b: int):
        return date(2026, 1, a + b)


    async def fails(ctx):
        raise ValueError("no luck")


    class WorkerSettings(BaseWorkerSettings):
        functions = [add, fails]
        health_check_interval = 0.2
        max_tries = 1
"""


def test_dashboards_see_the_jobs_and_the_worker(shop: Shop, redis_url: str) -> None:
    shop.write_tasks(WATCHED_TASKS)
    with shop.worker(redis_url):
        found = shop.python(
            f"""
            from worq.adapters.arq import ARQAdapter
            from z4j_arq.engine import ArqEngineAdapter

            from core.arq_serializer import deserialize, serialize

            await enqueue("add", 1, 2, _job_id="sum")
            await enqueue("fails", _job_id="fails")
            await enqueue("add", 3, 4, _job_id="later", _defer_by=60)
            for job_id in ("sum", "fails"):
                while (await get_job_status(job_id))["status"] != "complete":
                    await asyncio.sleep(0.02)
            while not await (await get_pool()).exists("{QUEUE}:health-check"):
                await asyncio.sleep(0.02)
            worq = ARQAdapter(
                {redis_url!r},
                queue_names=[{QUEUE!r}],
                deserializer=deserialize,
                serializer=serialize,
            )
            z4j = ArqEngineAdapter(
                redis_settings=await get_pool(), queue_name={QUEUE!r}
            )
            result = {{
                "health": (await worq.get_worker_health())[0].status,
                "scheduled": [job.job_id for job in await worq.get_scheduled_jobs()],
                "failed": [job.job_id for job in await worq.get_failed_jobs()],
                "detail": (await worq.get_job_detail("sum")).function_name,
                "z4j": (await z4j.reconcile_task("later")).result["engine_state"],
            }}
            await worq.close()
            """,
            redis_url,
        )
    assert found == {
        "health": "ALIVE",
        "scheduled": ["later"],
        "failed": ["fails"],
        "detail": "add",
        "z4j": "pending",
    }


def test_arq_prometheus_reads_the_health_of_the_queue(
    shop: Shop, redis_url: str
) -> None:
    shop.write_tasks("""
        from datetime import timedelta

        from arq_prometheus import ArqPrometheusMetrics

        from core.arq_worker import BaseWorkerSettings


        async def works(ctx):
            return 1


        async def read(ctx):
            return ctx["metrics"].jobs_completed.collect()[0].samples[0].value


        async def startup(ctx):
            metrics = ArqPrometheusMetrics(
                ctx,
                queue_name=WorkerSettings.queue_name,
                delay=timedelta(seconds=0.1),
                enable_webserver=False,
            )
            ctx["metrics"] = await metrics.start()


        async def shutdown(ctx):
            await ctx["metrics"].stop()


        class WorkerSettings(BaseWorkerSettings):
            functions = [works, read]
            on_startup = startup
            on_shutdown = shutdown
            health_check_interval = 0.2
    """)
    with shop.worker(redis_url) as worker:
        complete = shop.python(
            """
            async def run(name):
                return await (await enqueue(name)).result(timeout=10, poll_delay=0.02)

            await run("works")
            for _ in range(100):
                if result := await run("read"):
                    break
            """,
            redis_url,
        )
        assert complete >= 1, worker.text


# --- Other ways to run tasks ----------------------------------------------------------


def test_a_plain_worker_and_fastapi_arq(shop: Shop, redis_url: str) -> None:
    shop.write_tasks(WATCHED_TASKS)
    results = shop.script(
        f"""
        import asyncio

        from arq import Worker as ArqWorker
        from arq.connections import RedisSettings, create_pool
        from fastapi import FastAPI
        from fastapi.testclient import TestClient

        import core.tasks
        from core.arq_worker import Worker
        from fastapi_arq import FastArq

        settings = RedisSettings.from_dsn({redis_url!r})


        async def double(ctx, n):
            return 2 * n


        async def plain():
            pool = await create_pool(settings, default_queue_name="plain")
            job = await pool.enqueue_job("double", 21)
            worker = Worker(
                functions=[double],
                redis_settings=settings,
                queue_name="plain",
                burst=True,
                handle_signals=False,
            )
            await worker.main()
            await worker.close()
            print(await job.result(timeout=5))
            await pool.aclose()


        app = FastAPI()
        arq = FastArq(app, settings)


        @arq.task()
        async def triple(ctx, n):
            return 3 * n


        @app.get("/triple")
        async def route(n: int):
            job = await arq._arq_redis.enqueue(triple, n)
            return await job.result(timeout=10, poll_delay=0.02)


        asyncio.run(plain())
        with TestClient(app) as client:
            print(client.get("/triple?n=5").json())
        """,
        redis_url,
    )
    assert results.splitlines()[-2:] == ["42", "15"]


def test_dependencies_are_injected_by_dishka_and_modern_di(
    shop: Shop, redis_url: str
) -> None:
    shop.write_tasks("""
        from typing import Annotated

        import modern_di
        import modern_di_arq
        from dishka import FromDishka, Provider, Scope, make_async_container
        from dishka.integrations.arq import inject, setup_dishka
        from modern_di import providers

        from core.arq_worker import BaseWorkerSettings


        class Mailer:
            sender = "shop@example.com"


        @inject
        async def by_dishka(ctx, n: int, mailer: FromDishka[Mailer]):
            return f"{n} {mailer.sender}"


        class Group(modern_di.Group):
            mailer = providers.Factory(creator=Mailer, scope=modern_di.Scope.REQUEST)


        @modern_di_arq.inject
        async def by_modern_di(
            ctx, n: int, mailer: Annotated[Mailer, modern_di_arq.FromDI(Mailer)]
        ):
            return f"{n} {mailer.sender}"


        class WorkerSettings(BaseWorkerSettings):
            functions = [by_dishka, by_modern_di]
            max_tries = 1


        provider = Provider(scope=Scope.REQUEST)
        provider.provide(Mailer)
        setup_dishka(make_async_container(provider), WorkerSettings)
        container = modern_di.Container(groups=[Group])
        modern_di_arq.setup_di(WorkerSettings, container)
    """)
    shop.python(
        """
        import core.tasks

        for task in (core.tasks.by_dishka, core.tasks.by_modern_di):
            await enqueue(task, 7, _job_id=task.__name__)
        result = 0
        """,
        redis_url,
    )
    log = burst(shop, redis_url)
    done = shop.python(
        """
        names = ["by_dishka", "by_modern_di"]
        result = [(await get_job_status(name))["result"] for name in names]
        """,
        redis_url,
    )
    assert done == ["7 shop@example.com"] * 2, log


# --- In the project's own tests -------------------------------------------------------

IN_PROCESS = """
    import asyncio

    from arq.worker import create_worker

    from core.arq import close_pool, enqueue, get_pool, set_pool
    from core.tasks import WorkerSettings


    async def run_jobs():
        pool = await get_pool()
        worker = create_worker(
            WorkerSettings, redis_pool=pool, burst=True, handle_signals=False
        )
        await worker.main()
"""


def test_fakeredis_takes_the_place_of_a_server(shop: Shop) -> None:
    shop.write_tasks(WATCHED_TASKS)
    output = shop.script(
        f"""
        {indented(IN_PROCESS, 8)}

        from arq import ArqRedis
        from fakeredis.aioredis import FakeRedis

        from core.arq import get_job_status


        async def main():
            await set_pool(ArqRedis(FakeRedis().connection_pool))
            await enqueue("add", 1, 2, _job_id="sum")
            await enqueue("fails", _job_id="fails")
            await run_jobs()
            print([(await get_job_status(id))["result"] for id in ("sum", "fails")])
            await close_pool()


        asyncio.run(main())
        """,
        "redis://localhost:1",
    )
    assert "[datetime.date(2026, 1, 3), 'ValueError: no luck']" in output


@pytest.mark.parametrize(
    "travel",
    [
        "import time_machine; travel = time_machine.travel('2031-05-05', tick=True)",
        "import freezegun; travel = freezegun.freeze_time('2031-05-05', real_asyncio=True)",
    ],
)
def test_jobs_run_at_another_time(shop: Shop, redis_url: str, travel: str) -> None:
    shop.write_tasks("""
        from datetime import datetime

        from core.arq_worker import BaseWorkerSettings


        async def year(ctx):
            return datetime.now().year


        class WorkerSettings(BaseWorkerSettings):
            functions = [year]
    """)
    output = shop.script(
        f"""
        {indented(IN_PROCESS, 8)}

        {travel}


        async def main():
            with travel:
                job = await enqueue("year")
                await run_jobs()
                await set_pool(await get_pool())
                print("year", await job.result(timeout=5))
                await close_pool()


        asyncio.run(main())
        """,
        redis_url,
    )
    assert "year 2031" in output


# --- redis-py -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("redis_py", "requirements", "major"),
    [
        ("oldest", ["fastapi-cache2[redis]==0.2.2"], "4"),
        (
            "newest",
            ["--override", str(Path(__file__).with_name("newest-redis.txt"))],
            "",
        ),
    ],
)
def test_other_versions_of_redis_py(
    shop: Shop,
    bootstrapped: Path,
    redis_url: str,
    redis_py: str,
    requirements: list[str],
    major: str,
) -> None:
    project = tomllib.loads((bootstrapped / "pyproject.toml").read_text())["project"]
    shop.env = environment(
        f"beside-redis-{redis_py}",
        [*project["dependencies"], ARQ, "aiosqlite", *requirements],
    )
    shop.write_tasks(WATCHED_TASKS)
    strict = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}
    with shop.worker(redis_url, **strict) as worker:
        version, status, results = shop.python(
            """
            import redis

            jobs = await enqueue_many("add", [{"a": 1, "b": 2}] * 201)
            results = {
                str(await job.result(timeout=20, poll_delay=0.02)) for job in jobs
            }
            job = await enqueue("add", 1, 1, _defer_by=60)
            result = [redis.__version__, await abort_job(job.job_id), list(results)]
            """,
            redis_url,
        )
    assert version.startswith(major) and int(version.split(".")[0]) not in (5,)
    assert (status, results) == (True, ["2026-01-03"])
    assert "Traceback" not in worker.text and "Warning" not in worker.text
    assert worker.process.returncode == 0, worker.text


# --- docs/beside.md -------------------------------------------------------------------


def test_the_snippets_pass_the_projects_own_checks_and_run(
    own_shop_with_queue: Shop, beside_env: Path
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
    shop.env = beside_env
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
