"""deploy/linux-server: the worker is started, replaced and drained with the app."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import builder, engine
from support import TEMPLATE, Shop, run, wait_for

pytestmark = pytest.mark.slow

STUBS = TEMPLATE / "tests/stubs"


@pytest.fixture
def server(paxx_shop: Callable[..., Shop]) -> Shop:
    return paxx_shop("deploy add linux-server")


def test_the_deploy_scripts_get_the_worker(deployed: Shop, tmp_path: Path) -> None:
    server = deployed.copy_to(tmp_path / "shop")
    for name in ("worker.sh", ".sh", "-init.sh", "-purge.sh"):
        name = "deploy" + name.replace("worker", "-worker")
        run(["bash", "-n", server / "deploy/linux-server" / name])
    diff = server.git("diff", "-U0", "--diff-filter=M", "HEAD~", "deploy")
    lines = [
        line
        for line in diff.splitlines()
        if line[0] in "+-" and line[:2] not in ("++", "--")
    ]
    assert [line for line in lines if line.startswith("-")] == []
    assert '+source "$SCRIPT_DIR/deploy-worker.sh"' in lines
    assert '+    "${ARQ_ENV[@]}" \\' in lines
    assert "+deploy_worker" in lines
    assert "+    deploy/linux-server/deploy-worker.sh \\" in lines
    server.copy("--overwrite", commit=False)
    assert server.git("status", "--porcelain") == ""


def test_a_deploy_script_of_another_shape_is_left_alone(server: Shop) -> None:
    script = server / "deploy/linux-server/deploy.sh"
    script.write_text("#!/bin/bash\nkubectl apply -f .\n")
    server.commit()
    output = server.copy()
    assert script.read_text() == "#!/bin/bash\nkubectl apply -f .\n"
    assert "deploy/linux-server/deploy.sh: there is no single line with" in output
    assert 'source "$SCRIPT_DIR/deploy-worker.sh"' in output


def test_without_a_deployment_there_is_no_script(shop_with_queue: Shop) -> None:
    assert not (shop_with_queue / "deploy/linux-server").exists()


# --- The whole deploy.sh, with a stand-in for Docker ------------------------------------


class Server:
    """A server on which version 1 runs, as the blue one."""

    def __init__(self, scripts: Path, root: Path) -> None:
        self.opt = root / "opt"
        self.state = root / "docker"
        self.first = root / "first"
        shutil.copytree(scripts, self.opt)
        (self.opt / ".env").write_text(
            "IMAGE=registry/shop:latest\nARQ_MAX_JOBS=50\n"
            "DATABASE_URL='postgresql://db/a b'\n"
        )
        (self.state / "containers").mkdir(parents=True)
        self.deploy("1")
        assert self.running() == {"shop-blue", "shop-WorkerSettings-blue"}
        shutil.copytree(self.state, self.first)

    def reset(self) -> None:
        shutil.rmtree(self.state)
        shutil.copytree(self.first, self.state)
        (self.state / "calls").write_text("")

    def start(self, version: str, **stub: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *("bash", "-c", 'echo $$ >"$STUB/pid"; exec "$@"', "-"),
                *("bash", str(self.opt / "deploy.sh"), version),
            ],
            env={
                **{"PATH": f"{STUBS}:{os.environ['PATH']}", "HEALTH_TIMEOUT": "0"},
                **{"STUB": str(self.state)},
                **stub,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def deploy(self, version: str, **stub: str) -> tuple[int, str]:
        process = self.start(version, **stub)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    def calls(self) -> list[str]:
        return (self.state / "calls").read_text().splitlines()

    def running(self) -> set[str]:
        """The containers that run, without Redis."""
        found = {path.stem for path in (self.state / "containers").glob("*.running")}
        return found - {"shop-redis"}

    def versions(self) -> set[str]:
        """Of all containers that run."""
        return {
            argument.removeprefix("registry/shop:")
            for container in self.running()
            for argument in self.arguments(container)
            if argument.startswith("registry/shop:")
        }

    def arguments(self, container: str) -> list[str]:
        return (self.state / "containers" / container).read_text().splitlines()


@pytest.fixture
def version_1(deployed: Shop, tmp_path: Path) -> Server:
    return Server(deployed / "deploy/linux-server", tmp_path / "server")


BLUE = {"shop-blue", "shop-WorkerSettings-blue"}
GREEN = {"shop-green", "shop-WorkerSettings-green"}


def test_a_deploy_replaces_app_and_worker(version_1: Server) -> None:
    status, output = version_1.deploy("2")
    assert status == 0, output
    assert version_1.running() == GREEN
    worker = version_1.arguments("shop-WorkerSettings-green")
    assert worker[-3:] == ["registry/shop:2", "arq", "core.tasks.WorkerSettings"]
    for variable in (  # of the app: its own, and those of .env
        "DATABASE_URL=postgresql://db/a b",
        "APP_ENV=production",
        "ARQ_REDIS_URL=redis://shop-redis:6379/1",
        "ARQ_MAX_JOBS=50",
    ):
        assert f"--env={variable}" in worker


def test_variables_that_the_user_adds_reach_the_worker(version_1: Server) -> None:
    script = version_1.opt / "deploy.sh"
    line = '    -e "APP_ENV=${APP_ENV:-production}" \\\n'
    assert script.read_text().count(line) == 1
    script.write_text(
        script.read_text().replace(line, line + "    -e 'SECRET_KEY=a  \"b\" $c' \\\n")
    )
    assert version_1.deploy("2")[0] == 0
    worker = version_1.arguments("shop-WorkerSettings-green")
    assert '--env=SECRET_KEY=a  "b" $c' in worker


@pytest.mark.parametrize("what", ["STUB_FAIL", "STUB_SIGNAL"])
def test_however_it_ends_one_version_runs(version_1: Server, what: str) -> None:
    """Each call of Docker fails, or is where the deploy is interrupted."""
    version_1.reset()
    version_1.deploy("2")
    calls = version_1.calls()
    assert len(calls) > 15
    versions = set()
    for number, call in enumerate(calls, 1):
        version_1.reset()
        status, output = version_1.deploy("2", **{what: str(number)})
        where = f"at call {number}, {call}: {output}"
        assert version_1.running() in (BLUE, GREEN), where
        [version] = version_1.versions()
        assert version == ("2" if "Running WorkerSettings" in output else "1"), where
        assert status != 0 or version == "2", where
        versions.add(version)
        status, output = version_1.deploy("3")  # and the next one goes well
        assert status == 0, f"{where}\n{output}"
        assert version_1.running() in (BLUE, GREEN), where
        assert version_1.versions() == {"3"}, where
        left = {path.name for path in (version_1.state / "containers").iterdir()}
        assert len(left - {"shop-redis", "shop-redis.running"}) == 4, where
    assert versions == {"1", "2"}


@pytest.mark.parametrize("sick", sorted(GREEN))
def test_one_that_is_not_healthy_leaves_the_old_version(
    version_1: Server, sick: str
) -> None:
    status, output = version_1.deploy("2", STUB_SICK=sick)
    assert status != 0
    assert version_1.running() == BLUE
    assert "healthy" in output


def test_a_worker_that_keeps_ending_is_not_waited_for(version_1: Server) -> None:
    sick = {"STUB_SICK": min(GREEN), "STUB_RESTARTS": "3"}
    status, output = version_1.deploy("2", HEALTH_TIMEOUT="3600", **sick)
    assert status != 0 and "is not healthy after" in output
    assert version_1.running() == BLUE


def test_two_deploys_at_once_are_impossible(version_1: Server) -> None:
    version_1.reset()
    first = version_1.start("2", STUB_WAIT="1")
    wait_for(lambda: len(version_1.calls()) == 1, 10)
    status, output = version_1.deploy("3")
    assert status == 1 and "Another deploy of shop is running" in output
    (version_1.state / "go").touch()
    assert first.wait(30) == 0
    assert version_1.running() == GREEN
    assert len(version_1.calls()) > 10


def test_a_deploy_that_was_killed_does_not_block_the_next(version_1: Server) -> None:
    version_1.reset()
    first = version_1.start("2", STUB_WAIT="8")
    wait_for(lambda: len(version_1.calls()) == 8, 10)
    first.kill()
    first.wait(10)
    assert version_1.deploy("3")[0] == 1  # what it has started still runs
    (version_1.state / "go").touch()
    wait_for(lambda: version_1.deploy("3")[0] == 0, 10)
    assert version_1.running() in (BLUE, GREEN)


def test_the_purge_knows_the_worker_and_its_redis(version_1: Server) -> None:
    done = subprocess.run(
        ["bash", version_1.opt / "deploy-purge.sh"],
        env={"PATH": f"{STUBS}:{os.environ['PATH']}", "STUB": str(version_1.state)},
        input="y\nno\n",  # it scans, and is not confirmed
        capture_output=True,
        text=True,
    )
    if os.geteuid():
        assert "must be run as root" in done.stdout
        return
    assert "Confirmation failed" in done.stdout
    for line in (
        "docker stop shop-WorkerSettings-blue; docker rm -f shop-WorkerSettings-blue",
        "docker stop shop-redis; docker rm -f shop-redis",
        "docker volume rm shop-redis",
    ):
        assert line in done.stdout


# --- The same, with an engine -----------------------------------------------------------


SLEEP = """
    import asyncio
    import socket

    from core.arq_worker import BaseWorkerSettings


    async def sleep(ctx, seconds):
        await asyncio.sleep(seconds)
        return socket.gethostname()


    class WorkerSettings(BaseWorkerSettings):
        functions = [sleep]
"""


class RealServer:
    """A server of the real engine, for versions that are built here."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.scripts = shop / "deploy/linux-server"
        (self.scripts / ".env").write_text(
            "IMAGE=shop-test:latest\nHEALTH_TIMEOUT=400\nARQ_JOB_TIMEOUT=50\n"
            "DATABASE_URL=sqlite+aiosqlite:////tmp/shop.db\n"
        )
        # there is no registry to pull from; all else is Docker's
        docker = shop / "bin/docker"
        docker.parent.mkdir()
        docker.write_text(
            f'#!/bin/sh\n[ "$1" = pull ] || exec {shutil.which("docker")} "$@"\n'
        )
        docker.chmod(0o755)

    def build(self, version: str, dockerfile: str = "Dockerfile") -> None:
        command = ["docker", "build", "-q", "-t", f"shop-test:{version}"]
        run(
            [*command, "-f", dockerfile, "."],
            cwd=self.shop.root,
            env=builder(),
            timeout=600,
        )

    def deploy(self, version: str) -> tuple[int, str]:
        path = {"PATH": f"{self.shop / 'bin'}:{os.environ['PATH']}"}
        script = self.scripts / "deploy.sh"
        done = run(["bash", script, version], env=path, check=False, timeout=900)
        return done.returncode, done.stdout + done.stderr

    def containers(self) -> dict[str, str]:
        """The image of each that runs."""
        form = ["--format", "{{.Names}} {{.Image}}", "--filter", "name=shop-"]
        return dict(
            line.split() for line in run(["docker", "ps", *form]).stdout.splitlines()
        )

    def python(self, container: str, code: str) -> str:
        script = f"""
import asyncio
from core.arq import enqueue, get_job_status
async def main():
    {code}
print(asyncio.run(main()))
"""
        command = ["docker", "exec", container, "python", "-c", script]
        return run(command).stdout.strip().splitlines()[-1]


@pytest.fixture
def real_server(server: Shop) -> Iterator[RealServer]:
    with engine(server / "Dockerfile"):
        made = [
            name
            for name in ("backend", "traefik-public")
            if run(["docker", "network", "create", name], check=False).returncode == 0
        ]
        server.copy()
        server.write_tasks(SLEEP)
        project = server / "pyproject.toml"
        project.write_text(
            project.read_text().replace('    "httpx', '    "aiosqlite",\n    "httpx')
        )
        # Docker gives an app up after 40 s, which a busy machine takes to start it
        image = server / "Dockerfile"
        patient = image.read_text().replace("start-period=10s", "start-period=400s")
        assert "start-period=400s" in patient
        image.write_text(patient)
        try:
            yield RealServer(server)
        finally:
            found = run(["docker", "ps", "-aq", "--filter", "name=shop-"]).stdout
            run(["docker", "rm", "-f", *found.split()], check=False)
            run(["docker", "volume", "rm", "shop-redis"], check=False)
            for name in made:
                run(["docker", "network", "rm", name], check=False)


@pytest.mark.timeout(1500)
def test_a_new_version_replaces_the_old_one_in_containers(
    real_server: RealServer,
) -> None:
    real_server.build("1")
    status, output = real_server.deploy("1")
    assert status == 0, output
    redis = {"shop-redis": "redis:7-alpine"}
    assert real_server.containers() == redis | dict.fromkeys(BLUE, "shop-test:1")

    # a worker that does not come up leaves the old version, and only that
    broken = "RUN echo \"raise RuntimeError('broken')\" >> core/tasks.py"
    (real_server.shop / "Dockerfile.2").write_text(f"FROM shop-test:1\n{broken}\n")
    real_server.build("2", "Dockerfile.2")
    status, output = real_server.deploy("2")
    assert status != 0, output
    assert "RuntimeError: broken" in output, output
    assert real_server.containers() == redis | dict.fromkeys(BLUE, "shop-test:1")

    # the old worker finishes what it runs; the app's variables are the worker's
    run(["docker", "tag", "shop-test:1", "shop-test:3"])
    job = real_server.python("shop-blue", "return (await enqueue('sleep', 12)).job_id")
    time.sleep(1)
    first = run(["docker", "inspect", "-f", "{{.Config.Hostname}}", min(BLUE)])
    status, output = real_server.deploy("3")
    assert status == 0, output
    assert real_server.containers() == redis | dict.fromkeys(GREEN, "shop-test:3")
    code = f"s = await get_job_status({job!r})\n    return s['success'], s['job_try'], s['result']"
    host = first.stdout.strip()
    assert real_server.python("shop-green", code) == f"(True, 1, {host!r})"
    variables = run(["docker", "exec", "shop-WorkerSettings-green", "env"]).stdout
    assert "ARQ_JOB_TIMEOUT=50\n" in variables
