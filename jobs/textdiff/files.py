"""Files that are written whole: a crash or a reader meets the old one or the new, never half."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

PARTIAL = ".partial"  # the end of the name of a file that is not whole yet


@contextlib.contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """The file for what `path` is to hold: it has that name, on the disk, after the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a crash after the rename may show an empty file
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """`path` holds `value`."""
    write_text(path, _laid_out(value) + "\n")


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """`path` holds one JSON object a line."""
    write_text(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """`path` holds `text`."""
    with whole(path) as file:
        file.write(text.encode("utf8"))


def sweep(folder: Path) -> None:
    """What a crash left half written in `folder` is gone, and the folder too if it held no more."""
    halves = list(folder.glob(f"*{PARTIAL}"))
    for half in halves:
        half.unlink(missing_ok=True)
    if halves and not any(folder.iterdir()):
        folder.rmdir()


def _laid_out(value: object, margin: str = "") -> str:
    """JSON with a line for each entry, and one for a list of plain values, as a matrix has."""
    inner = margin + "  "
    if isinstance(value, Mapping) and value:
        entries = (f"{json.dumps(key)}: {_laid_out(own, inner)}" for key, own in value.items())
        left, right = "{", "}"
    elif isinstance(value, (list, tuple)) and any(isinstance(v, (Mapping, list)) for v in value):
        entries = (_laid_out(own, inner) for own in value)
        left, right = "[", "]"
    else:
        return json.dumps(value, allow_nan=False)
    return left + ",".join(f"\n{inner}{entry}" for entry in entries) + f"\n{margin}{right}"
