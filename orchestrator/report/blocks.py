"""What a report is made of. Texts are plain and unsafe; whoever writes them out makes them safe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Text(NamedTuple):
    """A paragraph. `tone`: "" | good | bad | warn | muted."""

    text: str
    tone: str = ""


class Items(NamedTuple):
    """A list of short texts."""

    items: Sequence[str]


class Facts(NamedTuple):
    """Names and values, in pairs."""

    pairs: Sequence[tuple[str, str]]


class Table(NamedTuple):
    """`numeric`: the columns to be set flush right. The first column is the row's name."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[int] = ()
    code: Sequence[int] = ()


class Code(NamedTuple):
    """Text as it is, line by line. `kind`: "" | diff | json | log | sh."""

    text: str
    kind: str = ""


class Figure(NamedTuple):
    """A picture as SVG of our own making, safe already; `instead`: the same without pictures."""

    svg: str
    caption: str
    instead: Sequence[Table | Text | Items] = ()
    legend: Sequence[tuple[str, str]] = ()  # (class of the mark, text)
    wide: bool = False


class Details(NamedTuple):
    """Folded away until asked for."""

    summary: str
    blocks: Sequence[Text | Items | Facts | Table | Code]


class Moment(NamedTuple):
    at: str
    title: str
    text: str
    tone: str = ""


class Timeline(NamedTuple):
    moments: Sequence[Moment]


Block = Text | Items | Facts | Table | Code | Figure | Details | Timeline


class Section(NamedTuple):
    title: str
    blocks: Sequence[Block]


class Headline(NamedTuple):
    """What a reader sees first. Badges: (text, tone)."""

    job: str
    about: str
    run_id: str
    badges: Sequence[tuple[str, str]]
    figure: str  # the accuracy in large, or a word
    figure_about: str
    scale: str  # SVG, or empty
    reasons: Sequence[tuple[str, str]]  # (text, tone)


class Report(NamedTuple):
    headline: Headline
    sections: Sequence[Section]
    footer: str
