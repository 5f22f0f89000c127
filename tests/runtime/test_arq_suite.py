"""arq's own tests, from its source distribution, on this worker.

Each difference from arq is meant, and listed here with its reason.
"""

import os
import shutil
import xml.etree.ElementTree
from pathlib import Path

import pytest
from arq.version import VERSION
from processes import PATHS
from support import CACHE, OwnRedis, environment, locked, run

# arq's tests need the event loop fixture that pytest-asyncio has removed since
REQUIREMENTS = [
    f"arq=={VERSION}",
    "dirty-equals",
    "msgpack",
    "pydantic>=2.11",
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


@pytest.fixture(scope="session")
def arq_tests() -> Path:
    """The source distribution of the arq that is installed, in .cache/."""
    sdist = CACHE / f"arq-{VERSION}"
    with locked(CACHE / f"arq-{VERSION}.lock"):
        if not sdist.exists():
            pip = ["uvx", "pip", "download", "--no-deps", "--no-binary", ":all:"]
            done = run([*pip, "-d", CACHE, f"arq=={VERSION}"], check=False)
            if done.returncode:
                reason = done.stderr.splitlines()[-1]
                pytest.skip(f"no source of arq {VERSION}: {reason}")
            run(["tar", "-xzf", f"{sdist}.tar.gz", "-C", CACHE])
    return sdist


@pytest.mark.slow
def test_arqs_own_tests(arq_tests: Path, own_redis: OwnRedis, tmp_path: Path) -> None:
    env = environment("arq-suite", REQUIREMENTS)
    suite = tmp_path / "suite"
    shutil.copytree(arq_tests / "tests", suite / "tests")
    options = ["-p", "arq_suite", "--junitxml", "report.xml", "--timeout", "8"]
    # This worker claims for itself, start_jobs() is not how a job begins: these would
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
            "ARQ_SUITE_PORT": str(own_redis.port),
            "PYTHONPATH": os.pathsep.join(map(str, (suite, *PATHS))),
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
