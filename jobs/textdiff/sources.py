"""Rows of a table on disk: TSV, CSV or JSON lines, plain or compressed with gzip or xz; and what
any row must hold.

TSV: UTF-8, one header line, LF line ends, no quoting. CSV: as RFC 4180, one header line. JSONL: one
object a line. Every error names the file and the line, and is a DataError.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobs.textdiff.errors import DataError

KINDS = (".tsv", ".csv", ".jsonl")
PACKED = {".gz": gzip.open, ".xz": lzma.open}
LONGEST_CELL = 1 << 30  # characters of a CSV cell


def locate(name: str, folder: Path | None) -> Path:
    """An absolute path as it is; a relative one in `folder`, which ORCH_DATA names."""
    path = Path(name)
    if path.is_absolute():
        return path
    if folder is None:
        raise DataError(f"{name}: ORCH_DATA is not set; set it to the folder that holds {name}")
    return folder / name


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """(line number, the values of `columns`) of every row, in order."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in PACKED]
    kind = suffixes[-1] if suffixes else ""
    if kind not in KINDS:
        raise DataError(f"{path}: not a {', '.join(KINDS)} file, plain or with .gz or .xz")
    text = _content(path)
    if kind == ".jsonl":
        return _objects(text, path, columns)
    return _table(text, path, columns, quoted=kind == ".csv")


def labelled(path: Path, text: str, label: str) -> Iterator[tuple[int, str, str]]:
    """(line number, text, label), neither of them empty."""
    for number, (words, name) in rows(path, (text, label)):
        yield number, *pair(f"{path}: line {number}", words, name)


def pair(place: str, words: str, label: str) -> tuple[str, str]:
    """A text and its label without the spaces around it, neither of them empty."""
    if not words.strip():
        raise DataError(f"{place}: the text is empty")
    if not label.strip():
        raise DataError(f"{place}: the label is empty")
    return words, label.strip()


def as_text(place: str, values: Sequence[object]) -> list[str]:
    """What the cells of a row hold, where they are not text by their making."""
    if not all(isinstance(value, (str, int)) for value in values):
        raise DataError(f"{place}: text and label must be text or whole numbers")
    cells = [json.dumps(value) if type(value) is bool else str(value) for value in values]
    if not all(map(_encodes, cells)):
        raise DataError(f"{place}: half a character (a lone surrogate)")
    return cells


def unlabelled(place: Path, text: str) -> tuple[str, ...]:
    """The texts of a file, or of every table in a folder, in the order of their names."""
    if not place.exists():
        raise DataError(f"{place}: no such file or folder; pretrain.texts names it")
    if place.is_dir():
        paths = [p for p in sorted(place.iterdir()) if any(kind in p.suffixes for kind in KINDS)]
        if not paths:
            raise DataError(f"{place}: no {', '.join(KINDS)} file in this folder")
    else:
        paths = [place]
    return tuple(words for path in paths for _, (words,) in rows(path, (text,)) if words.strip())


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names, as they can be printed, and how many there are of them."""
    first = ", ".join(map(printable, names[:most]))
    return first if len(names) <= most else f"{first}, ... ({len(names)} in all)"


def printable(name: str) -> str:
    """The name on one line, what moves a terminal's cursor in escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)


def _content(path: Path) -> str:
    opener = PACKED.get(path.suffix, open)
    try:
        with opener(path, "rt", encoding="utf8", newline="") as file:
            return str(file.read()).removeprefix("\ufeff")
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; set ORCH_DATA to the folder with {path.parent.name}/{path.name}"
        ) from None
    except (OSError, EOFError, lzma.LZMAError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _table(
    text: str, path: Path, columns: Sequence[str], *, quoted: bool
) -> Iterator[tuple[int, list[str]]]:
    lines = _quoted(text, path) if quoted else _split(text)
    _, header = next(lines, (1, []))
    absent = [column for column in columns if column not in header]
    if absent:
        raise DataError(f"{path}: no column {absent[0]}; the first line names {some(header)}")
    twice = [column for column in columns if header.count(column) > 1]
    if twice:
        raise DataError(f"{path}: the first line names two columns {twice[0]}")
    places = [header.index(column) for column in columns]
    for number, cells in lines:
        if len(cells) != len(header):
            raise DataError(f"{path}: line {number} has {len(cells)} cells, not {len(header)}")
        yield number, [cells[place] for place in places]


def _split(text: str) -> Iterator[tuple[int, list[str]]]:
    lines = text.split("\n")  # not splitlines(): a text may hold other line ends of Unicode
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        yield number, line.removesuffix("\r").split("\t")


def _quoted(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(LONGEST_CELL)  # of the whole process; python's own is 131 072
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from error


def _objects(text: str, path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number}: not JSON: {error}") from error
        except RecursionError:
            raise DataError(f"{path}: line {number}: nested too deeply") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number}: not an object")
        absent = [column for column in columns if column not in row]
        if absent:
            raise DataError(f"{path}: line {number}: no column {absent[0]}")
        yield number, as_text(f"{path}: line {number}", [row[column] for column in columns])


def _encodes(text: str) -> bool:
    try:
        text.encode("utf8")
    except UnicodeEncodeError:
        return False
    return True
