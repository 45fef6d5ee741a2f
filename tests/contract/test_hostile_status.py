"""A host that lies about a run's state: the right error, and a ledger that stays lawful."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from orchestrator.clock import SystemClock, iso, seconds_between
from orchestrator.commands import runs
from orchestrator.domain import Outcome, Run, RunState, Verdict
from orchestrator.errors import (
    AuthFailed,
    CallTimeout,
    FrameGarbled,
    Interrupted,
    LinkLost,
    NotFinished,
    NotFound,
    OrchError,
    TransportError,
)
from orchestrator.ledger.store import Ledger
from orchestrator.transport import base
from orchestrator.transport.base import Agent
from orchestrator.usecases import asking, attach, cancel, follow, hostclock, settle
from orchestrator.usecases.context import Context
from orchestrator.usecases.evidence import Hosts
from remote import wire
from tests.contract import liar
from tests.contract.liar import RUN_ID, Answer, assert_lawful, end, exit_with, frames
from tests.helpers.runs import refreshed

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
    "an item that is no json": (end({"ok": True}, (wire.ITEM, b"{")), FrameGarbled),
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
def test_f08_f95_an_answer_that_is_none_is_a_transport_error_of_the_right_kind(kind: str) -> None:
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


def test_f66_what_the_client_says_after_a_silence_is_no_refusal_by_the_host() -> None:
    """It may be noise of the login; a refusal would count as proof that nothing was started."""

    class Denied(liar.SilentPipe):
        def closing_words(self) -> tuple[int | None, str]:
            raise AuthFailed("login refused: Permission denied")

    transport = liar.LyingTransport(end({"ok": True}), Denied)
    with Agent(liar.HOST, transport) as agent, pytest.raises(CallTimeout):
        agent.call("start", {}, deadline=0.1)


class MutePipe(liar.LyingPipe):
    """Says its answer, and nothing after it."""

    def recv(self, count: int, timeout: float) -> bytes:
        if not self._ready:
            raise CallTimeout(f"liar: no answer within {timeout:g} s")
        return super().recv(count, timeout)


@pytest.mark.parametrize("greets", [True, False])
def test_f66_until_the_agent_has_begun_no_call_is_waited_for_as_long_as_it_may_take(
    greets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "BEGIN_WITHIN", 0.5)
    answer = liar.frames((wire.ITEM, {})) if greets else lambda _request, _nonce: b""
    with (
        Agent(liar.HOST, liar.LyingTransport(answer, MutePipe)) as agent,
        pytest.raises(CallTimeout) as caught,
    ):
        agent.call("sync", {}, deadline=300.0)
    assert ("300 s" in caught.value.message) is greets
    assert ("did not begin" in caught.value.message) is not greets
    assert ("start-up file" in str(caught.value.hint)) is not greets


class Slept(SystemClock):
    passed = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.passed


def test_f51_times_in_an_answer_that_was_heard_hours_later_are_the_hosts(
    ctx: Context, ledger: Ledger, run: Run
) -> None:
    """Its clock shows three hours less than ours, since it said so three hours ago."""
    with_age = replace(run, created_at=iso_in(-20001))
    said, told = {"host_time": iso_in(-10800)}, [iso_in(-20000), iso_in(-10801)]
    assert hostclock.ours(ledger, with_age, said, iso_in(0), *told) == told
    behind = {"host_time": iso_in(-90000)}
    began, ended = hostclock.ours(ledger, with_age, behind, iso_in(0), iso_in(-90100), None)
    assert began is not None and abs(seconds_between(iso_in(-100), began)) < 5
    assert ended is None


def iso_in(seconds: float) -> str:
    return iso(SystemClock().now() + timedelta(seconds=seconds))


def test_f51_a_wait_that_slept_past_its_time_did_not_see_the_end(
    ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Slept()

    class Asleep(liar.SilentPipe):
        def recv(self, count: int, timeout: float) -> bytes:
            clock.passed += 100.0
            return super().recv(count, timeout)

    transport = liar.LyingTransport(end({"ok": True}), Asleep)
    monkeypatch.setattr(Context, "connect", lambda _ctx, host: Agent(host, transport))
    with pytest.raises(NotFinished) as caught:
        follow.wait(replace(ctx, clock=clock), ledger, run, 30.0, print)
    assert "within 30 s" in caught.value.message
    assert f"orch wait {RUN_ID}" in str(caught.value.hint)


@pytest.mark.parametrize("phase", ["finished", "running"])
@pytest.mark.parametrize("shown", [None, print])
def test_a_host_that_answers_a_wait_at_once_is_asked_again_after_a_pause(
    phase: str, shown: Any, ctx: Context, ledger: Ledger, run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    clock, asked = Slept(), []

    def answer(request: dict[str, Any], nonce: bytes) -> bytes:
        asked.append(request["verb"])
        assert len(asked) < 100
        return end({"ok": True, "run_id": RUN_ID, "phase": phase, "exit": None})(request, nonce)

    def sleep(seconds: float) -> None:
        clock.passed += seconds

    liar.lie(monkeypatch, answer)
    monkeypatch.setattr(time, "sleep", sleep)
    with pytest.raises(NotFinished):
        follow.wait(replace(ctx, clock=clock), ledger, run, 30.0, print, shown)
    assert asked.count("wait") <= 30.0 / follow.LOOK_EVERY + 2


def interrupted(*_: object) -> bytes:
    raise KeyboardInterrupt


@pytest.mark.parametrize("verb", ["status", "cancel"])
def test_f52_ctrl_c_in_a_cancel_says_whether_the_host_was_asked(
    verb: str, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = liar.statuses({"run_id": RUN_ID, "phase": "running"})
    liar.lie(monkeypatch, liar.verbs(**{"status": there, "cancel": there, verb: interrupted}))
    with pytest.raises(Interrupted) as caught:
        cancel.cancel(ctx, ledger, run)
    assert f"liar was asked to end {RUN_ID}" in caught.value.message
    assert ("before" in caught.value.message) is (verb == "status")
    assert ("orch wait" in str(caught.value.hint)) is (verb == "cancel")


@pytest.mark.parametrize("named", [True, False])
def test_f52_ctrl_c_in_a_fetch_says_what_is_kept(
    named: bool, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named:
        liar.lie(monkeypatch, interrupted)
    else:
        monkeypatch.setattr(Context, "run", interrupted)
    with pytest.raises(Interrupted) as caught:
        runs._fetch_each(ctx, ledger, [RUN_ID], False)
    assert (RUN_ID in caught.value.message) is named
    assert (f"orch fetch-results {RUN_ID}" in str(caught.value.hint)) is named


class EndlessPipe(liar.LyingPipe):
    """Says its answer over and over, a piece every `pause` seconds."""

    pause = 0.0

    def recv(self, count: int, timeout: float) -> bytes:
        time.sleep(min(self.pause, timeout))
        if self.pause > timeout:
            raise CallTimeout("liar: no answer")
        return self._ready


class SlowPipe(EndlessPipe):
    pause = 0.05


@pytest.mark.parametrize("pipe", [EndlessPipe, SlowPipe])
@pytest.mark.parametrize(
    "part", [(wire.ITEM, {"n": 1}), (wire.ITEM, {}), (wire.DATA, b"x"), (wire.ITEM, [])]
)
@pytest.mark.parametrize("verb", ["status", "wait"])
def test_f81_endless_items_do_not_hold_a_call_for_ever(
    verb: str, part: tuple[int, Any], pipe: type[EndlessPipe]
) -> None:
    transport = liar.LyingTransport(liar.frames(part), pipe)
    with Agent(liar.HOST, transport) as agent, pytest.raises((FrameGarbled, CallTimeout)):
        agent.call(verb, {"run_ids": []}, deadline=1.0, within=2.0, items=20)


def test_f81_a_host_sends_no_more_content_than_was_asked_for(
    ctx: Context, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = [(wire.ITEM, {"object": "0" * 64, "size": 0})] * 2
    liar.lie(monkeypatch, end({"ok": True}, *endless))
    with Hosts(ctx) as hosts:
        assert hosts.objects(run, ["0" * 64]) == {}
        assert "nobody asked for" in str(hosts.silent(run))


@pytest.mark.parametrize("kind", ["HostError", "Unusable"])
def test_an_error_that_a_host_answers_with_is_told_and_is_no_silence(
    kind: str, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = {"kind": kind, "message": "/root/locks/x: Permission denied"}
    liar.lie(monkeypatch, end({"ok": False, "error": error}))
    told: list[str] = []
    asking.refresh_quietly(ctx, ledger, [run], lambda _host, why: told.append(why))
    assert "x: Permission denied" in told[0] and asking.UNREACHABLE not in told[0]


# --- status ---------------------------------------------------------------------------------------


STATUSES: dict[str, Any] = {
    "none": None,
    "a number": 7,
    "empty": {},
    "null": None,
    "text": "finished",
    "list": [RUN_ID],
    "another run": {**exit_with(), "run_id": "20261123-100000-000zzzzz"},
    "id a list": {**exit_with(), "run_id": [RUN_ID]},
    "phase a list": {"run_id": RUN_ID, "phase": ["running"]},
    "phase unknown": {"run_id": RUN_ID, "phase": "exploded"},
    "finished without an exit": {"run_id": RUN_ID, "phase": "finished"},
    "exit a list": {"run_id": RUN_ID, "phase": "finished", "exit": [1]},
    "session a text": {"run_id": RUN_ID, "phase": "queued", "session": "x"},
    "session hostile": {"run_id": RUN_ID, "phase": "queued", "session":
                        {"kind": "tmux", "name": ["x"]}, "started_at": {"a": 1}},
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
    liar.lie(monkeypatch, liar.statuses(STATUSES[kind]))
    try:
        if quietly:
            asking.refresh_quietly(ctx, ledger, [run], lambda _host, _why: None)
        else:
            refreshed(ctx, ledger, run)
    except OrchError as error:
        assert error.exit_code == 6
    known = assert_lawful(ledger)
    assert known.state in (RunState.RUNNING, RunState.QUEUED)


@pytest.mark.parametrize("kind", EXITS)
def test_an_unlawful_exit_record_is_written_down_lawfully_or_not_at_all(
    kind: str, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, liar.statuses(exit_with(**EXITS[kind])))
    refreshed(ctx, ledger, run)
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
    liar.lie(monkeypatch, liar.statuses(exit_with()))
    first = refreshed(ctx, ledger, run)
    liar.lie(monkeypatch, liar.statuses(exit_with(verdict="failed", exit_code=1)))
    assert refreshed(ctx, ledger, first).verdict is Verdict.SUCCEEDED


def test_an_exit_record_that_its_host_cannot_read_leaves_the_run_lost_and_says_why(
    ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = {"run_id": RUN_ID, "phase": "finished", "exit": None, "exit_fault": "it is damaged"}
    liar.lie(monkeypatch, liar.statuses(damaged))
    known = refreshed(ctx, ledger, run)
    assert known.verdict is Verdict.LOST
    assert "cannot be read: it is damaged" in known.outcome_reasons[0]
    settle.settle_anew(ledger, known, exit_with(), ctx.now())
    assert ledger.get(RUN_ID).verdict is Verdict.SUCCEEDED  # it was put back from a copy
    settle.settle_anew(ledger, ledger.get(RUN_ID), damaged, ctx.now())
    assert ledger.get(RUN_ID).verdict is Verdict.SUCCEEDED  # damage contradicts nothing


# --- wait, cancel, attach -------------------------------------------------------------------------

REPLIES: list[Any] = [
    {"ok": True}, {"ok": True, "phase": "finished"}, {"ok": True, "phase": 7, "run_id": RUN_ID},
    {"ok": True, "run_id": RUN_ID, "phase": "absent"}, {"ok": True, "run_id": [1]},
    {"ok": True, "run_id": RUN_ID, "phase": "running", "view": 7, "argv": 7},
    {"ok": True, "run_id": RUN_ID, "phase": "running", "view": {}, "argv": [["rm"], None]},
    {"ok": True, "argv": "rm -rf ~"},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(REPLIES)))
@pytest.mark.parametrize("what", ["wait", "look", "cancel", "attach"])
def test_an_odd_reply_to_any_command_is_an_error_with_a_sentence(
    number: int, what: str, ctx: Context, ledger: Ledger, run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    liar.lie(monkeypatch, end(REPLIES[number]))
    try:
        if what == "wait":
            follow.wait(ctx, ledger, run, 0.05, lambda _text: None)
        elif what == "look":
            follow.wait(ctx, ledger, run, 0.05, lambda _text: None, lambda _record: None)
        elif what == "cancel":
            cancel.cancel(ctx, ledger, run)
        else:
            # What runs here is ssh; the host's words are arguments for the host, quoted.
            shown = attach.view(ctx, ledger, run)
            assert shown.argv[0] == "ssh"
            assert all(isinstance(word, str) for word in shown.argv)
    except OrchError as error:
        assert isinstance(error, (TransportError, NotFound, NotFinished))
    else:
        assert what == "attach"
    assert assert_lawful(ledger).state is RunState.RUNNING
