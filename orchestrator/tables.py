"""Columns of text for a terminal: widths, colours, what to leave out when it is narrow. Pure.

Written by hand, since `orch ls` may not cost the import of a rendering library.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TextIO

from orchestrator import sanitize

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "cyan": "36",
}
_GAP = "  "
RUN_ID = 24  # columns of a run id, which is never cut: it is there to be copied
_LEAST = 12  # a column that shrinks keeps this width while there are others to leave out
_WORD = 10  # what any text keeps before a column with a negative `drop` goes: `degenerate`
_MARKED = 4  # what it keeps however narrow the terminal is


# Named tuples here and in render: a dataclass costs each `orch ls` a millisecond to define.


class Style(NamedTuple):
    """How to write to one stream: with colours or not; `width` in columns, None: no terminal.

    `dumb`: a terminal that takes no control sequence.
    """

    colour: bool = False
    width: int | None = None
    dumb: bool = False

    @property
    def redraws(self) -> bool:
        """Whether what was written can be written over."""
        return self.width is not None and not self.dumb

    def paint(self, text: str, *colours: str) -> str:
        codes = ";".join(_CODES[each] for each in colours)
        return f"\x1b[{codes}m{text}\x1b[0m" if self.colour and codes and text else text


PLAIN = Style()


def style_of(stream: TextIO, environ: Mapping[str, str]) -> Style:
    """Colours and a width for a terminal; neither for a pipe or a file.

    NO_COLOR (any value but the empty one) and TERM=dumb (or unknown) take the colours away.
    """
    try:
        terminal = stream.isatty()
        columns = os.get_terminal_size(stream.fileno()).columns if terminal else 0
    except (OSError, ValueError):
        terminal, columns = False, 0
    dumb = environ.get("TERM") in ("dumb", "unknown")
    return Style(terminal and not dumb and not environ.get("NO_COLOR"), columns or None, dumb)


class Cell(NamedTuple):
    """One field of a table. `text` is made safe here; colours are ours."""

    text: str
    colours: tuple[str, ...] = ()


class Column(NamedTuple):
    """`drop`: which columns go first when the terminal is narrow, highest first; 0 never goes.

    Those below 0 go last, lowest first, when the texts of the others have been cut. `shrink`: its
    texts are cut before any column goes. `least`: no text is ever cut to fewer columns than these.
    """

    title: str
    right: bool = False
    drop: int = 0
    shrink: bool = False
    least: int = 0


def layout(columns: Sequence[Column], rows: Sequence[Sequence[str | Cell]], style: Style) -> str:
    """The table with a line of titles, each line ended by a line feed; no trailing spaces.

    A column in which every row is empty is left out; of no column at all there is no table.
    """
    cells = [[each if isinstance(each, Cell) else Cell(each) for each in row] for row in rows]
    safe = [[Cell(sanitize.line(each.text), each.colours) for each in row] for row in cells]
    kept = [i for i in range(len(columns)) if not rows or any(row[i].text for row in safe)]
    if not kept:
        return ""
    widths = {
        i: max([len(columns[i].title), *(width_of(row[i].text) for row in safe)]) for i in kept
    }
    widths = _fitted(columns, widths, style.width)
    heads = [Cell(column.title, ("bold",)) for column in columns]
    lines = [heads, *safe]
    return "".join(_line(columns, line, widths, style) for line in lines)


def _fitted(
    columns: Sequence[Column], widths: Mapping[int, int], limit: int | None
) -> dict[int, int]:
    """The widths of the columns that stay, so that a line fits in `limit` where it can."""
    kept = fitted = dict(widths)
    if limit is None:
        return fitted
    texts = [i for i in widths if not columns[i].right]
    stages: tuple[tuple[list[int], int, list[int]], ...] = (
        ([i for i in texts if columns[i].shrink], _LEAST, [i for i in kept if columns[i].drop > 0]),
        (texts, _WORD, [i for i in kept if columns[i].drop < 0]),
        (texts, _MARKED, []),
    )
    for elastic, least, going in stages:
        floors = {i: max(least, columns[i].least) for i in elastic}
        going.sort(key=lambda i: abs(columns[i].drop))
        fitted = _narrowed(kept, floors, limit)
        while _total(fitted) > limit and going:
            del kept[going.pop()]
            fitted = _narrowed(kept, floors, limit)  # the rest may have its full width again
        if _total(fitted) <= limit:
            break
    return fitted


def _narrowed(widths: Mapping[int, int], floors: Mapping[int, int], limit: int) -> dict[int, int]:
    """The widest of the columns in `floors` made narrower until all fit or none can give more."""
    fitted = dict(widths)
    while (over := _total(fitted) - limit) > 0:
        wide = sorted((i for i in floors if fitted.get(i, 0) > floors[i]), key=lambda i: fitted[i])
        if not wide:
            break
        widest = fitted[wide[-1]]
        target = max(widest - over, floors[wide[-1]], fitted[wide[-2]] if len(wide) > 1 else 0)
        fitted[wide[-1]] = min(widest - 1, target)
    return fitted


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + len(_GAP) * (len(widths) - 1)


def _line(
    columns: Sequence[Column], cells: Sequence[Cell], widths: Mapping[int, int], style: Style
) -> str:
    parts = []
    last = max(widths, default=0)
    for i, width in widths.items():
        text = clip(cells[i].text, width)
        space = " " * (width - width_of(text))
        painted = style.paint(text, *cells[i].colours)
        if columns[i].right:
            parts.append(space + painted)
        else:
            parts.append(painted if i == last else painted + space)
    return _GAP.join(parts).rstrip() + "\n"


def width_of(text: str) -> int:
    """Columns the text takes on a terminal: two for a wide sign, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(_sign_width(sign) for sign in text)


def clip(text: str, width: int) -> str:
    """The text, or its start and `…`, in at most `width` columns."""
    if width_of(text) <= width:
        return text
    taken, used = [], 0
    for sign in text:
        used += _sign_width(sign)
        if used > width - 1:
            break
        taken.append(sign)
    return "".join(taken) + "…"


def _sign_width(sign: str) -> int:
    if unicodedata.combining(sign) or unicodedata.category(sign) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1
