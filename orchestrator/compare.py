"""What differs between runs: configs, code, environments, data, results. Pure."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from orchestrator.checks.binomial import wilson
from orchestrator.domain import Run
from orchestrator.nested import leaves
from orchestrator.recorded import examples
from orchestrator.runjson import plain
from orchestrator.wording import size

SECTIONS = ("run", "result", "config", "environment", "data", "metrics")
DIFF_LINES = 400  # of one file; what is beyond is counted


class Absent:
    """The value of a key that a run does not have."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


@dataclass(frozen=True, slots=True)
class Row:
    """One key and its value in each run, in the runs' order; ABSENT where it is not.

    `typed`: 1 and 1.0 differ, as they do in the hash of a config.
    """

    key: str
    values: tuple[Any, ...]
    typed: bool = False

    @property
    def differs(self) -> bool:
        return any(not same(self.values[0], value, self.typed) for value in self.values[1:])


class CodeFile(NamedTuple):
    """A file of a snapshot: permission bits, `f` or `l`, bytes, sha256 in hex."""

    mode: int
    kind: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class FileChange:
    """`change`: added | removed | changed | mode. `diff`: unified lines, or None and `why`."""

    path: str
    change: str
    before: CodeFile | None
    after: CodeFile | None
    diff: tuple[str, ...] | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class CodeChange:
    """From the first run's code to that of `run_id`; `files` is None when it could not be had."""

    run_id: str
    same: bool
    files: tuple[FileChange, ...] | None = None


@dataclass(frozen=True, slots=True)
class AccuracyChange:
    """The second accuracy less the first, as shares, and its 95 % interval where n is known."""

    difference: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    runs: tuple[Run, ...]
    sections: Mapping[str, tuple[Row, ...]]  # every key, also those that are the same
    code: tuple[CodeChange, ...]
    accuracy: AccuracyChange | None
    missing: tuple[str, ...]  # what could not be compared, and why

    def differing(self, section: str) -> list[Row]:
        return [row for row in self.sections[section] if row.differs]


def compare(
    runs: Sequence[Run],
    environments: Sequence[Mapping[str, Any] | None],
    code: Sequence[CodeChange],
    missing: Sequence[str] = (),
) -> Comparison:
    """`environments` in the runs' order; when one is not known none is compared."""
    known = [each for each in environments if each is not None]
    parts: dict[str, Sequence[Mapping[str, Any]]] = {
        "run": [_about(run) for run in runs],
        "result": [_result(run) for run in runs],
        "config": [run.config for run in runs],
        "environment": known if len(known) == len(runs) else [{} for _ in runs],
        "data": [run.data for run in runs],
        "metrics": [_metrics(run) for run in runs],
    }
    sections = {name: tuple(rows_of(parts[name], name == "config")) for name in SECTIONS}
    change = accuracy_change(runs[0], runs[1]) if len(runs) == 2 else None
    return Comparison(tuple(runs), sections, tuple(code), change, tuple(missing))


def rows_of(mappings: Sequence[Mapping[str, Any]], typed: bool = False) -> list[Row]:
    """Every dotted key of any of them, in the order in which they first come."""
    flat = [dict(leaves(mapping)) for mapping in mappings]
    keys = dict.fromkeys(key for each in flat for key in each)
    return [Row(key, tuple(each.get(key, ABSENT) for each in flat), typed) for key in keys]


def same(one: Any, other: Any, typed: bool = False) -> bool:
    """Equal as JSON values: 1 is not true, and 1 is 1.0 (not if `typed`); NaN is NaN."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if typed and isinstance(one, float) != isinstance(other, float):
        return False
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(
            same(each, another, typed) for each, another in zip(one, other, strict=True)
        )
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key], typed) for key in one)
    return bool(one == other)


def _about(run: Run) -> dict[str, Any]:
    return {
        "job": run.job,
        "profile": run.profile,
        "host": run.host,
        "config_hash": run.config_hash,
        "snapshot": run.snapshot,
        "git_commit": run.git_commit,
        "git_dirty": run.git_dirty,
        "forced": run.forced,
        "note": run.note,
        **{name: value for name, value in _maps(run).items() if value},
    }


def _maps(run: Run) -> dict[str, dict[str, Any]]:
    waived = {
        str(each.get("key") or each.get("rule")): each["waived"]
        for each in run.findings
        if each.get("waived")
    }
    return {"overrides": dict(run.overrides), "waived": waived, "tags": dict(run.tags)}


def _result(run: Run) -> dict[str, Any]:
    return {
        "state": run.state.value,
        "verdict": run.verdict.value if run.verdict else None,
        "exit_code": run.exit_code,
        "signal": run.signal,
        "outcome": run.outcome.value if run.outcome else None,
        "outcome_reasons": list(run.outcome_reasons),
        "accuracy": run.accuracy,
        "confusion_matrix": [list(row) for row in run.confusion_matrix] or None,
        "labels": list(run.labels) or None,
    }


def _metrics(run: Run) -> dict[str, Any]:
    """Without what the result's own rows tell."""
    told = ("accuracy", "confusion_matrix", "labels")
    return {key: value for key, value in run.metrics.items() if key not in told}


def accuracy_change(first: Run, second: Run) -> AccuracyChange | None:
    """The interval is Newcombe's, from the two Wilson intervals (1998, method 10): it takes the two
    test sets for independent samples, so for one and the same test set it is wider than need be."""
    if first.accuracy is None or second.accuracy is None:
        return None
    shares = (first.accuracy, second.accuracy)
    difference = shares[1] - shares[0]
    counts = [examples(first), examples(second)]
    if not all(counts) or not all(0.0 <= share <= 1.0 for share in shares):
        return AccuracyChange(difference)
    (low1, high1), (low2, high2) = (
        wilson(share, count or 1) for share, count in zip(shares, counts, strict=True)
    )
    below = math.hypot(shares[1] - low2, high1 - shares[0])
    above = math.hypot(high2 - shares[1], shares[0] - low1)
    return AccuracyChange(difference, difference - below, difference + above)


# --- code -----------------------------------------------------------------------------------------

Code = Mapping[str, CodeFile]


def changed_files(before: Code, after: Code) -> list[FileChange]:
    """Sorted by path; without diffs."""
    found = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            found.append(FileChange(path, "added" if old is None else "removed", old, new))
        elif (old.sha256, old.kind) != (new.sha256, new.kind):
            found.append(FileChange(path, "changed", old, new))
        elif old.mode != new.mode:
            found.append(FileChange(path, "mode", old, new, (), None))
    return found


def with_diff(
    change: FileChange, read: Callable[[CodeFile], bytes | None], size_max: int
) -> FileChange:
    """The change with its text diff, or with why there is none."""
    if change.change == "mode":
        return change
    sides: list[list[str]] = []
    why = None
    for file in (change.before, change.after):
        raw = b"" if file is None else None
        if file is not None and file.size > size_max:
            why = f"larger than {size(size_max)}"
        elif file is not None:
            raw = read(file)
            why = why or ("its content could not be had" if raw is None else None)
        text = _text(raw) if raw is not None else None
        if raw is not None and text is None:
            why = why or "not text"
        sides.append((text or "").splitlines())
    if why is not None:
        return FileChange(change.path, change.change, change.before, change.after, None, why)
    lines = list(difflib.unified_diff(sides[0], sides[1], lineterm="", n=2))[2:]
    if len(lines) > DIFF_LINES:
        lines = [*lines[:DIFF_LINES], f"... {len(lines) - DIFF_LINES} more lines"]
    return FileChange(change.path, change.change, change.before, change.after, tuple(lines))


def _text(raw: bytes) -> str | None:
    if b"\0" in raw:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


# --- the document ---------------------------------------------------------------------------------


def document(found: Comparison, everything: bool) -> dict[str, Any]:
    """For --json. A run that lacks a key is not among that key's `values`."""
    ids = [run.run_id for run in found.runs]
    return {
        "runs": ids,
        **{
            name: [_row_json(row, ids) for row in found.sections[name] if everything or row.differs]
            for name in SECTIONS
        },
        "code": [_code_json(each, ids[0]) for each in found.code],
        "accuracy_change": None
        if found.accuracy is None
        else {
            "difference": found.accuracy.difference,
            "interval": None
            if found.accuracy.low is None
            else [found.accuracy.low, found.accuracy.high],
        },
        "missing": list(found.missing),
    }


def _row_json(row: Row, ids: Sequence[str]) -> dict[str, Any]:
    pairs = zip(ids, row.values, strict=True)
    told = {run_id: plain(value) for run_id, value in pairs if value is not ABSENT}
    return {"key": row.key, "differs": row.differs, "values": told}


def _code_json(change: CodeChange, first: str) -> dict[str, Any]:
    files = change.files
    return {
        "from": first,
        "to": change.run_id,
        "same": change.same,
        "files": None
        if files is None
        else [
            {
                "path": each.path,
                "change": each.change,
                "diff": None if each.diff is None else list(each.diff),
                "why_no_diff": each.why,
            }
            for each in files
        ],
    }
