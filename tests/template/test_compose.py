"""The Compose worker: what Compose makes of the files, and what runs in containers."""

import json
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import builder, engine, has_compose
from support import Shop, free_port, run, wait_for

pytestmark = pytest.mark.skipif(not has_compose(), reason="Compose v2 is missing")


def config(shop: Shop, *files: str) -> dict[str, Any]:
    """The services, as `docker compose config` resolves them."""
    options = [part for name in files for part in ("-f", name)]
    command = ["docker", "compose", *options, "config", "--format", "json"]
    return json.loads(run(command, cwd=shop.root).stdout)["services"]


def ports(service: dict[str, Any]) -> list[dict[str, Any]]:
    return service.get("ports", [])


def check(services: dict[str, Any], app: str = "app", redis: str = "redis") -> None:
    """What must hold of every combination."""
    worker = services["worker"]
    url = f"redis://{redis}:6379/1"
    assert services[app]["environment"]["ARQ_REDIS_URL"] == url
    assert worker["environment"]["ARQ_REDIS_URL"] == url
    assert (
        worker["environment"]["DATABASE_URL"]
        == (services[app]["environment"]["DATABASE_URL"])
    )
    assert worker["build"] == services[app]["build"]
    assert worker["volumes"] == services[app]["volumes"]
    for key in ("ports", "expose", "container_name", "hostname", "labels"):
        assert key not in worker
    published = [
        port["published"] for service in services.values() for port in ports(service)
    ]
    assert len(published) == len(set(published))
    assert redis in worker["depends_on"] and redis in services[app]["depends_on"]
    assert worker["healthcheck"]["test"][-1].endswith("/worker/alive.py")
    assert worker["healthcheck"]["interval"] == "15s"
    assert worker["stop_grace_period"] == "45s"
    assert worker["restart"] == "unless-stopped"


def test_without_redis_it_brings_one(shop: Shop) -> None:
    shop.copy()
    services = config(shop)
    check(services)
    assert "--appendonly" in services["redis"]["command"]
    assert services["redis"]["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]
    assert services["redis"]["volumes"][0]["target"] == "/data"
    [port] = ports(services["redis"])
    assert (port["host_ip"], port["published"]) == ("127.0.0.1", "6379")


def test_the_port_of_its_redis_can_be_moved(shop: Shop) -> None:
    shop.copy()
    with (shop / ".env").open("a") as env:
        env.write("ARQ_REDIS_PORT=6390\n")
    [port] = ports(config(shop)["redis"])
    assert port["published"] == "6390" and port["target"] == 6379


def test_with_the_projects_redis(paxx_shop: Callable[..., Shop]) -> None:
    shop = paxx_shop("infra add redis")
    shop.copy()
    services = config(shop)
    check(services)
    assert "command" not in services["redis"] or not services["redis"]["command"]
    assert services["worker"]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_a_redis_that_is_added_later_takes_its_place(shop: Shop, paxx: Path) -> None:
    shop.copy()
    shop.paxx(paxx, "infra", "add", "redis")
    check(config(shop))  # at once, before an update
    shop.update()
    assert "image: redis" not in (shop / "docker-compose.override.yml").read_text()
    services = config(shop)
    check(services)
    assert services["worker"]["depends_on"]["redis"]["condition"] == "service_healthy"


def test_what_paxx_adds_later_comes_up_beside_it(shop: Shop, paxx: Path) -> None:
    shop.copy()
    for command in (
        *("infra add metrics", "infra add storage"),
        *("ext add postgis", "ext add websocket"),
    ):
        shop.paxx(paxx, *command.split())
        check(config(shop))
    shop.paxx(paxx, "deploy", "add", "linux-server")
    shop.update()
    services = config(shop)
    check(services)
    assert {"app", "db", "jaeger", "minio", "redis", "worker"} == services.keys()


def test_the_worker_takes_nothing_that_is_the_apps_alone(shop: Shop) -> None:
    compose = shop / "docker-compose.yml"
    alone = """\
    container_name: shop
    hostname: shop
    expose: ["8000"]
    labels:
      traefik.enable: "true"
"""
    compose.write_text(compose.read_text().replace("  app:\n", f"  app:\n{alone}"))
    shop.commit()
    shop.copy()
    tasks = shop / "core/tasks.py"
    tasks.write_text(
        tasks.read_text() + "\n\nclass MailSettings(WorkerSettings):\n    pass\n"
    )
    shop.commit()
    shop.update()
    services = config(shop)
    check(services)
    check({**services, "worker": services["worker-mail"]})
    assert services["app"]["container_name"] == "shop"
    assert services["app"]["labels"] == {"traefik.enable": "true"}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("docker.io/bitnami/valkey:8", "store"),
        ("registry:5000/redis@sha256:" + "0" * 64, "store"),
        ("redis/redis-stack-server", "store"),
        ("${REDIS_IMAGE:-redis:7}", "redis"),  # only its name tells
    ],
)
def test_the_real_redis_is_found(shop: Shop, image: str, name: str) -> None:
    others = """
  exporter:
    image: oliver006/redis_exporter:v1
  ui:
    image: redis/redisinsight:latest
  commander:
    image: rediscommander/redis-commander
"""
    text = (shop / "docker-compose.yml").read_text()
    others += f"  {name}:\n    image: {image}\n"
    text = text.replace("\nvolumes:\n  postgres", f"{others}\nvolumes:\n  postgres")
    (shop / "docker-compose.yml").write_text(text)
    shop.commit()
    shop.copy()
    services = config(shop)
    check(services, redis=name)
    assert services["worker"]["depends_on"][name]["condition"] == "service_started"
    assert ("redis" in services) == (name == "redis")


def test_names_are_the_projects(shop: Shop) -> None:
    text = (shop / "docker-compose.yml").read_text().replace("  app:", "  web:")
    text = text.replace(
        "\nvolumes:", "\n  cache:\n    image: valkey/valkey:8\n\nvolumes:"
    )
    shop.git("mv", "docker-compose.yml", "compose.yaml")
    (shop / "compose.yaml").write_text(text)
    shop.commit()
    output = shop.copy()
    assert (shop / "compose.override.yaml").exists()
    services = config(shop)
    check(services, "web", "cache")
    assert services["worker"]["depends_on"]["cache"]["condition"] == "service_started"
    assert "redis" not in services
    assert "compose.yaml builds" not in output


def test_a_guess_is_said(shop: Shop) -> None:
    text = (shop / "docker-compose.yml").read_text().replace("  app:", "  web:")
    text = text.replace("\nvolumes:", "\n  api:\n    build: .\n\nvolumes:")
    (shop / "docker-compose.yml").write_text(text)
    shop.commit()
    output = shop.copy()
    assert (
        "docker-compose.yml builds web, api. The worker runs as `web`; another one:\n"
        "  copier update --trust --defaults -d app_service=api\n"
    ) in output
    check(config(shop), "web")


def test_beside_an_override_file_of_the_projects_own(shop: Shop) -> None:
    name = "docker-compose.override.yml"
    own = """\
services:
  app:
    tty: true
    expose: !reset []
  redis:
    image: redis:7
"""
    (shop / name).write_text(own)
    shop.commit()
    shop.copy()
    assert "image: redis" not in (shop / "compose.worker.yml").read_text()
    services = config(shop, "docker-compose.yml", name, "compose.worker.yml")
    check(services)
    assert services["app"]["tty"] is True


def test_each_queue_class_gets_a_service_with_the_next_update(shop: Shop) -> None:
    shop.copy()
    tasks = shop / "core/tasks.py"
    tasks.write_text(
        tasks.read_text()
        + "\n\nclass HighPriorityWorkerSettings(WorkerSettings):\n    queue_name = 'high'\n"
        + "\n\nclass MailSettings(HighPriorityWorkerSettings):\n    queue_name = 'mail'\n"
    )
    shop.commit()
    shop.update()
    services = config(shop)
    check(services)
    high, mail = services["worker-high-priority"], services["worker-mail"]
    for service, name in ((high, "HighPriorityWorkerSettings"), (mail, "MailSettings")):
        assert f"core.tasks.{name}" in service["command"]
        assert service["healthcheck"] == services["worker"]["healthcheck"]
        assert service["environment"] == services["worker"]["environment"]
        assert "redis" in service["depends_on"]


# --- In containers --------------------------------------------------------------------

ROUTES = textwrap.dedent("""
    from fastapi import APIRouter

    from core.arq import enqueue, get_job_status

    router = APIRouter()


    @router.post("/sleep/{seconds}")
    async def sleep(seconds: float):
        return (await enqueue("sleep", seconds)).job_id


    @router.get("/jobs/{job_id}")
    async def job(job_id: str):
        return await get_job_status(job_id)
""")

TASKS = """
    import asyncio
    import socket

    from core.arq_worker import BaseWorkerSettings


    async def sleep(ctx, seconds):
        await ctx["redis"].rpush("hosts", socket.gethostname())
        await asyncio.sleep(seconds)
        return socket.gethostname()


    class WorkerSettings(BaseWorkerSettings):
        functions = [sleep]
"""


class Stack:
    """The project in containers."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.port = free_port()
        with (shop / ".env").open("a") as env:
            env.write(f"ARQ_REDIS_PORT={free_port()}\n")

    def compose(self, *arguments: str, check: bool = True) -> str:
        files = ("docker-compose.yml", "docker-compose.override.yml", "test.yml")
        options = [part for name in files for part in ("-f", name)]
        env = {**builder(), "COMPOSE_PROJECT_NAME": "paxx-arq-test"}
        done = run(
            ["docker", "compose", *options, *arguments],
            cwd=self.shop.root,
            env=env,
            check=check,
            timeout=900,
        )
        return done.stdout

    def http(self, method: str, path: str) -> Any:
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def up(self) -> bool:
        try:
            return bool(self.http("GET", "/health"))
        except OSError:
            return False

    def complete(self, job_id: str) -> bool:
        return self.http("GET", f"/jobs/{job_id}")["status"] == "complete"

    def workers(self) -> list[str]:
        return self.compose("ps", "-q", "worker").split()

    def hosts(self) -> list[str]:
        """Where jobs were started."""
        command = ["redis-cli", "-n", "1", "lrange", "hosts", "0", "-1"]
        return self.compose("exec", "-T", "redis", *command).split()

    def health(self, container: str) -> str:
        form = "{{.State.Health.Status}}"
        return run(["docker", "inspect", "-f", form, container]).stdout.strip()


@pytest.fixture
def stack(shop: Shop) -> Iterator[Stack]:
    with engine(shop / "Dockerfile.dev"):
        yield from running_stack(shop)


def running_stack(shop: Shop) -> Iterator[Stack]:
    shop.copy()
    shop.write_tasks(TASKS)
    (shop / "features/sleep").mkdir()
    (shop / "features/sleep/routes.py").write_text(ROUTES)
    main = shop / "main.py"
    main.write_text(
        main.read_text()
        + "\nfrom features.sleep.routes import router\n\napp.include_router(router)\n"
    )
    project = shop / "pyproject.toml"
    project.write_text(
        project.read_text().replace('    "httpx', '    "aiosqlite",\n    "httpx')
    )
    stack = Stack(shop)
    shop.write(
        "test.yml",
        f"""\
        services:
          app:
            environment: &environment
              - DATABASE_URL=sqlite+aiosqlite:////tmp/shop.db
              - ARQ_JOB_TIMEOUT=5
            ports: !override ['127.0.0.1:{stack.port}:8000']
          worker:
            environment: *environment
          db:
            command: sleep infinity
            ports: !reset []
            healthcheck:
              test: ['CMD', 'true']
        """,
    )
    try:
        stack.compose("up", "-d", "--build", "--scale", "worker=2")
        yield stack
    finally:
        print(stack.compose("logs", "--no-color", "--tail", "60", check=False))
        stack.compose("down", "-v", "-t", "5", "--rmi", "local", check=False)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_in_containers(stack: Stack) -> None:
    wait_for(stack.up, 120)

    job = stack.http("POST", "/sleep/0")
    wait_for(lambda: stack.complete(job), 60)
    assert stack.http("GET", f"/jobs/{job}")["success"] is True

    first, second = stack.workers()
    wait_for(lambda: {stack.health(c) for c in (first, second)} == {"healthy"}, 120)

    # each job ran once, and both workers had some
    jobs = [stack.http("POST", "/sleep/0.2") for _ in range(60)]
    wait_for(lambda: all(stack.complete(job) for job in jobs), 60)
    assert len(stack.hosts()) == 61
    assert len(set(stack.hosts())) == 2

    # a stop during a job gives it back, as the worker starts anew when a file changes
    job = stack.http("POST", "/sleep/4")
    wait_for(lambda: len(stack.hosts()) == 62, 60)
    host = stack.hosts()[-1]
    running = first if first.startswith(host) else second
    start = time.monotonic()
    run(["docker", "stop", "-t", "45", running])
    assert time.monotonic() - start < 40
    wait_for(lambda: stack.complete(job), 60)
    assert stack.http("GET", f"/jobs/{job}")["result"] != host
    run(["docker", "start", running])
    wait_for(lambda: stack.health(running) == "healthy", 120)

    # a kill makes it run again elsewhere, once its lease has lapsed
    job = stack.http("POST", "/sleep/4")
    wait_for(lambda: len(stack.hosts()) == 64, 60)
    host = stack.hosts()[-1]
    running = first if first.startswith(host) else second
    run(["docker", "kill", running])
    wait_for(lambda: stack.complete(job), 100)
    assert stack.http("GET", f"/jobs/{job}")["result"] != host
