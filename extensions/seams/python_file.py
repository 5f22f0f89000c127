"""A Python file that imports a name of the queue's and has one use of it.

Whole lines are added and taken out, and names within a line: all others stay.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from seams import OTHER_PACKAGE, Options, UnknownShapeError


class Code:
    """A parsed Python file, to be edited from its end upwards."""

    def __init__(self, text: str) -> None:
        """Parse it.

        Raises:
            UnknownShapeError: It is not Python as Copier's reads it.
        """
        try:
            self.tree = ast.parse(text.encode())
        except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
            version = ".".join(map(str, sys.version_info[:2]))
            raise UnknownShapeError(
                f"Python {version}, on which Copier runs, cannot parse it"
            ) from exc
        self.lines = text.split("\n")

    def text(self) -> str:
        """The edited file."""
        return "\n".join(self.lines)

    def count(self, name: str) -> int:
        """How often the name is in the code; comments and strings aside."""
        return sum(
            value == name
            for node in ast.walk(self.tree)
            if not isinstance(node, ast.Constant)
            for _, value in ast.iter_fields(node)
        )

    def is_line(self, statement: ast.stmt, pattern: str) -> bool:
        """Is its first line such a one, indentation and comment aside?"""
        line = self.lines[statement.lineno - 1]
        return re.fullmatch(rf"\s*(?:{pattern})(?:\s*#.*)?", line) is not None

    def found(self, pattern: str) -> list[list[ast.stmt]]:
        """The statements that are such lines, by the block that they are in."""
        names = ("body", "orelse", "finalbody")
        blocks = (getattr(it, name, 0) for it in ast.walk(self.tree) for name in names)
        found = (
            [it for it in block if self.is_line(it, pattern)]
            for block in blocks
            if isinstance(block, list)
        )
        return [*filter(None, found)]

    def insert(self, line: str, statement: ast.stmt, *, above: bool = False) -> None:
        """Insert a line below a statement, or above it, indented alike."""
        assert statement.end_lineno is not None
        indent = self.lines[statement.lineno - 1][: statement.col_offset]
        if indent.strip():
            raise UnknownShapeError("the line to edit holds more than one statement")
        at = statement.lineno - 1 if above else statement.end_lineno
        self.lines.insert(at, indent + line)

    # --- Imports --------------------------------------------------------------------

    def imported(self, module: str, name: str) -> tuple[ast.ImportFrom, str] | None:
        """The line `from module import name`, and what the name is called here."""
        imports = (it for it in self.tree.body if isinstance(it, ast.ImportFrom))
        for line in imports:
            for it in line.names:
                if (line.level, line.module, it.name) == (0, module, name):
                    return line, it.asname or name
        return None

    def add_import(self, module: str, name: str, root: Path) -> None:
        """Add `from module import name` where isort would put it."""
        body = self.tree.body
        head = [*takewhile(_is_head, body)]
        imports = [it for it in head if isinstance(it, IMPORTS)]
        if not imports or any(isinstance(it, IMPORTS) for it in body[len(head) :]):
            raise UnknownShapeError("its imports are not all at its head, and absolute")
        own = {
            line.module or "": line
            for line in imports
            if isinstance(line, ast.ImportFrom) and _is_own(line.module, root, module)
        }
        text = f"from {module} import {name}"
        if module in own:
            self._import_with(own[module], name)
        elif later := [line for it, line in own.items() if it > module]:
            self.insert(text, later[0], above=True)
        elif own:
            self.insert(text, [*own.values()][-1])
        else:
            self.insert(text, imports[-1])
            self.insert("", imports[-1])

    def _import_with(self, line: ast.ImportFrom, name: str) -> None:
        """Add the name to those that are imported already, where isort would put it."""
        start, names, end = self._names(line)
        later = [it for it in names if it.islower() and it > name]
        names.insert(names.index(later[0]) if later else len(names), name)
        self.lines[line.lineno - 1] = start + ", ".join(names) + end

    def remove_import(self, line: ast.ImportFrom, name: str) -> None:
        """Take the name out; and the line, if it is alone there."""
        index, (start, names, end) = line.lineno - 1, self._names(line)
        names.remove(name)
        if names:
            self.lines[index] = start + ", ".join(names) + end
            return
        del self.lines[index]
        below = "".join(self.lines[index : index + 1])
        is_alone = not below.startswith(("from ", "import "))
        if index and is_alone and not self.lines[index - 1]:  # that came with it
            del self.lines[index - 1]

    def _names(self, line: ast.ImportFrom) -> tuple[str, list[str], str]:
        """What is before the names of an import, the names, and what is after them."""
        pattern = r"(from \S+ import )((?:\w[\w ]*, )*\w[\w ]*?)(\s*#.*)?"
        match = re.fullmatch(pattern, self.lines[line.lineno - 1])
        if not match:
            raise UnknownShapeError(f"it imports {line.module} in a way of its own")
        return match[1], match[2].split(", "), match[3] or ""


IMPORTS = (ast.Import, ast.ImportFrom)


def _is_head(line: ast.stmt) -> bool:
    """Is it an absolute import, or a docstring?"""
    match line:
        case ast.Import() | ast.ImportFrom(level=0) | ast.Expr(ast.Constant(str())):
            return True
    return False


def _is_own(module: str | None, root: Path, new: str) -> bool:
    """Is a module the project's, or of the package of ours, which may come later?"""
    name = (module or "").partition(".")[0]
    if name == new.partition(".")[0]:
        return True
    return (root / name).is_dir() or (root / f"{name}.py").is_file()


# --- A name of the queue's ------------------------------------------------------------


@dataclass(frozen=True)
class Imported:
    """A name from a module of the queue's: its import, and one use of it."""

    module: str
    name: str

    def line(self, options: Options) -> str:
        """Its import."""
        return f"from {options.package}.{self.module} import {self.name}"

    def add(self, text: str, options: Options, use: Callable[[Code, str], None]) -> str:
        """The file with the import and a use of it; as it is where it has both.

        `use` inserts the use, and is given what the file calls the name.

        Raises:
            UnknownShapeError: The name is from the other package, or something else.
        """
        code, package = Code(text), options.package
        other = f"{OTHER_PACKAGE[package]}.{self.module}"
        if code.imported(other, self.name):
            raise UnknownShapeError(f"it imports {self.name} from {other}")
        found = code.imported(f"{package}.{self.module}", self.name)
        if not found and code.count(self.name):
            raise UnknownShapeError(f"it has another {self.name}")
        name = found[1] if found else self.name
        if code.count(name) > 1:
            return text
        use(code, name)
        if not found:
            code.add_import(f"{package}.{self.module}", name, options.root)
        return code.text()

    def remove(self, text: str, options: Options, use: str, instead: str = "") -> str:
        """The file without the import and the line that uses it, or with another one.

        Raises:
            UnknownShapeError: There is no such line, or another use.
        """
        code = Code(text)
        found = code.imported(f"{options.package}.{self.module}", self.name)
        if not found:
            return text
        uses = code.found(use)
        if found[1] != self.name or code.count(self.name) != 2 or not uses:
            raise UnknownShapeError(f"it uses {self.name} in a way of its own")
        at = uses[0][0].lineno - 1
        line = re.sub(use, instead, code.lines[at])
        code.lines[at : at + 1] = [line] if instead else []
        code.remove_import(found[0], self.name)
        return code.text()
