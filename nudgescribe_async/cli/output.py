"""Where output goes: results to stdout, everything else to stderr.

With ``--json`` stdout has one JSON document, or one a line; else text, for a terminal of any width. What is printed
is complete: no id is cut, and where a table does not fit, its rows are printed below each other. Nothing is coloured
unless a terminal shows it and ``NO_COLOR`` is not set. Letters that the encoding of the terminal lacks are printed
as escapes, and in JSON always so.
"""

from __future__ import annotations

import io
import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from attrs import field, frozen
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from nudgescribe_async.cli.plain import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nudgescribe_async.cli.failures import Failure

__all__ = ["Column", "Output", "OutputClosedError", "legible"]

T = TypeVar("T")

UNLIMITED = 100_000
"""Columns, where there is no terminal whose width would matter."""


class OutputClosedError(Exception):
    """Whoever read the output has gone away.

    No ``BrokenPipeError``: rich ends the process on those, with a code of its own.
    """


class Writer:
    """A text stream that can take any letter, and says so if nobody reads it."""

    def __init__(self, stream: TextIO | None) -> None:
        # Python has none where the shell has closed it (2>&-): what is written then goes nowhere.
        self._stream = stream if stream is not None else io.TextIOWrapper(io.BytesIO(), encoding="utf-8")

    @property
    def encoding(self) -> str:
        """What the stream writes text in."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return self._stream.isatty()

    def write(self, text: str) -> int:
        """Write text; letters that the encoding lacks are escaped."""
        try:
            return self._stream.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
        except BrokenPipeError:
            raise OutputClosedError from None

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are, behind the text, and hand all of it over."""
        self.flush()
        try:
            self._stream.buffer.write(data)
            self._stream.buffer.flush()
        except BrokenPipeError:
            raise OutputClosedError from None

    def flush(self) -> None:
        """Hand over what was written."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise OutputClosedError from None


@frozen
class Column:
    """One column of a table.

    Attributes:
        name: its heading.
        whole: ids, addresses, paths: never broken, so that they can be copied.
        right: numbers.
    """

    name: str
    whole: bool = field(default=False, kw_only=True)
    right: bool = field(default=False, kw_only=True)


class Output:
    """The two streams of a command.

    Attributes:
        json: whether ``--json`` was given.
        results: the console of stdout.
        notes: the console of stderr; progress is shown there.
        help: the console of stdout, as wide as a page is, also where there is no terminal.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.json = as_json
        self._out = Writer(sys.stdout)
        self.results = _console(self._out, stderr=False)
        self.notes = _console(Writer(sys.stderr), stderr=True)
        self.help = Console(file=self._out, no_color=self.results.no_color)  # type: ignore[arg-type] # see _console

    @property
    def shows_progress(self) -> bool:
        """Whether there is a terminal for what moves."""
        return self.notes.is_terminal and not self.notes.is_dumb_terminal

    def document(self, value: object, text: RenderableType) -> None:
        """The result of a command: ``value`` as one JSON document with ``--json``, else ``text``."""
        if self.json:
            self._json(value)
        else:
            self.text(text)

    def row(self, value: object, text: RenderableType) -> None:
        """One of many results, as soon as it is there: a line of JSON with ``--json``, else ``text``."""
        self.document(value, text)
        self._out.flush()

    def table(
        self, rows: Iterable[T], columns: Sequence[Column], cells: Callable[[T], Sequence[object]], *, empty: str
    ) -> None:
        """All results of a command: one JSON document a line with ``--json``, else a table.

        Args:
            rows: what is known of each; with ``--json`` all of it is printed, not only the columns.
            columns: of the table.
            cells: what stands in the columns of a row; ``None`` is shown as nothing.
            empty: the sentence, on stderr, if there are none.
        """
        found = list(rows)
        if self.json:
            for row in found:
                self._json(row)
        elif found:
            self.text(self.as_table(columns, [cells(row) for row in found]))
        else:
            self.note(empty)

    def as_table(self, columns: Sequence[Column], rows: Iterable[Sequence[object]]) -> RenderableType:
        """Rows as a table, or below each other where the terminal is too narrow for one."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for column in columns:
            table.add_column(
                Text(column.name),
                no_wrap=column.whole or column.right,
                overflow="fold",
                justify="right" if column.right else "left",
            )
        lines = [[_cell(cell) for cell in row] for row in rows]
        for line in lines:
            table.add_row(*(Text(cell) for cell in line))
        if self.results.measure(table).minimum < self.results.width:
            return table
        return Group(*(_block(columns, line) for line in lines))

    def text(self, text: RenderableType) -> None:
        """Text on stdout, whatever ``--json`` says."""
        text = legible(text) if isinstance(text, str) else text
        self.results.print(text, soft_wrap=not isinstance(text, Table), highlight=False, markup=False)

    def note(self, text: RenderableType) -> None:
        """Something that is no result, on stderr."""
        text = legible(text) if isinstance(text, str) else text
        self.notes.print(text, soft_wrap=True, highlight=False, markup=False)

    def failure(self, failure: Failure) -> None:
        """An error, on stderr: a sentence and a hint, or with ``--json`` one line of JSON."""
        if self.json:
            self.note(json.dumps(failure.as_document()))
            return
        self.note(Text.assemble(("Error: ", "bold red"), legible(failure.message)))
        if failure.hint:
            self.note(Text.assemble(("Hint: ", "bold"), legible(failure.hint)))

    def raw(self, data: bytes) -> None:
        """A piece of a file on stdout, as it is whatever the locale, and at once. It blocks while nobody reads.

        Raises:
            OutputClosedError: whoever read it has gone away.
        """
        self._out.write_bytes(data)

    def flush(self) -> None:
        """Hand over what was printed.

        Raises:
            OutputClosedError: nobody reads it.
        """
        self._out.flush()

    def _json(self, value: object) -> None:
        self._out.write(json.dumps(plain(value), allow_nan=False) + "\n")


def _console(writer: Writer, *, stderr: bool) -> Console:
    # No emoji: :x: in a name, an id or a path is what it is.
    options: dict[str, Any] = {"emoji": False} | ({} if writer.isatty() else {"width": UNLIMITED})
    if os.environ.get("NO_COLOR"):
        options["color_system"] = None
    return Console(file=writer, stderr=stderr, **options)  # type: ignore[arg-type] # all that rich uses of a stream


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case _:
            # Names come from the service: a line break in one must not look like another row.
            return legible(str(value), lines=False)


def legible(text: str, *, lines: bool = True) -> str:
    """Text whose escape sequences and other letters without a shape are written out, lest a terminal obeys them.

    Names and settings in it may come from the service, or from a file that somebody else has written.

    Args:
        text: what is to be printed.
        lines: leave line breaks and tabs as they are.
    """
    kept = "\n\t" if lines else ""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in kept else _escaped(each) for each in text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def _block(columns: Sequence[Column], cells: Sequence[str]) -> RenderableType:
    lines = [f"{column.name}: {cell}" for column, cell in zip(columns, cells, strict=True) if cell]
    return Text("\n".join([*lines, ""]), overflow="ignore", no_wrap=True)
