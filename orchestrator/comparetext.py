"""A comparison as text for people. Pure."""

from __future__ import annotations

from typing import Any

from orchestrator import runtext, sanitize
from orchestrator.compare import ABSENT, SECTIONS, CodeChange, Comparison, FileChange, Row
from orchestrator.runtext import accuracy_words, status_words
from orchestrator.tables import PLAIN, Cell, Column, Style, layout

_KEY = 60  # columns of a key that is never cut
_SIGNS = {"added": "+", "removed": "-", "changed": "~", "mode": "m"}
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def compare_text(found: Comparison, style: Style = PLAIN, *, everything: bool = False) -> str:
    """What differs, section by section; then what is the same, in one line.

    `everything`: also the keys that are the same.
    """
    names = short_ids([run.run_id for run in found.runs])
    blocks = [_heads(found, style)]
    alike = []
    for section in SECTIONS:
        rows = found.sections[section]
        shown = list(rows) if everything else found.differing(section)
        if shown:
            blocks.append(_section(section, shown, names, style))
        elif rows:
            alike.append(section)
    for change in found.code:
        if change.same:
            alike.append("code")
        elif change.files is not None:
            blocks.append(_code(change, names, found, style))
    if alike:
        blocks.append("the same: " + ", ".join(dict.fromkeys(alike)) + "\n")
    if found.missing:
        lines = "".join(f"  {sanitize.line(each)}\n" for each in found.missing)
        blocks.append(style.paint("could not be had as it was", "yellow") + "\n" + lines)
    return "\n".join(blocks)


def short_ids(ids: list[str]) -> list[str]:
    """The ids without the pieces (date, time) that all of them begin with."""
    pieces = [each.split("-") for each in ids]
    cut = 0
    while all(len(each) > cut + 1 for each in pieces) and len({each[cut] for each in pieces}) == 1:
        cut += 1
    return ["-".join(each[cut:]) for each in pieces]


def _heads(found: Comparison, style: Style) -> str:
    lines = []
    for run in found.runs:
        outcome = f", {run.outcome.value}" if run.outcome else ""
        accuracy = f", accuracy {accuracy_words(run)}" if run.accuracy is not None else ""
        told = f"{run.job}  {status_words(run)}{outcome}{accuracy}"
        lines.append(f"{style.paint(sanitize.line(run.run_id), 'bold')}  {sanitize.line(told)}\n")
    return "".join(lines) + accuracy_line(found)


def accuracy_line(found: Comparison) -> str:
    change = found.accuracy
    if change is None or not change.difference:
        return ""
    words = f"accuracy {change.difference * 100:+.1f} points"
    if change.low is not None and change.high is not None:
        words += f" (95 % interval {change.low * 100:+.1f} to {change.high * 100:+.1f}"
        inside = change.low <= 0.0 <= change.high
        words += "; no difference is within it)" if inside else ")"
    return words + "\n"


def _section(section: str, rows: list[Row], names: list[str], style: Style) -> str:
    columns = [Column(section.upper(), least=_KEY)] + [Column(name, shrink=True) for name in names]
    lines: list[list[str | Cell]] = []
    for row in rows:
        values = [
            Cell(words, () if value is not ABSENT else ("dim",))
            for value, words in values_of(section, row)
        ]
        lines.append([row.key, *values])
    return layout(columns, lines, style)


def brief_value(value: Any) -> str:
    return "(absent)" if value is ABSENT else runtext.brief_value(value)


def values_of(section: str, row: Row) -> list[tuple[Any, str]]:
    """What each run has, and its words; ABSENT also for a field of `orch`'s own that is not set.

    A null in a config, an override, the data or a metric was written there, and stays one.
    """
    own = section in ("run", "result", "environment") and not row.key.startswith("overrides.")
    if not own:
        return [(value, brief_value(value)) for value in row.values]
    values = [ABSENT if value is None else value for value in row.values]
    return [(each, "(absent)" if each is ABSENT else runtext.brief(each)) for each in values]


def _code(change: CodeChange, names: list[str], found: Comparison, style: Style) -> str:
    ids = [run.run_id for run in found.runs]
    files = change.files or ()
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    title = f"CODE {names[0]} → {names[ids.index(change.run_id)]}: {count}"
    lines = [style.paint(title, "bold") + "\n"]
    lines += [f"  {_SIGNS[each.change]} {sanitize.line(file_words(each))}\n" for each in files]
    for each in files:
        for at, line in enumerate(each.diff or ()):
            if at == 0:
                lines.append("\n" + style.paint(sanitize.line(each.path), "bold") + "\n")
            colour = _COLOURS.get(line[:1])
            safe = "  " + sanitize.line(line)
            lines.append((style.paint(safe, colour) if colour else safe) + "\n")
    return "".join(lines)


def file_words(each: FileChange) -> str:
    words = each.path
    if each.change == "mode" and each.before and each.after:
        words += f" (mode {each.before.mode:o} → {each.after.mode:o})"
    elif each.change != "changed":
        words += f" ({each.change})"
    return words + (f" (no diff: {each.why})" if each.why else "")
