"""A Run as a row of the ledger and back. Pure.

One column for each field of `Run`, under the same name; anything that is not a number or a text is
JSON. What comes back equals what went in, but that lists in a config stay lists, tuples become
lists there, and a number that is not finite becomes null (JSON has no word for it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from enum import Enum
from typing import Any

from orchestrator.domain import Event, Fetched, Outcome, Run, RunState, Session, Verdict

Cell = str | int | float | None


def dumps(value: Any) -> str:
    """JSON text in ASCII. Tuples as lists, enums as their value, NaN and infinities as null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain)
    except ValueError:
        return json.dumps(
            without_nan(value), allow_nan=False, separators=(",", ":"), default=_plain
        )


def text(value: str) -> str:
    """The text with lone surrogates (a file name that is not UTF-8) written as escapes."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")


def finite(value: float | None) -> float | None:
    """An accuracy as the ledger may hold it: a finite float, or None."""
    return float(value) if value is not None and math.isfinite(value) else None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)


def without_nan(value: Any) -> Any:
    """The value with None for each number in it that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    return value


def _flag(value: Any) -> bool | None:
    return None if value is None else bool(value)


def _object(value: str) -> Any:
    return {} if value == "{}" else json.loads(value)


def _array(value: str) -> tuple[Any, ...]:
    return () if value == "[]" else tuple(json.loads(value))


def _matrix(value: str) -> tuple[tuple[int, ...], ...]:
    return () if value == "[]" else tuple(tuple(row) for row in json.loads(value))


def _session(value: str | None) -> Session | None:
    return None if value is None else Session(**json.loads(value))


_STATE = {each.value: each for each in RunState}
_VERDICT: dict[str | None, Verdict | None] = {None: None, **{e.value: e for e in Verdict}}
_OUTCOME: dict[str | None, Outcome | None] = {None: None, **{e.value: e for e in Outcome}}
_FETCHED = {each.value: each for each in Fetched}

_DECODE: dict[str, Callable[[Any], Any]] = {
    "state": _STATE.__getitem__,
    "verdict": _VERDICT.__getitem__,
    "outcome": _OUTCOME.__getitem__,
    "fetched": _FETCHED.__getitem__,
    "forced": bool,
    "git_dirty": _flag,
    "session": _session,
    "outcome_reasons": _array,
    "labels": _array,
    "confusion_matrix": _matrix,
    "findings": _array,
    "tags": _object,
    "data": _object,
    "overrides": _object,
    "metrics": _object,
    "config": _object,
    "spec": _object,
}
_JSON = frozenset(name for name, decode in _DECODE.items() if decode in (_object, _array, _matrix))

COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Run))
COLUMN_LIST = ", ".join(COLUMNS)
_DECODERS = tuple(_DECODE.get(name) for name in COLUMNS)


def cell(name: str, value: Any) -> Cell:
    """The value of one Run field as SQLite stores it."""
    if name in _JSON:
        return dumps(value)
    if value is None:
        return None
    if name == "session":
        return dumps({"kind": value.kind, "name": value.name})
    if name == "accuracy":
        return finite(value)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, str):
        return text(value)
    return int(value)


def cells(run: Run) -> tuple[Cell, ...]:
    """The run's row, in the order of COLUMNS."""
    return tuple(cell(name, getattr(run, name)) for name in COLUMNS)


def run_of(row: tuple[Any, ...]) -> Run:
    """The run of a row selected as COLUMNS. KeyError, ValueError or TypeError: not our row.

    One that never ran supersedes nothing; its row keeps what it was to supersede, should its host
    prove that it runs after all.
    """
    run = Run(*[v if d is None else d(v) for d, v in zip(_DECODERS, row, strict=True)])
    return replace(run, supersedes=None) if run.supersedes and run.never_ran else run


def event_of(row: tuple[Any, ...]) -> Event:
    """The event of a row (run_id, seq, at, kind, data)."""
    return Event(row[0], row[1], row[2], row[3], json.loads(row[4]))
