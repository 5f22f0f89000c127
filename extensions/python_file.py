"""A Python file that is edited by inserting and deleting bytes: all others stay."""

from __future__ import annotations

from pathlib import Path

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, MetadataWrapper

BOM = b"\xef\xbb\xbf"


class UnknownShapeError(Exception):
    """A file does not look the way an edit needs it; says why."""


def newline_of(source: bytes) -> bytes:
    """The file's line ending."""
    return b"\r\n" if b"\r\n" in source else b"\n"


class Code:
    """A parsed Python file, and the edits to it.

    Edits refer to the file as it was; `render` makes them all at once.
    """

    def __init__(self, source: bytes) -> None:
        """Parse it.

        Raises:
            UnknownShapeError: It is not UTF-8, or not Python.
        """
        try:
            source.decode("utf-8")
            wrapper = MetadataWrapper(
                cst.parse_module(source.removeprefix(BOM)), unsafe_skip_copy=True
            )
        except (UnicodeDecodeError, cst.ParserSyntaxError) as exc:
            raise UnknownShapeError("it cannot be parsed") from exc
        self.source = source
        self.module = wrapper.module
        self._spans = wrapper.resolve(ByteSpanPositionProvider)
        self._shift = len(BOM) if source.startswith(BOM) else 0
        self._edits: list[tuple[int, int, bytes]] = []

    def render(self) -> bytes:
        """The edited file."""
        result = self.source
        for start, end, text in sorted(self._edits, reverse=True):
            result = result[:start] + text + result[end:]
        return result

    # --- Where things are ---------------------------------------------------------

    def start(self, node: cst.CSTNode) -> int:
        """Offset of the node's first byte."""
        return self._spans[node].start + self._shift

    def end(self, node: cst.CSTNode) -> int:
        """Offset after the node's last byte."""
        span = self._spans[node]
        return span.start + span.length + self._shift

    def text(self, node: cst.CSTNode) -> str:
        """The node's code."""
        return self.module.code_for_node(node)

    def _line_start(self, offset: int) -> int:
        """Offset of the first byte in this line."""
        return max(self.source.rfind(b"\n", 0, offset) + 1, self._shift)

    def _line(self, statement: cst.SimpleStatementLine) -> tuple[int, bytes]:
        """Offset of the statement's line, and its indentation.

        Raises:
            UnknownShapeError: Something else comes before it in its line.
        """
        first = self.start(statement.body[0])
        line_start = self._line_start(first)
        indent = self.source[line_start:first]
        if indent.strip():
            raise UnknownShapeError("the line to add to holds more than one statement")
        return line_start, indent

    # --- Edits ----------------------------------------------------------------------

    def insert(self, offset: int, text: str) -> None:
        """Insert text."""
        self._edits.append((offset, offset, text.encode()))

    def delete(self, start: int, end: int) -> None:
        """Delete what is from `start` up to `end`."""
        self._edits.append((start, end, b""))

    def insert_line(self, before: cst.SimpleStatementLine, text: str) -> None:
        """Insert a line above a statement, indented alike."""
        line_start, indent = self._line(before)
        line = indent + text.encode() + newline_of(self.source)
        self._edits.append((line_start, line_start, line))

    def append_lines(self, after: cst.SimpleStatementLine, *lines: str) -> None:
        """Insert lines below a statement, indented alike."""
        _, indent = self._line(after)
        newline = newline_of(self.source)
        texts = [indent + line.encode() if line else b"" for line in lines]
        offset = self.source.find(b"\n", self.end(after.body[-1])) + 1
        if offset:
            text = newline.join(texts) + newline
        else:
            offset = len(self.source)
            text = newline + newline.join(texts)
        self._edits.append((offset, offset, text))

    def delete_lines(
        self, first: cst.CSTNode, last: cst.CSTNode, *, blank_above: bool = False
    ) -> None:
        """Delete the lines of these statements, and the blank ones above if wanted."""
        start = self._line_start(self.start(first))
        while blank_above and self.source[:start].endswith((b"\n\n", b"\n\r\n")):
            start = self._line_start(start - 1)
        end = self.source.find(b"\n", self.end(last)) + 1
        if (
            not end
        ):  # the last line, which ends without a newline: so does the one above
            end = len(self.source)
            start -= len(newline_of(self.source))
        self.delete(start, end)

    # --- Imports --------------------------------------------------------------------

    def imports(self) -> list[cst.SimpleStatementLine]:
        """The import statements at the head of the file, before any other code."""
        found: list[cst.SimpleStatementLine] = []
        for index, line in enumerate(self.module.body):
            if not isinstance(line, cst.SimpleStatementLine):
                break
            if all(isinstance(item, cst.Import | cst.ImportFrom) for item in line.body):
                found.append(line)
            elif index > 0 or not isinstance(line.body[0], cst.Expr):
                break
        return found

    def find_import(
        self, module: str, name: str
    ) -> tuple[cst.SimpleStatementLine, cst.ImportFrom, int] | None:
        """The `from module import name` at the head of the file.

        Its line, the statement, and the name's index in it.
        """
        for line in self.imports():
            for item in line.body:
                if not isinstance(item, cst.ImportFrom) or _module_of(item) != module:
                    continue
                if isinstance(item.names, cst.ImportStar):
                    continue
                for index, alias in enumerate(item.names):
                    if alias.evaluated_name == name:
                        return line, item, index
        return None

    def add_import(self, module: str, name: str, root: Path) -> None:
        """Add `from module import name` where isort would put it.

        Raises:
            UnknownShapeError: The file starts with no imports.
        """
        imports = self.imports()
        if not imports:
            raise UnknownShapeError("it does not start with imports")
        text = f"from {module} import {name}"
        own = [
            line
            for line in imports
            if isinstance(line.body[0], cst.ImportFrom)
            and _is_first_party(_module_of(line.body[0]), root)
        ]
        for line in own:
            assert isinstance(line.body[0], cst.ImportFrom)
            if _module_of(line.body[0]) > module:
                self.insert_line(line, text)
                return
        if own:
            self.append_lines(own[-1], text)
        else:
            self.append_lines(imports[-1], "", text)

    def remove_import(self, module: str, name: str, *, blank_above: bool) -> None:
        """Take the name out of `from module import name`; the line, if it is alone."""
        found = self.find_import(module, name)
        if found is None:
            return
        line, statement, index = found
        assert not isinstance(statement.names, cst.ImportStar)
        names = statement.names
        if len(names) > 1 and index + 1 < len(names):
            self.delete(self.start(names[index]), self.start(names[index + 1]))
        elif len(names) > 1:
            self.delete(self.end(names[index - 1].name), self.end(names[index].name))
        elif len(line.body) > 1:
            raise UnknownShapeError("its import shares a line with other statements")
        else:
            self.delete_lines(line.body[0], line.body[0], blank_above=blank_above)


def _module_of(node: cst.ImportFrom) -> str:
    """The dotted name; empty for a relative import."""
    if node.relative or node.module is None:
        return ""
    return cst.Module([]).code_for_node(node.module)


def _is_first_party(module: str, root: Path) -> bool:
    name = module.partition(".")[0]
    return bool(name) and ((root / name).is_dir() or (root / f"{name}.py").is_file())
