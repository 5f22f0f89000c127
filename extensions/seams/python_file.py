"""A Python file that is edited by inserting and deleting bytes: all others stay."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seams import OTHER_PACKAGE, Options, UnknownShapeError, newline_of, undo

BOM = b"\xef\xbb\xbf"
Node = ast.stmt | ast.expr | ast.alias | ast.keyword


class Code:
    """A parsed Python file, and the edits to it.

    Edits refer to the file as it was; `render` makes them all at once.
    """

    def __init__(self, source: bytes) -> None:
        """Parse it.

        Raises:
            UnknownShapeError: It is not UTF-8, or not Python as Copier's reads it.
        """
        self.source = source
        self._edits: list[tuple[int, int, bytes]] = []
        try:
            text = source.removeprefix(BOM).decode("utf-8")
            self.tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
            version = ".".join(map(str, sys.version_info[:2]))
            raise UnknownShapeError(
                f"Python {version}, on which Copier runs, cannot parse it"
            ) from exc
        first = len(source) - len(source.removeprefix(BOM))
        ends = re.finditer(rb"\r\n?|\n", source)
        self._lines = [first, *(match.end() for match in ends)]

    def render(self) -> bytes:
        """The edited file."""
        result = self.source
        for start, end, text in sorted(self._edits, reverse=True):
            result = result[:start] + text + result[end:]
        return result

    # --- Where things are ---------------------------------------------------------

    def start(self, node: Node) -> int:
        """Offset of the node's first byte."""
        return self._lines[node.lineno - 1] + node.col_offset

    def end(self, node: Node) -> int:
        """Offset after the node's last byte."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._lines[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: Node) -> str:
        """The node's code."""
        return self.source[self.start(node) : self.end(node)].decode()

    def count(self, name: str) -> int:
        """How often the name is in the code; comments and strings aside."""
        return sum(
            value == name
            for node in ast.walk(self.tree)
            if not isinstance(node, ast.Constant)
            for _, value in ast.iter_fields(node)
        )

    def places(
        self, is_wanted: Callable[[ast.stmt], bool]
    ) -> list[tuple[ast.stmt, Sequence[ast.stmt]]]:
        """The statements that are as wanted, and the blocks they are in."""
        return [
            (line, block)
            for node in ast.walk(self.tree)
            for _, block in ast.iter_fields(node)
            if isinstance(block, list)
            for line in block
            if isinstance(line, ast.stmt) and is_wanted(line)
        ]

    def _line(self, statement: ast.stmt) -> tuple[int, int, bytes]:
        """Where the lines of a statement start and end, and their indentation."""
        first, last = self.start(statement), self.end(statement)
        start = self._lines[statement.lineno - 1]
        indent = self.source[start:first]
        rest = re.match(rb"[ \t\f]*;?[ \t\f]*(#.*)?(\r?\n|$)", self.source[last:])
        if indent.strip() or not rest:
            raise UnknownShapeError("the line to edit holds more than one statement")
        return start, last + rest.end(), indent

    # --- Edits ----------------------------------------------------------------------

    def insert(self, offset: int, text: bytes) -> None:
        """Insert text."""
        self._edits.append((offset, offset, text))

    def delete_item(self, items: Sequence[Node], index: int) -> None:
        """Delete one of several with commas between."""
        if index + 1 < len(items):
            start, end = self.start(items[index]), self.start(items[index + 1])
        else:
            start, end = self.end(items[index - 1]), self.end(items[index])
        self._edits.append((start, end, b""))

    def insert_above(self, statement: ast.stmt, *lines: str) -> None:
        """Insert lines above a statement, indented alike."""
        start, _, indent = self._line(statement)
        self.insert(start, self._indented(lines, indent))

    def insert_below(self, statement: ast.stmt, *lines: str) -> None:
        """Insert lines below a statement, indented alike."""
        _, end, indent = self._line(statement)
        text = self._indented(lines, indent)
        if not self.source[:end].endswith(b"\n"):
            newline = newline_of(self.source)
            text = newline + text.removesuffix(newline)
        self.insert(end, text)

    def _indented(self, lines: Iterable[str], indent: bytes) -> bytes:
        newline = newline_of(self.source)
        return b"".join((indent + it.encode() if it else b"") + newline for it in lines)

    def delete_line(
        self, statement: ast.stmt, *, blank: str = "", above: str = ""
    ) -> None:
        """Delete a statement's lines, and blank ones "above" or "below".

        And with them the line `above`, where that is the one above.
        """
        newline = newline_of(self.source)
        start, end, _ = self._line(statement)
        head = self.source[:start]
        *_, last = head.splitlines(keepends=True) or [b""]
        if above and last.strip() == above.encode():
            head = head.removesuffix(last)
        while blank == "above" and head.endswith((b"\n\n", b"\n\r\n")):
            head = head.removesuffix(newline)
        while blank == "below" and self.source.startswith(newline, end):
            end += len(newline)
        if not self.source[:end].endswith(b"\n"):  # then none ends the line above
            head = head.removesuffix(newline)
        self._edits.append((len(head), end, b""))

    # --- Imports --------------------------------------------------------------------

    def imports_name(self, module: str, name: str) -> str:
        """What `from module import name` calls it here; empty if there is none."""
        for _, alias in self._imported(module, name):
            return alias.asname or name
        return ""

    def _imported(
        self, module: str, name: str
    ) -> Iterator[tuple[ast.ImportFrom, ast.alias]]:
        for line in self.tree.body:
            if isinstance(line, ast.ImportFrom) and _module_of(line) == module:
                yield from ((line, it) for it in line.names if it.name == name)

    def add_import(self, module: str, name: str, root: Path) -> None:
        """Add `from module import name` where isort would put it."""
        body = self.tree.body
        for line in body:
            if not isinstance(line, ast.ImportFrom) or line.names[0].name == "*":
                continue
            if _module_of(line) == module:
                return self._import_with(line, name)
        imports = [it for it in body if isinstance(it, ast.Import | ast.ImportFrom)]
        if not imports:
            raise UnknownShapeError("it has no imports at its head")
        if not all(map(_may_stand_between, body[: body.index(imports[-1])])):
            raise UnknownShapeError("other code stands between its imports")
        text = f"from {module} import {name}"
        absolute = [it for it in imports if not getattr(it, "level", 0)]
        own = [it for it in absolute if _is_own(_module_of(it), root, module)]
        later = [it for it in own if _module_of(it) > module]
        if later:
            self.insert_above(later[0], text)
        elif own:
            self.insert_below(own[-1], text)
        elif absolute:
            self.insert_below(absolute[-1], "", text)
        else:
            self.insert_above(imports[0], text, "")

    def _import_with(self, line: ast.ImportFrom, name: str) -> None:
        """Add the name to those that are imported already, where isort would put it."""
        first, last = line.names[0], line.names[-1]
        is_vertical = first.lineno != last.lineno
        column = b" " * first.col_offset
        between = newline_of(self.source) + column if is_vertical else b" "
        later = [it for it in line.names if _isort_key(it.name) > _isort_key(name)]
        if later:
            self.insert(self.start(later[0]), name.encode() + b"," + between)
        else:
            self.insert(self.end(last), b"," + between + name.encode())

    def remove_import(self, module: str, name: str, *, blank: str) -> None:
        """Take the name out of `from module import name`; the line, if it is alone.

        And with the line, the blank ones "above" or "below".
        """
        for line, alias in self._imported(module, name):
            if len(line.names) == 1:
                self.delete_line(line, blank=blank)
            else:
                self.delete_item(line.names, line.names.index(alias))


def awaits(line: ast.stmt, name: str) -> bool:
    """Is it a line with `await name()`, and nothing else?"""
    match line:
        case ast.Expr(value=ast.Await(value=ast.Call(func=ast.Name(id=called)))):
            return called == name
    return False


def _may_stand_between(line: ast.stmt) -> bool:
    """Is it an import, a docstring, or imports for the type checker?"""
    match line:
        case ast.Import() | ast.ImportFrom() | ast.Expr(ast.Constant(str())):
            return True
        case ast.If(test=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name == "TYPE_CHECKING"
    return False


def _module_of(line: ast.stmt) -> str:
    """The dotted name after `from`; empty for a relative import, and for `import`."""
    is_absolute = isinstance(line, ast.ImportFrom) and not line.level
    return (line.module or "") if is_absolute else ""  # type: ignore[attr-defined]


def _isort_key(name: str) -> tuple[int, str]:
    """Constants come before classes, and those before all else."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def _is_own(module: str, root: Path, new: str) -> bool:
    """Is a module the project's, or of the package of ours, which may come later?"""
    name = module.partition(".")[0]
    if name == new.partition(".")[0]:
        return True
    return bool(name) and ((root / name).is_dir() or (root / f"{name}.py").is_file())


# --- A name of the queue's ------------------------------------------------------------


@dataclass(frozen=True)
class Imported:
    """A name from a module of the queue's: its import, and one use of it."""

    module: str
    name: str

    def line(self, options: Options) -> str:
        """Its import."""
        return f"from {options.package}.{self.module} import {self.name}"

    def found(self, code: Code, options: Options) -> str:
        """What the file calls it; empty where the name is not there at all.

        Raises:
            UnknownShapeError: The name is from the other package, or something else.
        """
        other = f"{OTHER_PACKAGE[options.package]}.{self.module}"
        if code.imports_name(other, self.name):
            raise UnknownShapeError(f"it imports {self.name} from {other}")
        name = code.imports_name(f"{options.package}.{self.module}", self.name)
        if not name and code.count(self.name):
            raise UnknownShapeError(f"it has another {self.name}")
        return name

    def add(self, code: Code, options: Options) -> None:
        """Import it.

        Raises:
            UnknownShapeError: As `Code.add_import`.
        """
        code.add_import(f"{options.package}.{self.module}", self.name, options.root)

    def remove(
        self,
        source: bytes,
        options: Options,
        use: Callable[[Code], None],
        add: Callable[[bytes, Options], bytes],
    ) -> bytes:
        """The file without the import and the one use of it, which `use` deletes.

        `add` added both: it knows which blank lines came with them.

        Raises:
            UnknownShapeError: There is more than one use, or none.
        """
        module = f"{options.package}.{self.module}"
        code = Code(source)
        if not code.imports_name(module, self.name):
            return source
        if code.count(self.name) != 2:
            raise UnknownShapeError(f"it uses {self.name} in a way of its own")

        def without(blank: str) -> bytes:
            code = Code(source)
            use(code)
            code.remove_import(module, self.name, blank=blank)
            return code.render()

        blanks = ("", "above", "below")
        return undo(source, map(without, blanks), lambda one: add(one, options))

    def delete_use(self, code: Code, is_it: Callable[[ast.stmt], bool]) -> None:
        """Delete the line that uses it.

        Raises:
            UnknownShapeError: There is no such line, or nothing would be left there.
        """
        places = code.places(is_it)
        if len(places) != 1:
            raise UnknownShapeError(f"it uses {self.name} in a way of its own")
        [(statement, block)] = places
        if len(block) == 1:
            raise UnknownShapeError(f"nothing but {self.name} is there")
        code.delete_line(statement)
