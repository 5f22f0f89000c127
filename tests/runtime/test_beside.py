"""What projects run beside the queue, with the real packages, in their environment.

Each script in beside/ fails by itself.
"""

import os
import re
from pathlib import Path

import pytest
from processes import PATHS
from support import ARQ, environment, run

pytestmark = pytest.mark.slow

RUNTIME = [ARQ, "pydantic>=2.11"]


@pytest.fixture(scope="session")
def beside_env() -> Path:
    """An environment with what may be beside the queue."""
    return environment(
        "beside",
        [
            *RUNTIME,
            *("fastapi", "httpx2", "jinja2", "structlog", "opentelemetry-sdk"),
            *("opentelemetry-instrumentation-arq==0.50b1", "arq-prometheus==0.3.0"),
            *("fastapi-arq==0.3.0", "z4j-arq==1.13.0", "fakeredis[lua]>=2.40"),
            *("dishka>=1.10", "modern-di-arq>=4.1", "time-machine", "freezegun"),
            "worq-dashboard==0.5.2",  # asks for Python 3.12, but runs on 3.11
        ],
        seed=True,
    )


def run_script(env: Path, name: str, url: str, **more: str) -> str:
    """What a script of beside/ prints."""
    paths = os.pathsep.join(map(str, PATHS))
    done = run(
        [env / "bin/python", PATHS[1] / f"beside/{name}.py"],
        env={"ARQ_REDIS_URL": url, "PYTHONPATH": paths, **more},
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "name",
    ["dashboards", "prometheus", "other_ways", "injection", "travel", "instrumented"],
)
def test_beside(beside_env: Path, redis_url: str, name: str) -> None:
    run_script(beside_env, name, redis_url)


@pytest.mark.parametrize(
    ("name", "requirements", "version"),
    [
        ("oldest", ["redis==4.6.0"], r"4\."),
        (
            "newest",
            ["--override", str(PATHS[1].with_name("newest-redis.txt"))],
            r"([6-9]|\d\d)\.",
        ),
    ],
)
def test_other_versions_of_redis_py(
    redis_url: str, name: str, requirements: list[str], version: str
) -> None:
    env = environment(f"beside-redis-{name}", [*RUNTIME, *requirements])
    strict = {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}
    output = run_script(env, "redis_py", redis_url, **strict)
    assert re.match(f"redis-py {version}", output)
    assert "Warning" not in output and "Traceback" not in output
