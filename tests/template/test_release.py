"""A release says what its own section of the changelog says."""

import subprocess
from pathlib import Path

import pytest
import yaml
from support import TEMPLATE

WORKFLOW = TEMPLATE / ".github/workflows/release.yml"
CHANGELOG = """\
# Changelog

## Unreleased

- not yet

## 1.10.0

- ten

## 1.1.0rc1 - 2026-01-01

- candidate

## 1.1.0

### Added

- final

## 1.10

- short ten

## 1.1

- short

## 1.0.0

"""


def notes(tag: str, directory: Path) -> str:
    """What the workflow's step makes of the changelog; empty when it fails."""
    steps = yaml.safe_load(WORKFLOW.read_text())["jobs"]["release"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert "CHANGELOG.md" in commands[0]  # before the suite
    (directory / "CHANGELOG.md").write_text(CHANGELOG)
    done = subprocess.run(
        ["bash", "-e", "-c", commands[0]],
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "GITHUB_REF_NAME": tag},
        capture_output=True,
        text=True,
    )
    assert (done.returncode == 0) == ("has no section" not in done.stdout)
    return "" if done.returncode else (directory / "notes.md").read_text().strip()


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("v1.1.0", "### Added\n\n- final"),
        ("v1.1.0rc1", "- candidate"),
        ("v1.10.0", "- ten"),
        ("v1.1", "- short"),
        ("v1.10", "- short ten"),
        ("v1.0.0", ""),
        ("v2.0.0", ""),
    ],
)
def test_exactly_its_own(tag: str, said: str, tmp_path: Path) -> None:
    assert notes(tag, tmp_path) == said
