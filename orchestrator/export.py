"""The ledger's runs as CSV or JSON text. Pure; both hold the fields of `orch show --json`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator import sanitize
from orchestrator.domain import Run
from orchestrator.runjson import FIELDS, json_text, to_json

# Fields that are objects: each of their keys is a column of its own.
_OBJECTS = ("session", "config", "overrides", "metrics", "data", "tags")


def to_json_text(runs: Sequence[Run]) -> str:
    """A JSON list of the runs, in the order given, ended by a line feed."""
    return json_text([to_json(run) for run in runs])


def to_csv(runs: Sequence[Run]) -> str:
    """One line a run under a line of names, in the order given; RFC 4180 with LF line ends.

    The fields come in their fixed order, an object's keys sorted among themselves:
    `config.training.ema` is the column of that key, empty for a run without it. An empty field is
    null, lists are JSON. Control characters are escapes, as on a terminal; a text a spreadsheet
    would run as a formula begins with an apostrophe.
    """
    documents = [_flat(to_json(run)) for run in runs]
    names = _names(documents)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([_inert(name) for name in names])
    for document in documents:
        writer.writerow([_field(document.get(name)) for name in names])
    return out.getvalue()


def _names(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    found: dict[str, set[str]] = {field: set() for field in FIELDS}
    for document in documents:
        for name in document:
            found[name.partition(".")[0]].add(name)
    names: list[str] = []
    for field in FIELDS:
        names += sorted(found[field]) if field in _OBJECTS else [field]
    return names


def _flat(document: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for field, value in document.items():
        if field in _OBJECTS:
            _flatten(field, value or {}, flat)
        else:
            flat[field] = value
    return flat


def _flatten(name: str, value: Any, into: dict[str, Any]) -> None:
    if not isinstance(value, dict):
        into[name] = value
        return
    for key, item in value.items():
        # A key with a dot of its own is quoted, so that two paths never share a column.
        path = f'{name}."{key}"' if "." in key else f"{name}.{key}"
        if item == {}:
            into[path] = item
        else:
            _flatten(path, item, into)


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return _inert(value)
    return json.dumps(value, separators=(",", ":"))


def _inert(value: str) -> str:
    text = sanitize.text(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@", "\t") else text
