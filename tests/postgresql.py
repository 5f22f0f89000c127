"""A PostgreSQL of a test's own."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import free_port


@contextmanager
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL of the test's own; skips it where none is installed."""
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
    try:
        if user:
            shutil.chown(directory, user)
        options = f"-h 127.0.0.1 -p {port} -k {directory} -c fsync=off"
        cluster = f"--pgdata={directory}/data"
        for command in (
            [found, cluster, "--auth=trust", "--username=shop", "--no-sync"],
            [
                *(Path(found).with_name("pg_ctl"), cluster, "--wait"),
                *(f"--log={directory}/log", "-o", options, "start"),
            ],
        ):
            subprocess.run(
                command,
                user=user,
                cwd=directory,
                check=True,
                timeout=60,
                stdout=subprocess.DEVNULL,
            )
        yield f"postgresql+asyncpg://shop@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [Path(found).with_name("pg_ctl"), cluster, "--mode=immediate", "stop"],
            user=user,
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )
        shutil.rmtree(directory)
