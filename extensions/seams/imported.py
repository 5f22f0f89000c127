"""What seams in Python files have in common: a name of the queue's, and its import."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import libcst as cst

from seams import OTHER, Options, UnknownShapeError, undo
from seams.python_file import Code


@dataclass(frozen=True)
class Imported:
    """A name from a module of the queue's."""

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
        other = f"{OTHER[options.package]}.{self.module}"
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
        """The file without the import and the one use of it.

        Args:
            source: The file.
            options: The answers.
            use: Deletes the use.
            add: Added both: it knows which blank lines came with them.

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

    def delete_line(
        self, code: Code, is_it: Callable[[cst.SimpleStatementLine], bool]
    ) -> None:
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
        code.delete_lines(statement, statement)
