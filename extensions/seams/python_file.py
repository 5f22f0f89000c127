"""A Python file that is edited by inserting and deleting bytes: all others stay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import TypeGuard, TypeVar

import libcst as cst
from libcst.metadata import ByteSpanPositionProvider, CodeSpan, MetadataWrapper

from seams import UnknownShapeError, newline_of

BOM = b"\xef\xbb\xbf"

MAX_SIZE = 1_000_000
"""Bytes; a file beyond that would take minutes to parse."""

Block = Sequence[cst.BaseStatement | cst.BaseSmallStatement]


Node = TypeVar("Node", bound=cst.CSTNode)


def find(node: cst.CSTNode, kind: type[Node]) -> list[Node]:
    """The nodes of a kind in this one, which may be one itself."""
    return [child for child in _nodes(node) if isinstance(child, kind)]


# Not with libcst.matchers, whose import takes longer than all the rest; nor with a
# visitor, which makes every node anew.
@lru_cache(maxsize=32)
def _nodes(node: cst.CSTNode) -> list[cst.CSTNode]:
    nodes = [node]
    for parent in nodes:  # they become more
        for field in fields(parent):
            value = getattr(parent, field.name)
            children = value if isinstance(value, list | tuple) else (value,)
            nodes += [child for child in children if isinstance(child, cst.CSTNode)]
    return nodes


def awaits(line: cst.CSTNode, name: str) -> bool:
    """Is it a line with `await name()`, and nothing else?"""
    match line:
        case cst.SimpleStatementLine(
            body=[
                cst.Expr(
                    value=cst.Await(expression=cst.Call(func=cst.Name(value=called)))
                )
            ]
        ):
            return called == name
    return False


# Each edit is tried, verified and undone on the same few sources.
@lru_cache(maxsize=8)
def _parsed(source: bytes) -> MetadataWrapper:
    return MetadataWrapper(cst.parse_module(source), unsafe_skip_copy=True)


class Code:
    """A parsed Python file, and the edits to it.

    Edits refer to the file as it was; `render` makes them all at once.
    """

    def __init__(self, source: bytes) -> None:
        """Parse it.

        Raises:
            UnknownShapeError: It is too large, not UTF-8, or not Python.
        """
        if len(source) > MAX_SIZE:
            raise UnknownShapeError("it is too large")
        try:
            source.decode("utf-8")
            self._parsed = _parsed(source.removeprefix(BOM))
        except (UnicodeDecodeError, cst.ParserSyntaxError) as exc:
            raise UnknownShapeError("it cannot be parsed") from exc
        self.source = source
        self.module = self._parsed.module
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
        return self._span(node).start + self._shift

    def end(self, node: cst.CSTNode) -> int:
        """Offset after the node's last byte."""
        span = self._span(node)
        return span.start + span.length + self._shift

    def _span(self, node: cst.CSTNode) -> CodeSpan:
        return self._parsed.resolve(ByteSpanPositionProvider)[node]

    def text(self, node: cst.CSTNode) -> str:
        """The node's code."""
        return self.module.code_for_node(node)

    def count(self, name: str) -> int:
        """How often the name is in the code; comments and strings aside."""
        return sum(node.value == name for node in find(self.module, cst.Name))

    def classes(self) -> list[cst.ClassDef]:
        """The classes at the top level."""
        return [node for node in self.module.body if isinstance(node, cst.ClassDef)]

    def places(
        self, is_wanted: Callable[[cst.SimpleStatementLine], bool]
    ) -> list[tuple[cst.SimpleStatementLine, Block]]:
        """The lines that are as wanted, and the blocks they are in."""
        blocks: list[cst.Module | cst.IndentedBlock]
        blocks = [self.module, *find(self.module, cst.IndentedBlock)]
        return [
            (node, block.body)
            for block in blocks
            for node in block.body
            if isinstance(node, cst.SimpleStatementLine) and is_wanted(node)
        ]

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
        self, first: cst.CSTNode, last: cst.CSTNode, *, blank: str = ""
    ) -> None:
        """Delete the lines of these statements, and blank ones "above" or "below"."""
        newline = newline_of(self.source)
        start = self._line_start(self.start(first))
        while blank == "above" and self.source[:start].endswith((b"\n\n", b"\n\r\n")):
            start = self._line_start(start - 1)
        end = self.source.find(b"\n", self.end(last)) + 1
        while blank == "below" and self.source.startswith(newline, end):
            end += len(newline)
        if not end:  # no newline ends the last line: then none ends the one above
            end = len(self.source)
            start -= len(newline)
        self.delete(start, end)

    # --- Imports --------------------------------------------------------------------

    def imports(self) -> list[cst.SimpleStatementLine]:
        """The lines at the top level that import."""
        return [line for line in self.module.body if _is_import(line)]

    def imports_name(self, module: str, name: str) -> str:
        """What `from module import name` calls it here; empty if there is none."""
        found = self._find_import(module, name)
        if found is None:
            return ""
        _, names, index = found
        return names[index].evaluated_alias or name

    def _find_import(
        self, module: str, name: str
    ) -> tuple[cst.SimpleStatementLine, Sequence[cst.ImportAlias], int] | None:
        """Line of `from module import name`, the names in it, and this one's index."""
        for line in self.imports():
            for item in line.body:
                if (
                    isinstance(item, cst.ImportFrom)
                    and _module_of(item) == module
                    and not isinstance(item.names, cst.ImportStar)
                ):
                    for index, alias in enumerate(item.names):
                        if alias.evaluated_name == name:
                            return line, item.names, index
        return None

    def add_import(self, module: str, name: str, root: Path) -> None:
        """Add `from module import name` where isort would put it.

        Raises:
            UnknownShapeError: There are no imports, or other code is among them, which
                may have to run before what is imported: `load_dotenv()`, for one.
        """
        imports = self.imports()
        if not imports:
            raise UnknownShapeError("it has no imports at its head")
        first = self.module.body.index(imports[0])
        last = self.module.body.index(imports[-1])
        between = self.module.body[first:last]
        before = self.module.body[:first]
        if not all(map(_may_stand_between, between)) or not all(map(_is_text, before)):
            raise UnknownShapeError("other code stands between its imports")
        text = f"from {module} import {name}"
        relative = [line for line in imports if _is_relative(line)]
        absolute = [line for line in imports if not _is_relative(line)]
        own = [line for line in absolute if _is_first_party(line, root)]
        later = [line for line in own if _module_of(line.body[0]) > module]
        if later:
            self.insert_line(later[0], text)
        elif own:
            self.append_lines(own[-1], text)
        elif absolute:
            self.append_lines(absolute[-1], "", text)
        else:
            newline = newline_of(self.source).decode()
            self.insert(self._line_start(self.start(relative[0])), text + newline * 2)

    def remove_import(self, module: str, name: str, *, blank: str) -> None:
        """Take the name out of `from module import name`; the line, if it is alone.

        And with the line, the blank ones "above" or "below".
        """
        found = self._find_import(module, name)
        if found is None:
            return
        line, names, index = found
        if len(names) > 1 and index + 1 < len(names):
            self.delete(self.start(names[index]), self.start(names[index + 1]))
        elif len(names) > 1:
            self.delete(self.end(names[index - 1].name), self.end(names[index].name))
        elif len(line.body) > 1:
            raise UnknownShapeError("its import shares a line with other statements")
        else:
            self.delete_lines(line.body[0], line.body[0], blank=blank)


def _is_import(line: cst.BaseStatement) -> TypeGuard[cst.SimpleStatementLine]:
    return isinstance(line, cst.SimpleStatementLine) and all(
        isinstance(item, cst.Import | cst.ImportFrom) for item in line.body
    )


def _is_text(line: cst.BaseStatement) -> bool:
    """A docstring, that is."""
    match line:
        case cst.SimpleStatementLine(body=[cst.Expr(value=cst.SimpleString())]):
            return True
    return False


def _may_stand_between(line: cst.BaseStatement) -> bool:
    if isinstance(line, cst.If):
        test = line.test.attr if isinstance(line.test, cst.Attribute) else line.test
        return isinstance(test, cst.Name) and test.value == "TYPE_CHECKING"
    return _is_import(line)


def _is_relative(line: cst.SimpleStatementLine) -> bool:
    item = line.body[0]
    return isinstance(item, cst.ImportFrom) and bool(item.relative)


def _module_of(node: cst.BaseSmallStatement) -> str:
    """The dotted name after `from`; empty for a relative import, and for `import`."""
    if not isinstance(node, cst.ImportFrom) or node.relative or node.module is None:
        return ""
    return cst.Module([]).code_for_node(node.module)


def _is_first_party(line: cst.SimpleStatementLine, root: Path) -> bool:
    name = _module_of(line.body[0]).partition(".")[0]
    return bool(name) and ((root / name).is_dir() or (root / f"{name}.py").is_file())
