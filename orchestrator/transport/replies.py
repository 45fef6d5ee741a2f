"""What hosts answer, taken apart with care: another shape is FrameGarbled, never a surprise."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from orchestrator.errors import FrameGarbled

OFFSET_MAX = 2**63


def unlawful(what: str) -> FrameGarbled:
    return FrameGarbled(
        f"the host sent {what}; nothing was concluded from it",
        hint="run the command again; if it stays so, the host's agent is not ours",
    )


def run_status(value: Any, run_id: str | None = None) -> dict[str, Any]:
    """One run's status: an object with `run_id` (the one asked for) and `phase`."""
    lawful = (
        isinstance(value, dict)
        and isinstance(value.get("run_id"), str)
        and isinstance(value.get("phase"), str)
    )
    if not lawful or (run_id is not None and value["run_id"] != run_id):
        raise unlawful("a status that is none")
    return dict(value)


def run_statuses(listed: Sequence[Any], asked: Collection[str]) -> list[dict[str, Any]]:
    """The statuses, none but of the runs asked for: a host speaks for its own only."""
    found = [run_status(item) for item in listed]
    if not {status["run_id"] for status in found} <= set(asked):
        raise unlawful("the status of a run that was not asked for")
    return found


def only_status(listed: Sequence[Any], run_id: str) -> dict[str, Any]:
    found = run_statuses(listed, [run_id])
    if len(found) != 1:
        raise unlawful("another number of runs than were asked for")
    return found[0]


def words(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise unlawful("no list of words")
    return list(value)


def offset(value: Any) -> int | None:
    """A byte offset, or None for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < OFFSET_MAX:
        return None
    return value
