"""Reads a page as a test wants it: its texts, tables and elements. It is strict about what is closed."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "img", "input", "br", "hr", "wbr"}


class Markup(HTMLParser):
    """One page. Raises if elements do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._texts: list[str] = []
        self._caption: list[str] | None = None
        self._cell: list[str] | None = None
        self._rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self._open == [], f"not closed: {self._open}"
        self.text = " ".join("".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag == "caption":
            self._caption = []
        elif tag in {"td", "th"}:
            self._cell = []
        if tag != "wbr":
            self._texts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes {self._open}"
        self._open.pop()
        if tag == "table":
            self.tables[" ".join("".join(self._caption or []).split())] = self._rows
        elif tag in {"td", "th"} and self._cell is not None:
            self._rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None
        self._texts.append(" ")

    def handle_data(self, data: str) -> None:
        if "script" in self._open or "style" in self._open:
            return
        self._texts.append(data)
        if self._cell is not None:
            self._cell.append(data)
        elif self._caption is not None and "caption" in self._open:
            self._caption.append(data)

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """The attributes of all elements of a kind that have these."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]

    def one(self, tag: str, **attributes: str) -> dict[str, Any]:
        """The attributes of the only such element."""
        (found,) = self.all(tag, **attributes)
        return found

    def table(self, caption: str) -> list[list[str]]:
        """The rows of the table whose caption begins so, without its head."""
        (rows,) = (rows for name, rows in self.tables.items() if name.startswith(caption))
        return rows[1:]
