"""What a run's host wrote down by itself: guards that fired, notifications that did not get out,
processes that the job left behind, what it changed of its config and code before an attempt, code
that a crash of the host had cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator import lawful
from orchestrator.domain import Run
from orchestrator.ledger.store import Ledger

CHANGED = "changed"
KINDS = ("guard", "notify", "leftover", CHANGED, "mended")
COUNT_MAX = 100
TEXT_MAX = 1000
ITEM_MAX = 20_000
KEPT = ("guard", "action", "acted", "evidence", "attempt")


def note(ledger: Ledger, run: Run, status: Mapping[str, Any], at: str) -> None:
    """Every event in the host's status is in the run's timeline once, at the host's time."""
    told = status.get("events")
    if not isinstance(told, list) or not told:
        return
    known = {event.data.get("number") for event in ledger.events(run.run_id) if event.kind in KINDS}
    for item in told[:COUNT_MAX]:
        if _is_lawful(item) and item["number"] not in known:
            known.add(item["number"])
            about = {key: item[key] for key in KEPT if key in item}
            message = {"message": item["message"][:TEXT_MAX], "number": item["number"]}
            moment = lawful.moment(item.get("at")) or at
            ledger.event_once(run.run_id, moment, item["kind"], {**message, **about})


def _is_lawful(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and lawful.is_plain(item)
        and item.get("kind") in KINDS
        and isinstance(item.get("message"), str)
        and type(item.get("number")) is int
        and len(repr(item)) < ITEM_MAX
    )
