"""A host that lies in its answers: the right error, a lawful ledger, nothing outside the folder."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain import Outcome, Run, RunState, Verdict
from orchestrator.errors import (
    FrameGarbled,
    LinkLost,
    NotFinished,
    NotFound,
    OrchError,
    TransferError,
    TransportError,
)
from orchestrator.ledger.store import Ledger
from orchestrator.transport.base import Agent
from orchestrator.usecases import attach, cancel, fetch, follow, reconcile
from orchestrator.usecases.context import Context
from remote import wire
from tests.contract import liar
from tests.contract.liar import Answer, end, frames, verbs

RUN_ID = "20261123-100000-000abcde"


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    (tmp_path / "project").mkdir()
    (tmp_path / "beside").write_text("precious")
    return liar.context(tmp_path / "home", tmp_path / "project", [])


@pytest.fixture
def ledger(ctx: Context) -> Iterator[Ledger]:
    with Ledger.open(ctx.layout.ledger) as opened:
        yield opened


@pytest.fixture
def run(ctx: Context, ledger: Ledger) -> Run:
    made = Run(
        run_id=RUN_ID, job="train", project=str(ctx.cwd), state=RunState.INTENT,
        config_hash="c1:" + "0" * 64, config={}, host="liar", created_at=ctx.now(),
    )  # fmt: skip
    ledger.intend(made)
    ledger.synced(RUN_ID, ctx.now(), "s1:" + "0" * 64, {})
    ledger.started(RUN_ID, ctx.now(), ctx.now(), None, RunState.RUNNING)
    return ledger.get(RUN_ID)


def assert_lawful(ledger: Ledger) -> Run:
    """What the ledger holds can be read, and its numbers are numbers."""
    known = ledger.get(RUN_ID)
    assert known.accuracy is None or (math.isfinite(known.accuracy) and 0 <= known.accuracy <= 1)
    assert (known.verdict is None) is (known.state is not RunState.FINISHED)
    json.dumps(ledger.events(RUN_ID)[-1].data, allow_nan=False)
    return known


# --- bytes that are no answer ---------------------------------------------------------------------

BYTES: dict[str, tuple[Answer, type[OrchError]]] = {
    "nothing": (lambda _r, _n: b"", LinkLost),
    "noise": (lambda _r, _n: b"Welcome to liar\n" * 100, LinkLost),
    "endless noise": (lambda _r, _n: b"y\n" * 100_000, FrameGarbled),
    "another nonce": (lambda _r, _n: wire.frame(b"x" * 8, wire.END, b'{"ok":true}'), LinkLost),
    "a torn frame": (lambda r, n: end({"ok": True})(r, n)[:-3], LinkLost),
    "no end": (frames((wire.ITEM, {})), LinkLost),
    "a wrong checksum": (lambda r, n: end({"ok": True})(r, n)[:-1] + b"!", FrameGarbled),
    "garbage after a frame": (lambda r, n: frames((wire.ITEM, {}))(r, n) + b"x" * 99, FrameGarbled),
    "no json": (frames((wire.END, b"{")), FrameGarbled),
    "deep json": (frames((wire.END, b"[" * 200_000)), FrameGarbled),
    "a list": (end([]), FrameGarbled),
    "a number": (end(7), FrameGarbled),
    "null": (end(None), FrameGarbled),
    "an error that is a list": (end({"ok": False, "error": [1]}), TransportError),
    "an error without words": (end({"ok": False}), TransportError),
    "an unknown error": (end({"ok": False, "error": {"kind": "X\x1b[2J"}}), TransportError),
    "our own request": (lambda r, n: wire.json_frame(n, wire.REQUEST, r), FrameGarbled),
    "an unknown kind": (lambda r, n: wire.frame(n, 99, b"{}") + end({"ok": True})(r, n),
                        FrameGarbled),
}  # fmt: skip


@pytest.mark.parametrize("kind", BYTES)
def test_an_answer_that_is_none_is_a_transport_error_of_the_right_kind(kind: str) -> None:
    answer, expected = BYTES[kind]
    with (
        Agent(liar.HOST, liar.LyingTransport(answer)) as agent,
        pytest.raises(expected) as caught,
    ):
        agent.call("status", {"run_ids": []})
    assert "liar" in caught.value.message
    assert caught.value.exit_code == 6


def test_a_silent_host_is_given_up_at_the_deadline() -> None:
    transport = liar.LyingTransport(end({"ok": True}), liar.SilentPipe)
    with Agent(liar.HOST, transport) as agent, pytest.raises(TransportError):
        agent.call("status", {"run_ids": []}, deadline=0.1)


def test_endless_items_do_not_hold_a_call_for_ever(ctx: Context) -> None:
    def answer(_request: dict[str, Any], nonce: bytes) -> bytes:
        return b"".join(wire.json_frame(nonce, wire.ITEM, {"n": n}) for n in range(2000))

    with Agent(liar.HOST, liar.LyingTransport(answer)) as agent, pytest.raises(LinkLost):
        agent.call("status", {"run_ids": []})


# --- status ---------------------------------------------------------------------------------------


def exit_with(**changes: Any) -> dict[str, Any]:
    record = {"verdict": "succeeded", "exit_code": 0, "metrics": {"text": '{"accuracy": 0.9}'}}
    return {"run_id": RUN_ID, "phase": "finished", "exit": {**record, **changes}}


STATUSES: dict[str, Any] = {
    "no runs": {"ok": True},
    "runs a map": {"ok": True, "runs": {"a": 1}},
    "runs a number": {"ok": True, "runs": 7},
    "none": {"ok": True, "runs": []},
    "null": {"ok": True, "runs": [None]},
    "text": {"ok": True, "runs": ["finished"]},
    "list": {"ok": True, "runs": [[RUN_ID]]},
    "another run": {"ok": True, "runs": [{**exit_with(), "run_id": "20261123-100000-000zzzzz"}]},
    "id a list": {"ok": True, "runs": [{**exit_with(), "run_id": [RUN_ID]}]},
    "phase a list": {"ok": True, "runs": [{"run_id": RUN_ID, "phase": ["running"]}]},
    "phase unknown": {"ok": True, "runs": [{"run_id": RUN_ID, "phase": "exploded"}]},
    "finished without an exit": {"ok": True, "runs": [{"run_id": RUN_ID, "phase": "finished"}]},
    "exit a list": {"ok": True, "runs": [{"run_id": RUN_ID, "phase": "finished", "exit": [1]}]},
    "session a text": {"ok": True, "runs": [{"run_id": RUN_ID, "phase": "queued", "session": "x"}]},
    "session hostile": {"ok": True, "runs": [{"run_id": RUN_ID, "phase": "queued", "session":
                        {"kind": "tmux", "name": ["x"]}, "started_at": {"a": 1}}]},
}  # fmt: skip
EXITS: dict[str, dict[str, Any]] = {
    "verdict a number": {"verdict": 7},
    "verdict unknown": {"verdict": "triumphant"},
    "code huge": {"exit_code": 10**30},
    "code a flag": {"exit_code": True},
    "signal negative": {"signal": -9},
    "reasons a text": {"reasons": "because"},
    "reasons deep": {"reasons": [{"a": [1]}] * 10_000},
    "reasons long": {"reasons": ["x" * 10_000_000]},
    "times numbers": {"started_at": 7, "ended_at": [1]},
    "times odd": {"started_at": "yesterday\x1b[2J", "ended_at": "\ud800"},
    "metrics a text": {"metrics": "{}"},
    "metrics a number": {"metrics": {"text": 7}},
    "metrics not text": {"metrics": {"text": "\ud800"}},
    "metrics infinite": {"metrics": {"text": '{"accuracy": 1e999}'}},
    "metrics deep": {"metrics": {"text": "[" * 100_000}},
    "metrics error a list": {"metrics": {"error": [1]}},
    "metrics all wrong": {"metrics": {"text": '{"accuracy": 0.5, "confusion_matrix": [[1e400]], '
                                      '"labels": [[1]], "n": -1}'}},
}  # fmt: skip


@pytest.mark.parametrize("kind", STATUSES)
@pytest.mark.parametrize("quietly", [False, True])
def test_an_unlawful_status_moves_no_run(
    kind: str, quietly: bool, ctx: Context, ledger: Ledger, run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    liar.lie(monkeypatch, end(STATUSES[kind]))
    try:
        if quietly:
            reconcile.refresh_quietly(ctx, ledger, [run], lambda _host, _why: None)
        else:
            reconcile.refresh(ctx, ledger, run)
    except OrchError as error:
        assert error.exit_code == 6
    known = assert_lawful(ledger)
    assert known.state in (RunState.RUNNING, RunState.QUEUED)


@pytest.mark.parametrize("kind", EXITS)
def test_an_unlawful_exit_record_is_written_down_lawfully_or_not_at_all(
    kind: str, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, end({"ok": True, "runs": [exit_with(**EXITS[kind])]}))
    reconcile.refresh(ctx, ledger, run)
    known = assert_lawful(ledger)
    assert known.state is RunState.FINISHED
    if kind.startswith("verdict"):
        assert known.verdict is Verdict.LOST
    if kind.startswith("metrics"):
        assert known.accuracy is None
        assert known.outcome in (Outcome.INVALID_RESULT, Outcome.UNVERIFIED)
    assert sum(len(reason) for reason in known.outcome_reasons) < 100_000


def test_a_finished_run_does_not_finish_twice(
    ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, end({"ok": True, "runs": [exit_with()]}))
    first = reconcile.refresh(ctx, ledger, run)
    liar.lie(monkeypatch, end({"ok": True, "runs": [exit_with(verdict="failed", exit_code=1)]}))
    assert reconcile.refresh(ctx, ledger, first).verdict is Verdict.SUCCEEDED


# --- wait, cancel, attach ---------------------------------------------------------------------------

REPLIES: list[Any] = [
    {"ok": True}, {"ok": True, "phase": "finished"}, {"ok": True, "phase": 7, "run_id": RUN_ID},
    {"ok": True, "run_id": RUN_ID, "phase": "absent"}, {"ok": True, "run_id": [1]},
    {"ok": True, "run_id": RUN_ID, "phase": "running", "view": 7, "argv": 7},
    {"ok": True, "run_id": RUN_ID, "phase": "running", "view": {}, "argv": [["rm"], None]},
    {"ok": True, "argv": "rm -rf ~"},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REPLIES)))
@pytest.mark.parametrize("what", ["wait", "cancel", "attach"])
def test_an_odd_reply_to_any_command_is_an_error_with_a_sentence(
    number: int, what: str, ctx: Context, ledger: Ledger, run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    liar.lie(monkeypatch, end(REPLIES[number]))
    with pytest.raises(OrchError) as caught:
        if what == "wait":
            follow.wait(ctx, ledger, run, 0.05, lambda _text: None)
        elif what == "cancel":
            cancel.cancel(ctx, ledger, run)
        else:
            shown = attach.view(ctx, run)
            # What runs here is ssh; the host's words are arguments for the host, quoted.
            assert shown.argv[0] == "ssh"
            assert all(isinstance(word, str) for word in shown.argv)
            raise NotFound("lawful after all")
    assert isinstance(caught.value, (TransportError, NotFound, NotFinished))
    assert assert_lawful(ledger).state is RunState.RUNNING


# --- the log ----------------------------------------------------------------------------------------


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


# --- results ----------------------------------------------------------------------------------------

STATUS = end({"ok": True, "runs": [{"run_id": RUN_ID, "phase": "running"}]})
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
def test_results_that_lie_are_refused_and_nothing_wrong_is_kept(
    kind: str, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, verbs(status=STATUS, results=end(DONE, *RESULTS[kind])))
    began = time.monotonic()
    with pytest.raises((TransferError, TransportError)):
        fetch.fetch(ctx, ledger, run, lambda _report: None)
    assert time.monotonic() - began < 5
    assert (ctx.cwd.parent / "beside").read_text() == "precious"
    assert not Path("/tmp/orch-evil").exists()
    folder = ctx.cwd / "results" / "train" / RUN_ID
    kept = [
        path for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".orch-")
    ]  # fmt: skip
    assert kept == []
    assert assert_lawful(ledger).fetched.value != "complete"


def test_a_result_that_is_lawful_but_of_another_run_is_not_this_runs(
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
