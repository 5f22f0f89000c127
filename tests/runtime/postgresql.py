"""A PostgreSQL of a test's own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support import free_port


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL of the test's own; skips it where none is installed."""
    pytest.importorskip("asyncpg")
    # Debian has the programs beside each other, and not on the path
    found = shutil.which("initdb") or next(
        map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None
    )
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    # it refuses to run as root, and root's directories are closed to others
    user = "postgres" if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp())
    port = free_port()
    pg_ctl = [Path(found).with_name("pg_ctl"), f"--pgdata={directory}/data"]
    options = f"-h 127.0.0.1 -p {port} -k {directory} -c fsync=off"
    cluster = [found, pg_ctl[1], "--auth=trust", "--username=shop", "--no-sync"]
    begin = [*pg_ctl, "--wait", f"--log={directory}/log", "-o", options, "start"]

    def run(command: list[Any], *, check: bool) -> None:
        subprocess.run(
            command,
            user=user,
            cwd=directory,
            check=check,
            timeout=60,
            stdout=subprocess.DEVNULL,
        )

    try:
        if user:
            shutil.chown(directory, user)
        run(cluster, check=True)
        run(begin, check=True)
        yield f"postgresql+asyncpg://shop@127.0.0.1:{port}/postgres"
    finally:
        run([*pg_ctl, "--mode=immediate", "stop"], check=False)
        shutil.rmtree(directory)
