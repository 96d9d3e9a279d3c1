"""A page read back: its elements, attributes, texts and tables."""

from __future__ import annotations

import re
from html.parser import HTMLParser

VOID = {"meta", "img", "link", "br", "input"}


DRAWN = {"img", "group"}  # a chart with links in it is a group


class Page(HTMLParser):
    """The elements, attributes and texts of a page, and its tables as rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.texts.append(data)
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))

    def table(self, *header: str) -> list[list[str]]:
        """The rows below the one table whose header begins so."""
        found = [rows for rows in self.tables if tuple(cell.strip() for cell in rows[0][: len(header)]) == header]
        assert len(found) == 1, [rows[0] for rows in self.tables]
        return [[re.sub(r"\s+", " ", cell).strip() for cell in row] for row in found[0][1:]]
