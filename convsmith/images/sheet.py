"""Reading a CSV file row by row: encoding, delimiter and header settled first, and every row with its line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from convsmith.errors import DataError, UsageError
from convsmith.images.decode import shown
from convsmith.images.folders import EXTENSIONS, path_to_id
from convsmith.registry import suggestion

HEAD = 200  # rows looked at before anything is decided
NAMED = 5  # lines given as examples
_DELIMITERS = (",", ";", "\t")
_AS_UTF8 = "Save it as CSV in UTF-8 (in Excel: Save As, CSV UTF-8)."


@dataclass(frozen=True)
class Sheet:
    """A CSV file whose header has been read.

    Args:
        path: where it lies.
        delimiter: comma, semicolon or tab.
        columns: the header, without padding, each name once.
        head: the first rows, for guesses.
    """

    path: Path
    delimiter: str
    columns: tuple[str, ...]
    head: tuple[tuple[str, ...], ...]

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield (number of the line where the row begins, from 1; its fields) below the header, without blank lines."""
        yield from _rows(self.path, self.delimiter, skip=1)

    def find(self, name: str, option: str) -> int:
        """Return the place of a column, by its exact name or, where only one fits, whatever its case.

        Raises:
            UsageError: there is no such column; `option` is what the user typed it after.
        """
        if name in self.columns:
            return self.columns.index(name)
        folded = [i for i, column in enumerate(self.columns) if column.casefold() == name.strip().casefold()]
        if len(folded) == 1:
            return folded[0]
        raise UsageError(
            f"{shown(str(self.path))} has no column {shown(name)} for {option}; it has {self.listed()}.",
            mend=suggestion(name, self.columns),
        )

    def values(self, column: int) -> list[str]:
        """The column's values in the first rows, without padding and without the empty ones."""
        found = (row[column].strip() for row in self.head if column < len(row))
        return [value for value in found if value]

    def listed(self) -> str:
        return ", ".join(path_to_id(column) for column in self.columns)


def open_sheet(path: Path) -> Sheet:
    """Read the header of a CSV file and its first rows.

    UTF-8 with or without a byte order mark; comma, semicolon or tab, whichever divides the header into most columns.

    Raises:
        DataError: no text in UTF-8, empty, no header, or one column only.
    """
    name = shown(str(path))
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.", mend="Check its permissions.") from error
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{name} is UTF-16, and only UTF-8 is read.", mend=_AS_UTF8)
    if b"\0" in start:
        raise DataError(f"{name} is not a text file.", mend=_AS_UTF8)
    header = next(_rows(path, ",", skip=0), None)
    if header is None:
        raise DataError(f"{name} is empty.", mend="Its first line names the columns, such as path,label.")
    delimiter = max(_DELIMITERS, key=lambda one: len(next(_rows(path, one, skip=0))[1]))  # the first of equals
    columns = [field.strip() for field in next(_rows(path, delimiter, skip=0))[1]]
    if any(column.lower().rpartition(".")[2] in EXTENSIONS and "." in column for column in columns):
        raise DataError(
            f"The first line of {name} names no columns: it is {', '.join(map(path_to_id, columns))}.",
            mend="Put a first line such as path,label above it.",
        )
    if len(columns) < 2:
        raise DataError(
            f"{name} has one column, {path_to_id(columns[0])}: no comma, semicolon or tab divides its first line.",
            mend="Two are needed, one with the path of an image and one with its label.",
        )
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise DataError(f"{name} has two columns named {path_to_id(twice[0])}.", mend="Rename one of them.")
    head = tuple(tuple(row) for _, (_, row) in zip(range(HEAD), _rows(path, delimiter, skip=1), strict=False))
    return Sheet(path, delimiter, tuple(columns), head)


@dataclass
class Lines:
    """Line numbers of one kind of row: all counted, the first five kept as examples."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, line: int) -> None:
        self.count += 1
        if self.count <= NAMED:
            self.first.append(line)

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.first)) + (", …" if self.count > NAMED else "")
        return f"line{'' if self.count == 1 else 's'} {listed}"


def _rows(path: Path, delimiter: str, *, skip: int) -> Iterator[tuple[int, list[str]]]:
    line = 1
    try:
        with path.open("rb") as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as stream:
            # strict, or a quotation mark that is never closed swallows the rest of the file in silence
            reader = csv.reader(stream, delimiter=delimiter, strict=skip > 0)
            for row in reader:
                begins, line = line, reader.line_num + 1
                if not row or not any(row):
                    continue
                if skip:
                    skip -= 1
                    continue
                yield begins, row
    except UnicodeDecodeError:
        raise DataError(f"{shown(str(path))} is not UTF-8: {_undecodable(path)}.", mend=_AS_UTF8) from None
    except csv.Error as error:
        raise DataError(
            f"{shown(str(path))} cannot be read as CSV at line {line:,}: {error}.",
            mend="Look for a quotation mark that is opened and not closed.",
        ) from None
    except OSError as error:
        raise DataError(
            f"{shown(str(path))} cannot be read: {error.strerror}.", mend="Check its permissions."
        ) from error


def _undecodable(path: Path) -> str:
    """The first byte that is no UTF-8, and its line: text is decoded in blocks, so its reader knows neither."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f"byte 0x{line[error.start]:02x} in line {number:,}"
    return "it ends within a character"
