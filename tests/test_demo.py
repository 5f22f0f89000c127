"""The demo, as a stranger runs it."""

import os
import subprocess
from pathlib import Path

import pytest
from support import TEMPLATE, free_port, run


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    """From nothing to a job that ran, failed, was tried again and succeeded."""
    pyenv = [str(path) for path in Path.home().glob(".pyenv/versions/3.12*/bin")]
    env = {"PATH": ":".join([*pyenv, os.environ["PATH"]])}
    python = ["uv", "python", "find", "--no-project", "3.12"]
    if run(python, check=False, env=env).returncode:
        pytest.skip("there is no Python 3.12, which Paxx asks for")
    done = subprocess.run(
        ["uv", "run", "demo.py", tmp_path],
        cwd=TEMPLATE,
        env={**os.environ, **env, "DEMO_PORT": str(free_port())},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    seen = [line.strip() for line in done.stdout.splitlines() if line[:2] == "  "]
    running = [line for line in seen if line == "running"]
    assert len(running) == 2
    assert "failed once, tried again in 3 s" in seen
    assert "result: 'book delivered', try 2" in seen
    assert f"The project is {tmp_path / 'shop'}" in done.stdout
    alive = run(["ps", "-eo", "args"]).stdout
    assert str(tmp_path / "shop/.venv") not in alive  # it ended what it had started
