"""arq's own tests, from its source distribution, on the generated worker.

They import arq.worker.Worker, which a plugin replaces before they are loaded. Each
difference from arq is meant, and listed here with its reason.
"""

import shutil
import textwrap
import tomllib
import xml.etree.ElementTree
from pathlib import Path

import pytest
from support import ARQ, CACHE, OwnRedis, Shop, environment, locked, run

# arq's tests need the event loop fixture that pytest-asyncio has removed since
REQUIREMENTS = [
    "dirty-equals",
    "msgpack",
    "pytest<9",
    "pytest-asyncio==0.23.6",
    "pytest-mock",
    "pytest-timeout",
    "pytz",
    "tzdata",
    "watchfiles",
]

OWN_KEYS = "there are keys of our own, of the worker and its last claim"
DIFFERENCES = {
    "test_worker.test_set_health_check_key": OWN_KEYS,
    "test_worker.test_remain_keys": OWN_KEYS,
    "test_worker.test_remain_keys_no_results": OWN_KEYS,
    "test_worker.test_remain_keys_keep_results_forever_in_function": OWN_KEYS,
    "test_worker.test_remain_keys_keep_results_forever": OWN_KEYS,
}

PLUGIN = """
    import os
    import sys
    import types

    import arq.worker
    import core.arq_worker
    from core.arq_worker import no_retry

    assert arq.worker.Worker is core.arq_worker.Worker


    class RedisContainer:
        '''Stands in for testcontainers: the server runs already.'''

        port = {port}

        def __init__(self, image):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *args):
            pass

        def get_container_host_ip(self):
            return "127.0.0.1"

        def get_exposed_port(self, port):
            return port


    containers = types.ModuleType("testcontainers.redis")
    containers.RedisContainer = RedisContainer
    sys.modules["testcontainers"] = types.ModuleType("testcontainers")
    sys.modules["testcontainers.redis"] = containers


    class FailsAtOnce(core.arq_worker.Worker):
        '''As arq does: a plain exception is not tried again.'''

        def __init__(self, functions=(), **kwargs):
            functions = [arq.worker.func(function) for function in functions]
            for function in functions:
                if hasattr(function.coroutine, "__dict__"):
                    no_retry(Exception)(function.coroutine)
            super().__init__(functions, **kwargs)


    arq.Worker = arq.worker.Worker = FailsAtOnce


    def pytest_runtest_setup():
        os.environ.pop("WATCHFILES_CHANGES", None)  # left by test_run_watch
"""


@pytest.fixture(scope="session")
def arq_tests(project_env: Path) -> Path:
    """The source distribution of the arq that the project has, in .cache/."""
    code = "from arq.version import VERSION; print(VERSION)"
    version = run([project_env / "bin/python", "-c", code]).stdout.strip()
    sdist = CACHE / f"arq-{version}"
    with locked(CACHE / f"arq-{version}.lock"):
        if not sdist.exists():
            pip = ["uvx", "pip", "download", "--no-deps", "--no-binary", ":all:"]
            done = run([*pip, "-d", CACHE, f"arq=={version}"], check=False)
            if done.returncode:
                reason = done.stderr.splitlines()[-1]
                pytest.skip(f"no source of arq {version}: {reason}")
            run(["tar", "-xzf", f"{sdist}.tar.gz", "-C", CACHE])
    return sdist


@pytest.mark.slow
def test_arqs_own_tests(
    shop_with_queue: Shop,
    arq_tests: Path,
    own_redis: OwnRedis,
    tmp_path: Path,
) -> None:
    project = tomllib.loads((shop_with_queue / "pyproject.toml").read_text())["project"]
    env = environment("arq-suite", [*project["dependencies"], ARQ, *REQUIREMENTS])
    suite = tmp_path / "suite"
    shutil.copytree(arq_tests / "tests", suite / "tests")
    (suite / "generated.py").write_text(
        textwrap.dedent(PLUGIN.format(port=own_redis.port))
    )
    options = ["-p", "generated", "--junitxml", "report.xml", "--timeout", "8"]
    # The engine claims for itself, start_jobs() is not how a job begins: these would
    # wait for ever, and asyncio may swallow what their time-out raises.
    for name in ("test_multi_exec", "test_job_retry_race_condition"):
        options += ["--deselect", f"tests/test_worker.py::{name}"]
    # of arq's client alone, and it allows Redis one millisecond to answer
    options += ["--deselect", "tests/test_worker.py::test_default_job_expiry"]
    # "short" parses whole files, in which a Python 3.11 that collects garbage meanwhile
    # may fail: SystemError, "AST constructor recursion depth mismatch"
    options += ["-o", "asyncio_mode=auto", "-q", "--tb", "native"]
    done = run(
        [env / "bin/python", "-m", "pytest", *options],
        cwd=suite,
        check=False,
        env={
            **shop_with_queue.settings(own_redis.url),
            "PYTHONPATH": f"{suite}:{shop_with_queue.root}",
        },
    )
    report = suite / "report.xml"
    assert report.exists(), done.stdout + done.stderr
    cases = list(xml.etree.ElementTree.parse(report).iter("testcase"))
    assert len(cases) > 150
    failed = {
        f"{case.get('classname', '').removeprefix('tests.')}.{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    assert failed == set(DIFFERENCES), done.stdout[-20_000:]
