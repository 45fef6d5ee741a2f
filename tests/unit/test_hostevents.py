"""What a host wrote down by itself comes into the timeline once, and only what is lawful."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orchestrator.ledger.store import Ledger
from orchestrator.usecases import hostevents
from tests.helpers.runs import AT, a_run

FIRED = {"at": AT, "kind": "guard", "message": "loss is nan", "number": 1, "action": "stop"}


def noted(ledger: Ledger, *events: Any) -> list[str]:
    run = a_run()
    hostevents.note(ledger, run, {"events": list(events)}, AT)
    return [e.data["message"] for e in ledger.events(run.run_id) if e.kind in hostevents.KINDS]


def test_each_event_comes_once_also_when_two_commands_ask_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as ledger:
        ledger.intend(a_run())

    def ask(_: int) -> None:
        with Ledger.open(path) as mine:
            noted(mine, FIRED, {**FIRED, "number": 2})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(24)))
    with Ledger.open(path) as ledger:
        assert noted(ledger, FIRED) == ["loss is nan", "loss is nan"]


def test_what_is_no_event_is_passed_over(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        ledger.intend(a_run())
        bad = [1, None, [], {}, {**FIRED, "kind": "finished"}, {**FIRED, "number": "1"},
               {**FIRED, "message": None}, {**FIRED, "evidence": "x" * 50_000}]  # fmt: skip
        assert noted(ledger, *bad) == []
        assert noted(ledger, {**FIRED, "at": "yesterday", "message": "m" * 5000}) == ["m" * 1000]
        run = a_run()
        hostevents.note(ledger, run, {"events": "none"}, AT)
