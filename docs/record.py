# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "copier>=9.19.1", "copier-template-extensions>=0.3.4", "pyte>=0.8",
#     "redis>=5.2,<6", "rich>=14",
# ]
# ///
"""Makes docs/session.svg and docs/diff.svg from a real run in a real terminal.

uv run docs/record.py
"""

import io
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parent.parent
COLUMNS, LINES = 84, 200


class Terminal:
    """A shell session on a screen that remembers everything."""

    def __init__(self, cwd: Path, env: dict[str, str]) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)
        self.cwd, self.env = cwd, env

    def run(self, command: str, shown: str = "", *, enter: str = "") -> None:
        """Run a command; press Enter each time that a prompt has this text."""
        self.stream.feed(f"\x1b[1;32m$\x1b[0m {shown or command}\r\n".encode())
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(self.cwd)
            os.execve("/bin/bash", ["bash", "-c", command], self.env)
        quiet = time.monotonic()
        while True:
            ready, _, _ = select.select([terminal], [], [], 0.2)
            if ready:
                try:
                    data = os.read(terminal, 65536)
                except OSError:
                    break
                if not data:
                    break
                if b"\x1b[6n" in data:  # prompt_toolkit asks where the cursor is
                    line, column = self.screen.cursor.y + 1, self.screen.cursor.x + 1
                    os.write(terminal, f"\x1b[{line};{column}R".encode())
                self.stream.feed(data)
                quiet = time.monotonic()
            elif enter and time.monotonic() - quiet > 0.6:
                os.write(terminal, b"\r")
                quiet = time.monotonic()
        os.waitpid(pid, 0)
        self.stream.feed(b"\r\n")

    def save(self, path: Path) -> None:
        console = Console(width=COLUMNS, record=True, file=io.StringIO())
        lines = [self._line(number) for number in range(LINES)]
        while lines and not lines[-1].plain.strip():
            lines.pop()
        listed = [it for it in lines if re.match(" +(create|identical) ", it.plain)]
        files = [it for it in listed if "." in it.plain]
        blank = False
        for line in lines:
            empty = not line.plain.strip()
            if line in listed and line is not files[0]:
                if line is files[-1]:
                    console.print(Text(f"       ...  and {len(files) - 1} more files"))
            elif not (empty and blank):
                console.print(line)
            blank = empty
        console.save_svg(str(path), title="shop")
        path.write_text(path.read_text().rstrip() + "\n")

    def _line(self, number: int) -> Text:
        text = Text()
        for column in range(COLUMNS):
            char = self.screen.buffer[number][column]
            color = "" if char.fg == "default" else char.fg.replace("brown", "yellow")
            if re.fullmatch("[0-9a-f]{6}", color):
                color = f"#{color}"
            text.append(char.data, f"{'bold ' if char.bold else ''}{color}".strip())
        text.rstrip()
        return text


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from support import ENV, PAXX, make_template

    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        shop = scratch / "shop"
        tools = scratch / "tools"
        uv = ["uv", "-q"]
        subprocess.run([*uv, "venv", "--seed", "-p", sys.executable, tools], check=True)
        pip = [tools / "bin/python", "-m", "pip", "-q", "install"]
        subprocess.run([*pip, "--ignore-requires-python", PAXX], check=True)
        extra = ["copier", "copier-template-extensions"]
        subprocess.run(
            [*uv, "pip", "install", "-p", tools / "bin/python", *extra], check=True
        )
        subprocess.run(
            [tools / "bin/paxx", "bootstrap", "shop", "--force"],
            cwd=scratch,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (scratch / "template").mkdir()
        template = make_template(scratch / "template")
        (scratch / "gitconfig").write_text(
            f'[url "{template}"]\n\tinsteadOf = https://github.com/org/paxx-arq.git\n'
            "[core]\n\tpager = cat\n[color]\n\tui = always\n"
        )
        env = {
            **os.environ,
            **ENV,
            "TERM": "xterm-256color",
            "COLUMNS": str(COLUMNS),
            "PATH": f"{tools}/bin:{os.environ['PATH']}",
            "GIT_CONFIG_GLOBAL": str(scratch / "gitconfig"),
            "VIRTUAL_ENV": "",
        }
        git = "git init -q && git add -A && git commit -qm 'paxx bootstrap'"
        subprocess.run(["bash", "-c", git], cwd=shop, env=env, check=True)

        session = Terminal(shop, env)
        session.run(
            "stty cols 84; copier copy --trust gh:org/paxx-arq .",
            "copier copy --trust gh:org/paxx-arq .",
            enter="?",
        )
        session.save(ROOT / "docs/session.svg")
        diff = Terminal(shop, env)
        diff.run("git diff -U1 -- '*.py' pyproject.toml")
        diff.save(ROOT / "docs/diff.svg")


if __name__ == "__main__":
    main()
