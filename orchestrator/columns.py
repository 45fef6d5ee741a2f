"""A table of runs with the columns that were asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from orchestrator.domain import Run
from orchestrator.runtext import (
    brief,
    outcome_colours,
    percent,
    ran_for,
    status_colours,
    status_words,
)
from orchestrator.selection import COLUMNS, RAN, STATUS, tags_words, value_of
from orchestrator.tables import PLAIN, RUN_ID, Cell, Column, Style, layout


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
        Column(
            name if "." in name else name.upper(),
            right=at in numbers,
            shrink=at not in numbers,
            least=RUN_ID if name in ("run", "run_id", "supersedes") else 0,
        )
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
    if name == STATUS:
        return Cell(status_words(run, now), status_colours(run))
    if name in ("state", "verdict"):
        return Cell(_text(value_of(run, name)), status_colours(run))
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
