"""A run as the JSON document that `orch show --json` and `orch ls --json` print. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

from orchestrator.domain import Event, Run

# The keys that are promised, then those that may grow. Their order is the documents' order.
PROMISED = (
    "run_id",
    "job",
    "state",
    "verdict",
    "exit_code",
    "signal",
    "outcome",
    "outcome_reasons",
    "config_hash",
    "config",
    "snapshot",
    "git_commit",
    "git_dirty",
    "host",
    "session",
    "created_at",
    "started_at",
    "ended_at",
    "last_seen_at",
    "accuracy",
    "metrics",
    "confusion_matrix",
    "labels",
    "results_path",
    "fetched",
    "supersedes",
    "tags",
    "note",
)
MORE = ("project", "profile", "overrides", "findings", "forced", "data", "attempt", "cause")
FIELDS = PROMISED + MORE


def to_json(run: Run, events: Sequence[Event] | None = None) -> dict[str, Any]:
    """JSON values only: enums as their words, numbers finite or None, `session` an object or None.

    Always every key of FIELDS; `events` too when they are given.
    """
    document = {name: plain(getattr(run, name)) for name in FIELDS}
    if run.session is not None:
        document["session"] = {"kind": run.session.kind, "name": run.session.name}
    if events is not None:
        document["events"] = [
            {"seq": each.seq, "at": each.at, "kind": each.kind, "data": plain(each.data)}
            for each in events
        ]
    return document


def json_text(document: Any) -> str:
    """The document as ASCII, so safe for any terminal and locale; ended by a line feed."""
    text = json.dumps(plain(document), indent=2, allow_nan=False)
    return text.replace("\x7f", "\\u007f") + "\n"


def plain(value: Any) -> Any:
    """The value as JSON can hold it: None for a number that is not finite, text for what is new."""
    if value is None or (isinstance(value, (bool, int)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if value - value == 0.0 else None  # inf - inf and nan - nan are nan
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)
