"""A host that lies about logs and results: nothing wrong is kept, nothing outside is touched."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain import Run, RunState
from orchestrator.errors import OrchError, TransferError, TransportError
from orchestrator.ledger.store import Ledger
from orchestrator.usecases import fetch, follow
from orchestrator.usecases.context import Context
from remote import wire
from tests.contract import liar
from tests.contract.liar import RUN_ID, assert_lawful, end, exit_with, verbs

# --- the log --------------------------------------------------------------------------------------


class Sink:
    def __init__(self) -> None:
        self.data, self.markers, self.records = b"", [], []

    def log(self, data: bytes) -> None:
        self.data += data

    def marker(self, text: str) -> None:
        self.markers.append(text)

    def progress(self, record: dict[str, Any]) -> None:
        self.records.append(record)

    def notice(self, text: str) -> None:
        pass

    def look(self) -> None:
        pass


ITEMS: list[Any] = [
    7, None, [], "text", {"file": 7}, {"file": [1, 2], "offset": "x"}, {"marker": {"a": 1}},
    {"marker": "x" * 100_000}, {"progress": 7}, {"progress": "[" * 50_000}, {"progress": "NaN"},
    {"status": 7}, {"status": {"phase": ["x"], "run_id": RUN_ID}}, {"status": {"run_id": [1]}},
    {"status": {"phase": "finished", "run_id": RUN_ID, "exit": exit_with()["exit"]}},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ITEMS)))
def test_an_odd_item_between_two_pieces_of_a_log_loses_none_of_it(
    number: int, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = {"ok": True, "run_id": RUN_ID, "phase": "running", "offset": 6}
    parts = (wire.DATA, b"abc"), (wire.ITEM, ITEMS[number]), (wire.DATA, b"def")
    liar.lie(monkeypatch, end(done, *parts))
    sink, cursor = Sink(), follow.Cursor()
    known = follow.follow(ctx, ledger, run, sink, cursor=cursor, live=False)
    assert sink.data == b"abcdef"
    assert known.state is RunState.RUNNING
    assert all(len(marker) < 1000 for marker in sink.markers)


@pytest.mark.parametrize("offset", [-5, 10**30, True])
def test_an_unlawful_offset_is_not_taken_over(
    offset: int, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = (wire.ITEM, {"file": [1, 2], "offset": offset})
    liar.lie(monkeypatch, end({"ok": True, "run_id": RUN_ID, "phase": "running"}, item))
    cursor = follow.Cursor(offset=3)
    follow.follow(ctx, ledger, run, Sink(), cursor=cursor, live=False)
    assert 0 <= cursor.offset < 2**63
    assert cursor.offset is not True


# --- results --------------------------------------------------------------------------------------

STATUS = liar.statuses({"run_id": RUN_ID, "phase": "running"})
DONE = {"ok": True, "run_id": RUN_ID, "phase": "running"}


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def batch(*names: Any, content: bytes = b"x") -> tuple[int, Any]:
    return wire.ITEM, {"batch": [[name, 0o644, len(content), sha(content)] for name in names]}


X = (wire.DATA, b"x")
BIG = (wire.ITEM, {"large": "m", "mode": 0o644, "size": 4, "offset": 0})
RESULTS: dict[str, list[tuple[int, Any]]] = {
    "up": [batch("../../beside"), X],
    "absolute": [batch("/tmp/orch-evil"), X],
    "our journal": [batch(".orch-fetched.jsonl"), X],
    "a number for a name": [batch(7), (wire.DATA, b"y")],
    "null for a name": [batch(None), (wire.DATA, b"y")],
    "other bytes": [batch("a"), (wire.DATA, b"y")],
    "more bytes": [batch("a"), (wire.DATA, b"xx")],
    "fewer bytes": [batch("a", "b"), X],
    "negative size": [(wire.ITEM, {"batch": [["a", 0, -1, sha(b"")], ["b", 0, 2, sha(b"x")]]}), X],
    "size a text": [(wire.ITEM, {"batch": [["a", 0, "many", sha(b"x")]]}), X],
    "batch a number": [(wire.ITEM, {"batch": 7}), X],
    "batch of numbers": [(wire.ITEM, {"batch": [7]}), X],
    "hash missing": [(wire.ITEM, {"batch": [["a", 0, 1]]}), X],
    "data from nowhere": [X],
    "item a number": [(wire.ITEM, 7)],
    "item null": [(wire.ITEM, None)],
    "batch without bytes": [batch("a")],
    "large without end": [BIG, (wire.DATA, b"abcd")],
    "large, wrong hash": [BIG, (wire.DATA, b"abcd"), (wire.ITEM, {"sha256": sha(b"x")})],
    "large, more than said": [BIG, (wire.DATA, b"abcdefgh" * 1000),
                              (wire.ITEM, {"sha256": sha(b"abcdefgh" * 1000)})],
    "large up": [(wire.ITEM, {"large": "../../beside", "mode": 0, "size": 1, "offset": 0}), X],
    "large offset huge": [(wire.ITEM, {"large": "m", "mode": 0, "size": 1, "offset": 2**50}), X],
    "large offset huger": [(wire.ITEM, {"large": "m", "mode": 0, "size": 1, "offset": 2**70}), X],
    "large offset negative": [(wire.ITEM, {"large": "m", "mode": 0, "size": 1, "offset": -1}), X],
    "large without fields": [(wire.ITEM, {"large": "m"}), X],
    "large within large": [BIG, BIG, (wire.DATA, b"abcd"), (wire.ITEM, {"sha256": sha(b"abcd")})],
    "left a number": [(wire.ITEM, {"left": 7})],
    "same a number": [(wire.ITEM, {"same": 7})],
}  # fmt: skip


@pytest.mark.parametrize("kind", RESULTS)
def test_f79_f81_results_that_lie_are_refused_and_nothing_wrong_is_kept(
    kind: str, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, verbs(status=STATUS, results=end(DONE, *RESULTS[kind])))
    began = time.monotonic()
    with pytest.raises((TransferError, TransportError)):
        fetch.fetch(ctx, ledger, run, lambda _report: None)
    assert time.monotonic() - began < 30
    assert (ctx.cwd.parent / "beside").read_text() == "precious"
    assert not Path("/tmp/orch-evil").exists()
    folder = ctx.cwd / "results" / "train" / RUN_ID
    kept = [
        path for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".orch-")
    ]  # fmt: skip
    assert kept == []
    assert assert_lawful(ledger).fetched.value != "complete"


def test_f95_a_result_that_is_lawful_but_of_another_run_is_not_this_runs(
    ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**exit_with(), "ok": True, "run_id": "20261123-100000-000zzzzz"}
    liar.lie(monkeypatch, verbs(status=STATUS, results=end(other, batch("a"), X)))
    try:
        fetch.fetch(ctx, ledger, run, lambda _report: None)
    except OrchError as error:
        assert error.exit_code in (3, 6, 10)
    known = assert_lawful(ledger)
    assert (known.state, known.accuracy) == (RunState.RUNNING, None)
    assert known.fetched.value != "complete"
