"""Workers in processes of their own, for what only a process can show.

That is: kill -9, SIGSTOP, signals, the command line, memory, and what is imported. All
else runs in the test's own event loop, see kit.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kit import until
from support import TEMPLATE, start

#: Where a worker's process finds the runtime, kit.py and the modules with its tasks.
PATHS = (TEMPLATE / "template/{{ package }}", Path(__file__).parent)
#: Of the tests' own environment.
PYTHON = Path(sys.executable).with_name("python")


class Processes:
    """Worker processes of one test.

    Args:
        url: Of the Redis database.
        directory: For their logs.
    """

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.workers: list[WorkerProcess] = []

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()

    async def start(
        self,
        *options: str,
        settings: str = "fault_tasks.WorkerSettings",
        url: str = "",
        ready: bool = True,
        cwd: Path | None = None,
        paths: Iterable[Path] = (),
        env: dict[str, str] | None = None,
        constants: dict[str, Any] | None = None,
        command: Iterable[str | Path] = (),
        **attributes: Any,
    ) -> WorkerProcess:
        """Start `python -m arq <settings>`; it takes jobs then, unless not ready.

        Args:
            options: Of arq's command line.
            settings: A module of tests/runtime, and its worker settings. The module
                finds the URL in ARQ_REDIS_URL, the attributes in OPTIONS, and the constants
                in CONSTANTS, as JSON.
            url: Of another Redis.
            ready: Whether to wait until it takes jobs.
            cwd: Where to start it, where Python looks for modules first.
            paths: Where Python looks for modules besides.
            env: More environment variables.
            constants: Of the runtime, to be set, by their full names: shorter waits, say.
            command: Instead of `python -m arq <settings>`.
            attributes: Of the worker settings; JSON.
        """
        worker = WorkerProcess(
            [*(command or (PYTHON, "-m", "arq", settings)), *options],
            cwd or PATHS[1],
            self.directory / f"worker-{len(self.workers)}.log",
            {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, (*paths, *PATHS))),
                "ARQ_REDIS_URL": url or self.url,
                "OPTIONS": json.dumps(attributes),
                "CONSTANTS": json.dumps(constants or {}),
                **(env or {}),
            },
        )
        self.workers.append(worker)
        if ready:
            await worker.wait_for("redis_version=")
        return worker


class WorkerProcess:
    """A worker process and what it prints."""

    def __init__(
        self,
        command: Iterable[str | Path],
        cwd: Path,
        path: Path,
        env: dict[str, str],
    ) -> None:
        self.path = path
        with path.open("wb") as file:
            self.process = start(
                [*command],
                cwd=cwd,
                env={**env, "PYTHONUNBUFFERED": "1"},
                stdout=file,
                stderr=file,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def text(self) -> str:
        """All that it has printed so far."""
        return self.path.read_text(errors="replace")

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    async def wait_for(self, text: str, timeout: float = 60, times: int = 1) -> None:
        """Wait until it has printed this text so often.

        Raises:
            AssertionError: It has not in time, or has ended; shows what it has printed.
        """
        try:
            await until(
                lambda: self.text.count(text) >= times or not self.lives, timeout
            )
        except AssertionError:
            raise AssertionError(f"no {text!r} in\n{self.text}") from None
        assert self.text.count(text) >= times, self.text

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as the kernel does when there is no memory."""
        if self.lives:
            self.process.kill()
        self.process.wait()

    async def exit_code(self, timeout: float = 60) -> int:
        """Wait for it to end by itself."""
        try:
            code: int = await asyncio.to_thread(self.process.wait, timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs\n{self.text}") from None
        return code

    async def stop(
        self, number: signal.Signals = signal.SIGTERM, timeout: float = 60
    ) -> int:
        """Stop it; its exit code."""
        self.send(number)
        return await self.exit_code(timeout)
