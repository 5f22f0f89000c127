"""Is the worker alive, is it ready? In a few milliseconds, for a container's probes.

    python core/arq_runtime/worker/alive.py          # its event loop answers
    python core/arq_runtime/worker/alive.py --ready  # and Redis answered it lately

Exits with 0 where each worker of this host, or container, is; else with 1 and a line.
A worker sets the times of a file every two seconds: of its last change, when the event
loop answered, and of the last access to it, when Redis did. This looks at them, without
importing more than it needs. The files are in a directory of TMPDIR, under the workers'
process ids.
"""

import os
import sys
import time

#: Seconds without a sign of life after which a worker is taken for dead.
SILENCE_S = 30


def write(redis_silence_s: float) -> None:
    """Say that the event loop answers, and for how long Redis has not.

    Raises:
        OSError: There is no room, or it may not.
    """
    now, path = time.time(), _own_file()
    times = now - redis_silence_s, now
    try:
        os.utime(path, times)
    except FileNotFoundError:
        os.makedirs(_directory(), mode=0o700, exist_ok=True)
        open(path, "w").close()
        os.utime(path, times)


def delete() -> None:
    """The worker ends."""
    if os.path.exists(_own_file()):
        os.unlink(_own_file())


def _own_file() -> str:
    return os.path.join(_directory(), str(os.getpid()))


def _directory() -> str:
    root = os.environ.get("TMPDIR") or "/tmp"
    return os.path.join(root, f"arq-workers-{os.getuid()}")


def problem(*, is_ready: bool) -> str:
    """What is wrong with the workers of this host, in one line; empty if nothing."""
    now, found = time.time(), 0
    directory = _directory()
    names = os.listdir(directory) if os.path.isdir(directory) else []
    for pid in filter(str.isdigit, names):
        path = os.path.join(directory, pid)
        if not os.path.exists(f"/proc/{pid}") and os.path.isdir("/proc"):
            os.unlink(path)  # it was killed
            continue
        found += 1
        times = os.stat(path)
        silence = now - times.st_mtime
        if silence > SILENCE_S:
            return f"worker {pid} has given no sign of life for {silence:.0f} s"
        if is_ready and now - times.st_atime > SILENCE_S:
            return f"worker {pid} has not reached Redis for {SILENCE_S} s, or not yet"
    return "" if found else "no worker runs here"


if __name__ == "__main__":
    if text := problem(is_ready="--ready" in sys.argv[1:]):
        sys.exit(text)
