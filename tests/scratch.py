"""A Paxx project with the working tree's template on it: uv run tests/scratch.py DIR."""

import sys
import tempfile
from pathlib import Path

from support import PAXX, copier, environment, git, make_template, run


def main() -> None:
    target = Path(sys.argv[1]).absolute()
    if target.exists():
        sys.exit(f"{target} exists already: name a new directory.")
    paxx = environment("paxx", [PAXX], seed=True) / "bin/paxx"
    target.parent.mkdir(parents=True, exist_ok=True)
    run([paxx, "bootstrap", target.name, "--force"], cwd=target.parent)
    git(target, "init", "-q")
    git(target, "add", "-A")
    git(target, "commit", "-qm", "paxx bootstrap")
    with tempfile.TemporaryDirectory() as template:
        source = make_template(Path(template))
        done = copier("copy", "--trust", "--defaults", source, ".", cwd=target)
    print(done.stderr)
    print(git(target, "status", "--short"))


if __name__ == "__main__":
    main()
