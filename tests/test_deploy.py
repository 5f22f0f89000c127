"""deploy/linux-server: the worker is started, replaced and drained with the app."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Shop, run, wait_for
from test_compose import TASKS, builder, missing_image


@pytest.fixture
def server(shop: Shop, paxx: Path) -> Shop:
    shop.paxx(paxx, "deploy", "add", "linux-server")
    return shop


def test_the_deploy_scripts_get_the_worker(server: Shop) -> None:
    server.copy(commit=False)
    script = server / "deploy/linux-server/deploy-worker.sh"
    assert os.access(script, os.X_OK)
    for name in ("deploy-worker.sh", "deploy.sh", "deploy-init.sh"):
        run(["bash", "-n", server / "deploy/linux-server" / name])
    diff = server.git("diff", "-U0", "deploy")
    lines = [
        line
        for line in diff.splitlines()
        if line[0] in "+-" and line[:2] not in ("++", "--")
    ]
    assert lines == [
        "+    deploy/linux-server/deploy-worker.sh \\",
        '+    -e "ARQ_REDIS_URL=${ARQ_REDIS_URL:-redis://shop-redis:6379/1}" \\',
        "+# The ARQ worker of the new version",
        '+DB_URL="$DB_URL" "$SCRIPT_DIR/deploy-worker.sh" "$IMAGE"',
        "+",
    ]
    server.commit()
    server.copy("--overwrite")
    assert server.git("diff", "HEAD~1", "--stat") == ""


def test_a_deploy_script_of_another_shape_is_left_alone(server: Shop) -> None:
    script = server / "deploy/linux-server/deploy.sh"
    script.write_text("#!/bin/bash\nkubectl apply -f .\n")
    server.commit()
    output = server.copy()
    assert script.read_text() == "#!/bin/bash\nkubectl apply -f .\n"
    assert "deploy/linux-server/deploy.sh was left as it is" in output
    assert '"$SCRIPT_DIR/deploy-worker.sh" "$IMAGE"' in output


def test_without_a_deployment_there_is_no_script(shop_with_queue: Shop) -> None:
    assert not (shop_with_queue / "deploy/linux-server").exists()


# --- With an engine -------------------------------------------------------------------

DOCKERFILE = """\
FROM python:3.12-slim
WORKDIR /app
COPY --from=ghcr.io/astral-sh/uv:latest /uv /usr/local/bin/uv
COPY . .
RUN uv sync --no-dev
ENV PATH="/app/.venv/bin:$PATH"
HEALTHCHECK CMD exit 1
"""


@pytest.fixture
def engine(server: Shop) -> Iterator[Shop]:
    if shutil.which("docker") is None:
        pytest.skip("Docker is missing")
    if reason := missing_image():
        pytest.skip(reason)
    made = run(["docker", "network", "create", "backend"], check=False).returncode == 0
    try:
        yield server
    finally:
        found = run(["docker", "ps", "-aq", "--filter", "label=arq-worker=shop"]).stdout
        run(["docker", "rm", "-f", *found.split(), "shop-redis"], check=False)
        run(["docker", "volume", "rm", "shop-redis"], check=False)
        if made:
            run(["docker", "network", "rm", "backend"], check=False)


@pytest.mark.timeout(900)
def test_a_new_version_replaces_the_worker_and_drains_it(engine: Shop) -> None:
    engine.copy()
    engine.write_tasks(TASKS)
    project = engine / "pyproject.toml"
    project.write_text(
        project.read_text().replace('    "httpx', '    "aiosqlite",\n    "httpx')
    )
    (engine / "Dockerfile.test").write_text(DOCKERFILE)
    build = ["docker", "build", "-q", "-f", "Dockerfile.test"]
    for tag in ("shop-test:1", "shop-test:2"):
        run([*build, "-t", tag, "."], cwd=engine.root, env=builder())
    run(
        [*build, "-t", "shop-test:broken", "--build-arg", "x=1", "."],
        cwd=engine.root,
        env=builder(),
    )
    # Debian's server, unlike Redis' own image, is in protected mode
    script = engine / "deploy/linux-server/deploy-worker.sh"
    script.write_text(
        script.read_text().replace(
            "--appendonly yes", "--appendonly yes --protected-mode no"
        )
    )

    def deploy(image: str, **env: str) -> str:
        database = {"DB_URL": "sqlite+aiosqlite:////tmp/x.db"}
        done = run([script, image], env={**database, **env}, check=False)
        return done.stdout + done.stderr

    def workers() -> dict[str, str]:
        """Image by container."""
        form = ["--format", "{{.ID}} {{.Image}}"]
        found = run(["docker", "ps", *form, "--filter", "label=arq-worker=shop"]).stdout
        return dict(line.split() for line in found.splitlines())

    def python(container: str, code: str) -> str:
        script = (
            "import asyncio, json\nfrom core.arq import *\n"
            f"async def main():\n    {code}\n"
            "print(json.dumps(asyncio.run(main()), default=str))"
        )
        return json.loads(
            run(["docker", "exec", container, "python", "-c", script]).stdout
        )

    assert "Running WorkerSettings of shop-test:1" in deploy("shop-test:1")
    [first] = workers()
    job = python(first, "return (await enqueue('sleep', 6)).job_id")
    time.sleep(1)
    assert "Running WorkerSettings of shop-test:2" in deploy("shop-test:2")
    [(second, image)] = workers().items()
    assert image == "shop-test:2"
    status = python(second, f"return await get_job_status({job!r})")
    assert status["success"] is True and status["job_try"] == 1  # drained, not cut off
    assert first.startswith(status["result"])

    # one that does not come up leaves the old one running
    output = deploy(
        "shop-test:broken", ARQ_REDIS_URL="redis://nowhere:1/1", HEALTH_TIMEOUT="3"
    )
    assert "not healthy" in output
    wait_for(lambda: list(workers()) == [second], 10)
