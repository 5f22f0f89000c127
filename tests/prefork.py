"""A Python that has imported what takes long, and forks for each command.

Most of the tests' time would go into the same imports, once for each process. What runs
is a process like any other: its arguments, environment, directory and end are its own.
The processes of one test run share it.
"""

from __future__ import annotations

import atexit
import gc
import hashlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

MAX_REQUEST = 200_000
"""Bytes."""


class Prefork:
    """The Python of one environment."""

    def __init__(self, python: Path, modules: Sequence[str]) -> None:
        """Start it, unless another process of the test run has.

        Args:
            python: The interpreter.
            modules: To be imported in advance, those that it has.
        """
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID", os.getpid())
        key = hashlib.sha256(repr((run, python, modules)).encode()).hexdigest()
        address = f"\0paxx-arq-{key}"  # no file, only a name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            try:
                listener.bind(address)
            except OSError:
                pass  # it is there
            else:
                listener.listen()
                self._process = subprocess.Popen(
                    [python, "-u", __file__, str(listener.fileno()), *modules],
                    pass_fds=[listener.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            self._connect(address)

    def _connect(self, address: str) -> None:
        for _ in range(100):  # whoever has the name is about to listen
            with suppress(ConnectionRefusedError):
                return self._socket.connect(address)
            time.sleep(0.01)
        raise ConnectionRefusedError(address)

    def start(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: dict[str, str],
        stdout: int,
        stderr: int,
    ) -> Process:
        """Start a script, or `python` with -c or -m.

        Args:
            stdout: A file descriptor, as is stderr.
        """
        request = json.dumps({"command": command, "cwd": str(cwd), "env": env})
        status, theirs = os.pipe()
        socket.send_fds(self._socket, [request.encode()], [stdout, stderr, theirs])
        os.close(theirs)
        return Process(command, status)


class Process:
    """What was started: as subprocess.Popen has it."""

    def __init__(self, args: Sequence[str], status: int) -> None:
        self.args = args
        self.returncode: int | None = None
        self._status = os.fdopen(status)
        self.pid = int(self._status.readline())

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, negative for the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: It runs still, after so many seconds.
        """
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def serve(listener: socket.socket) -> list[str]:
    """Fork for each request; returns its command, in the new process."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sockets = [listener]
    while True:
        [server, *_], _, _ = select.select(sockets, [], [])
        if server is listener:
            sockets.append(listener.accept()[0])
            continue
        data, fds, _, _ = socket.recv_fds(server, MAX_REQUEST, 3)
        if not data:  # that process has no more tests
            sockets.remove(server)
            server.close()
            if sockets == [listener]:
                os._exit(0)
            continue
        if os.fork():
            for fd in fds:
                os.close(fd)
            continue
        for it in sockets:
            it.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        stdout, stderr, status = fds
        if child := os.fork():  # who waits for it is known now
            os.write(status, f"{child}\n".encode())
            _, end = os.waitpid(child, 0)
            os.write(status, f"{os.waitstatus_to_exitcode(end)}\n".encode())
            os._exit(0)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        for fd in fds:
            os.close(fd)
        request = json.loads(data)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        if plumbum := sys.modules.get("plumbum"):  # it keeps a copy, Copier asks that
            plumbum.local.env.clear()
            plumbum.local.env.update(os.environ)
        command: list[str] = request["command"]
        return command


def become(command: Sequence[str]) -> None:
    """Do what the command line would."""
    program, *sys.argv = command
    path = os.environ.get("PYTHONPATH")
    sys.path[:1] = ["", *(path.split(os.pathsep) if path else [])]
    if Path(program).name != "python":
        sys.path[0] = str(Path(program).parent)
        sys.argv.insert(0, program)
        runpy.run_path(program, run_name="__main__")
    elif sys.argv[0] == "-m":
        sys.path[0] = str(Path.cwd())
        del sys.argv[0]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        code = sys.argv.pop(1)
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(code, "<string>", "exec"), vars(main))


def end(code: int, imported: set[types.ModuleType]) -> NoReturn:
    """Exit as Python does, but take apart the project's own modules alone.

    To do so with those imported in advance takes longer than most commands.
    """
    threading._shutdown()
    atexit._run_exitfuncs()
    for module in {*sys.modules.values()} - imported:
        file = getattr(module, "__file__", None) or ""
        if module.__name__ == "__main__" or file.startswith(f"{Path.cwd()}/"):
            vars(module).clear()
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _, fd, *modules = sys.argv
    for module in modules:
        with suppress(ImportError):
            __import__(module)
    gc.freeze()  # what is there stays, and is not looked through each time
    imported = {*sys.modules.values()}
    try:
        become(serve(socket.socket(fileno=int(fd))))
    except SystemExit as exc:
        if not isinstance(exc.code, int | None):
            raise
        end(exc.code or 0, imported)
    end(0, imported)
