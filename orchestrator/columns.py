"""A table of runs with the columns that were asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from orchestrator.comparetext import brief
from orchestrator.domain import Run
from orchestrator.runtext import outcome_colours, percent, ran_for, state_colours, state_words
from orchestrator.selection import COLUMNS, RAN, tags_words, value_of
from orchestrator.tables import PLAIN, Cell, Column, Style, layout


def columns_table(
    runs: Sequence[Run], names: Sequence[str], now: datetime, style: Style = PLAIN
) -> str:
    """One line a run; a column that is empty in every run is left out."""
    rows = [[_cell(run, name, now) for name in names] for run in runs]
    numbers = {
        at
        for at in range(len(names))
        if any(isinstance(value_of(run, names[at]), (int, float)) for run in runs)
    }
    heads = [
        Column(name if "." in name else name.upper(), right=at in numbers, shrink=at not in numbers)
        for at, name in enumerate(names)
    ]
    return layout(heads, rows, style)


def unknown(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """The bare names that are no field, and no metric of any of the runs."""
    ours = {*COLUMNS, *RAN}
    return [
        name
        for name in names
        if name not in ours and runs and all(value_of(run, name) is None for run in runs)
    ]


def _cell(run: Run, name: str, now: datetime) -> Cell:
    if name == "state":
        return Cell(state_words(run, now), state_colours(run))
    if name == "outcome":
        return Cell(run.outcome.value if run.outcome else "", outcome_colours(run))
    if name == "accuracy":
        return Cell(percent(run.accuracy))
    if name in RAN:
        return Cell(ran_for(run, now))
    if name == "tags":
        return Cell(tags_words(run))
    return Cell(_text(value_of(run, name)))


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return brief(value)
