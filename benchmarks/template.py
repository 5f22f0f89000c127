"""`copier copy` and `copier update` against a plain template with the same files.

    uv run benchmarks/template.py

The plain template holds the rendered files as they are, and asks the same questions, with
the answers as defaults, but has no extension and no task: what Copier itself takes.
"""

import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support import copier, git, make_template, release  # noqa: E402

ROUNDS = 7


def project(directory: Path) -> Path:
    """The least that passes for a Paxx project."""
    (directory / "core").mkdir(parents=True)
    (directory / "settings.py").write_text(
        "from pydantic_settings import BaseSettings\n\n\n"
        "class Settings(BaseSettings):\n    debug: bool = False\n\n\n"
        "settings = Settings()\n"
    )
    (directory / "main.py").write_text(
        "from contextlib import asynccontextmanager\n\n"
        "from fastapi import FastAPI\n\n\n"
        "@asynccontextmanager\nasync def lifespan(app):\n    yield\n\n\n"
        "app = FastAPI(lifespan=lifespan)\n"
    )
    (directory / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    git(directory, "init", "-q")
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "project")
    return directory


def plain_template(template: Path, scratch: Path) -> Path:
    """The same files, rendered beforehand, and the same questions."""
    rendered = project(scratch / "rendered")
    copier("copy", "--trust", "--defaults", template, ".", cwd=rendered)
    answers_file = rendered / ".copier-answers.yml"
    answers = yaml.safe_load(answers_file.read_text())
    answers_file.unlink()
    plain = scratch / "plain"
    for name in git(rendered, "ls-files", "--others").splitlines():
        target = plain / "template" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(rendered / name, target)
    (plain / "template/{{ _copier_conf.answers_file }}.jinja").write_text(
        "{{ _copier_answers | to_nice_yaml }}"
    )
    questions = {
        name: {"type": type(answer).__name__, "default": answer}
        for name, answer in answers.items()
        if not name.startswith("_")
    }
    text = yaml.safe_dump({"_subdirectory": "template", **questions}, sort_keys=False)
    (plain / "copier.yml").write_text(text)
    git(plain, "init", "-q")
    release(plain, "v1.0.0")
    return plain


def seconds(template: Path, directory: Path) -> tuple[float, float]:
    """Wall time of a copy, and of an update to the next version."""
    target = project(directory)
    start = time.perf_counter()
    copier("copy", "--trust", "--defaults", "-r", "v1.0.0", template, ".", cwd=target)
    copied = time.perf_counter() - start
    git(target, "add", "-A")
    git(target, "commit", "-qm", "copy")
    start = time.perf_counter()
    copier("update", "--trust", "--defaults", cwd=target)
    return copied, time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "template").mkdir()
        ours = make_template(scratch / "template")
        plain = plain_template(ours, scratch)
        for template in (ours, plain):
            path = next((template / "template").glob("*/arq.py*"))
            path.write_text(path.read_text() + "# changed\n")
            release(template, "v2.0.0")
        times: dict[str, list[tuple[float, float]]] = {"plain": [], "paxx-arq": []}
        for number in range(ROUNDS):
            times["plain"].append(seconds(plain, scratch / f"p{number}"))
            times["paxx-arq"].append(seconds(ours, scratch / f"o{number}"))
        print(
            "| | plain template, s | paxx-arq, s | ratio |\n| --- | --- | --- | --- |"
        )
        for index, step in enumerate(["copier copy", "copier update"]):
            base, own = (
                statistics.median(run[index] for run in runs) for runs in times.values()
            )
            print(f"| {step} | {base:.2f} | {own:.2f} | {own / base:.2f} |")


if __name__ == "__main__":
    main()
