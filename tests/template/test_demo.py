"""The demo, as a stranger runs it."""

import base64
import os
import pty
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support import QUEUE, TEMPLATE, run, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    """The demo has ended what it had started."""
    yield
    assert str(tmp_path / "shop/.venv") not in run(["ps", "-eo", "args"]).stdout


@pytest.fixture
def this_python_only(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine without another Python, nor a way to get one."""
    home = tmp_path_factory.mktemp("home")
    uv = os.environ["UV"]
    cache = run([uv, "cache", "dir"]).stdout.strip()
    for name, target in {"uv": uv, "python3": Path(sys.executable).resolve()}.items():
        (home / name).symlink_to(target)
    kept = {name: value for name, value in os.environ.items() if "CERT" in name}
    path = os.pathsep.join([str(home), *os.defpath.split(os.pathsep)])
    never = {"UV_PYTHON_DOWNLOADS": "never", "UV_CACHE_DIR": cache}
    return {**kept, **never, "HOME": str(home), "PATH": path}


@pytest.mark.usefixtures("nothing_is_left")
def test_the_demo(tmp_path: Path, this_python_only: dict[str, str]) -> None:
    """From nothing to a job that ran, failed, was tried again and succeeded."""
    done = subprocess.run(
        ["uv", "run", "demo.py", tmp_path],
        cwd=TEMPLATE,
        env=this_python_only,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = [line.strip() for line in done.stdout.splitlines() if line[:2] == "  "]
    running = [line for line in seen if line == "running"]
    assert len(running) == 2
    assert "failed once, tried again in 3 s" in seen
    assert "result: 'book delivered', try 2" in seen
    assert f"The project is {tmp_path / 'shop'}" in done.stdout


@pytest.mark.usefixtures("nothing_is_left")
def test_the_demo_in_a_terminal(tmp_path: Path) -> None:
    """It leaves the jobs page open, with jobs of each kind, until Ctrl-C."""
    shown, terminal = pty.openpty()
    process = subprocess.Popen(
        # without what CI asks of the tests' own packages
        ["env", "-u", "UV_RESOLUTION", "uv", "run", "demo.py", tmp_path],
        cwd=TEMPLATE,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    output = ""
    while "Ctrl-C" not in output:
        output += os.read(shown, 4096).decode()
    [page] = re.findall(r"http://\S+/arq/", output)
    [password] = re.findall(r"password (\S+)", output)

    def jobs(state: str) -> str:
        url = f"{page}api/jobs?queue={QUEUE}&state={state}"
        credentials = base64.b64encode(f"me:{password}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}", "X-Arq-Page": "1"}
        request = urllib.request.Request(url, headers=headers)
        return urllib.request.urlopen(request, timeout=60).read().decode()

    wait_for(lambda: "packing parcel-1" in jobs("in_progress"), 120)
    wait_for(lambda: "nobody at home" in jobs("deferred"), 120)
    wait_for(lambda: "parcel-1 is too heavy" in jobs("failed"), 120)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    with suppress(OSError):  # nothing has the terminal open any longer
        while part := os.read(shown, 4096):
            output += part.decode()
    assert process.wait(60) == 0, output
    assert "Traceback" not in output
