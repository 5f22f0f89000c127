"""A real Docker engine for the tests that run containers."""

import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import run

IMAGES = [
    "python:3.12-slim",
    "redis:7-alpine",
    "postgres:16-alpine",
    "ghcr.io/astral-sh/uv:latest",
]


def has_compose() -> bool:
    if shutil.which("docker") is None:
        return False
    done = run(["docker", "compose", "version", "--short"], check=False)
    return done.returncode == 0 and done.stdout.lstrip("v").startswith(("2.", "5."))


def missing() -> str:
    """Why containers cannot be run here; empty when they can."""
    if shutil.which("docker") is None:
        return "Docker is missing"
    if run(["docker", "info"], check=False).returncode:
        return "no Docker engine is running"
    for image in IMAGES:
        found = run(["docker", "image", "inspect", image], check=False).returncode == 0
        if not found and run(["docker", "pull", "-q", image], check=False).returncode:
            return f"no image {image}, see tests/docker-images.sh"
    return ""


def builder() -> dict[str, str]:
    """The classic builder where there is no other: it takes images of no registry."""
    found = run(["docker", "buildx", "version"], check=False).returncode == 0
    return {} if found else {"DOCKER_BUILDKIT": "0"}


@contextmanager
def engine(dockerfile: Path) -> Iterator[None]:
    """The engine, for a test that builds this file; no image of that is left behind.

    Raises:
        pytest.skip.Exception: There is none.
    """
    if reason := missing():
        pytest.skip(reason)
    label = f"paxx-arq-test={uuid.uuid4()}"
    stages = re.sub(
        r"^FROM .*", rf"\g<0>\nLABEL {label}", dockerfile.read_text(), flags=re.M
    )
    dockerfile.write_text(stages)
    try:
        yield
    finally:
        ours = ["--filter", f"label={label}"]
        while images := run(["docker", "images", "-aq", *ours]).stdout.split():
            run(["docker", "rmi", "-f", *images], check=False)
            left = run(["docker", "images", "-aq", *ours]).stdout.split()
            assert len(left) < len(images)  # those with children go after them
