"""The runtime runs from a zip file, its Lua scripts included."""

import subprocess
import sys
import zipfile
from pathlib import Path

import arq_runtime
import pytest
from kit import App
from noting import FILE, Notes

CODE = """
import asyncio
import sys

from arq_runtime import scripts
from kit import App
from noting import job

assert ".zip" in scripts.__file__


async def main():
    app = App(sys.argv[1])
    await app.enqueue(job, "a", 0.0, _job_id="a")
    await app.burst(job)
    await app.close()


asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_job_is_sent_and_run(app: App, notes: Notes, tmp_path: Path) -> None:
    folder = Path(arq_runtime.__path__[0])
    zipped = tmp_path / "runtime.zip"
    with zipfile.ZipFile(zipped, "w") as file:
        for path in folder.rglob("*"):
            if path.suffix in (".py", ".lua"):
                file.write(path, path.relative_to(folder.parent))
    beside = [path for path in sys.path if path and Path(path) != folder.parent]
    done = subprocess.run(
        [sys.executable, "-c", CODE, app.url],
        env={"PYTHONPATH": ":".join([str(zipped), *beside])} | {FILE: str(notes.file)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    stored = await app.stored("a")
    assert stored and stored["r"] == "a"
