"""Several processes of one worker: a parent starts them, watches them, stops them."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

logger = logging.getLogger("arq.worker")

#: The environment variable that numbers such a process, from 0.
NUMBER = "ARQ_WORKER_NUMBER"
#: How soon a process may end with an error, in seconds: then all do, since a mistake in
#: the settings or in the code, say, ends the next one, too.
FAILS_SOON_S = 10
#: How long after its start a process is replaced at the earliest, in seconds.
PAUSE_S = 2


def number() -> int:
    """Which of several processes this is, from 0."""
    return int(os.environ.get(NUMBER, 0))


def is_orphan(parent: int) -> bool:
    """Is this a process of several, and is its parent gone?"""
    return NUMBER in os.environ and os.getppid() != parent


class Processes:
    """The parent. It runs no jobs.

    Args:
        count: How many processes.
        command: What each of them runs.
    """

    def __init__(self, count: int, command: Sequence[str]) -> None:
        self._command = command
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._started: dict[int, float] = dict.fromkeys(range(count), 0.0)
        self._code = 0
        self._is_stopping = False
        self._signum: int = signal.SIGTERM

    def run(self) -> int:
        """Start them, and replace those that end, until stopped.

        Returns:
            The exit code: 0, unless one has ended with an error at the start or stop.
        """
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(signum, self._forward)
        begun = time.monotonic()
        while self._running or not self._is_stopping:
            for number, started in self._started.items():
                if not self._is_stopping and number not in self._running:
                    if time.monotonic() - started > PAUSE_S:
                        self._start(number)
                elif number in self._running:
                    self._look_at(number, time.monotonic() - begun < FAILS_SOON_S)
            time.sleep(0.1)
        return self._code

    def _start(self, number: int) -> None:
        self._started[number] = time.monotonic()
        # A group of its own: Ctrl-C in a terminal would reach it twice, and the second
        # signal means not to wait for running jobs.
        self._running[number] = subprocess.Popen(
            self._command,
            env=os.environ | {NUMBER: str(number)},
            process_group=0,
        )
        if self._is_stopping:  # meanwhile
            self._running[number].send_signal(self._signum)

    def _look_at(self, number: int, is_new: bool) -> None:
        process = self._running[number]
        code = process.poll()
        if code is None:
            return
        del self._running[number]
        if self._is_stopping:
            if code != -self._signum:  # which may come before they handle it
                self._code = self._code or (code if code >= 0 else 128 - code)
        elif code > 0 and is_new:
            self._code = code
            self._forward(signal.SIGTERM)
        elif code:
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            logger.error("Process %d ended with %s: replaced", process.pid, how)

    def _forward(self, signum: int, _: Any = None) -> None:
        self._is_stopping, self._signum = True, signum
        for process in self._running.values():
            process.send_signal(signum)
