"""Following over a link that works while every call fails: pauses that grow, and an end."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.clock import SystemClock
from orchestrator.domain import Run, RunState
from orchestrator.errors import LinkLost, NotFinished, TransportError
from orchestrator.ledger.store import Ledger
from orchestrator.retry import RECONNECT_FOR
from orchestrator.transport.base import Agent
from orchestrator.usecases import follow, followmany, link
from orchestrator.usecases.context import Context
from remote import wire
from tests.contract import liar
from tests.contract.liar import RUN_ID, Answer, end, exit_with

NOISE: Answer = lambda _request, _nonce: b"motd\n" * 20_000  # noqa: E731
KILLED: Answer = lambda _request, _nonce: b""  # noqa: E731
STATUS = (wire.ITEM, {"status": {"run_id": RUN_ID, "phase": "running"}})
HEARD = liar.frames(STATUS, (wire.ITEM, {"progress": '{"step": 1}'}))


class Patched(SystemClock):
    """Its time passes only while someone rests."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.rests: list[float] = []

    def monotonic(self) -> float:
        return self.seconds

    def rest(self, most: float) -> None:
        self.rests.append(most)
        self.seconds += most


class Sink:
    def __init__(self) -> None:
        self.data, self.notices = b"", list[str]()

    def log(self, *what: Any) -> None:
        self.data += what[-1]

    def marker(self, *_what: Any) -> None: ...

    def progress(self, record: dict[str, Any]) -> None: ...

    def ended(self, run: Run) -> None: ...

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def look(self) -> None: ...


@pytest.fixture
def clock(ctx: Context, monkeypatch: pytest.MonkeyPatch) -> Patched:
    made = Patched()
    monkeypatch.setattr(link, "rest", made.rest)
    return made


def tail(ctx: Context, ledger: Ledger, run: Run, sink: Sink) -> Run:
    return follow.follow(ctx, ledger, run, sink, cursor=follow.Cursor(), live=True)


def tail_many(ctx: Context, ledger: Ledger, run: Run, sink: Sink) -> Run:
    return followmany.follow_many(ctx, ledger, [run], sink, lines=None, live=True, raw=False)[0]


def wait(ctx: Context, ledger: Ledger, run: Run, sink: Sink) -> Run:
    return follow.wait(ctx, ledger, run, None, sink.notice)


Follow = Callable[[Context, Ledger, Run, Sink], Run]


@pytest.mark.parametrize("by", [tail, tail_many, wait])
@pytest.mark.parametrize("answer", [NOISE, KILLED, HEARD])
def test_f02_a_host_that_answers_no_call_is_asked_ever_more_rarely_and_given_up(
    answer: Answer, by: Follow, ctx: Context, ledger: Ledger, run: Run, clock: Patched,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    liar.lie(monkeypatch, answer)
    sink = Sink()
    with pytest.raises(
        TransportError, match="given up after 15 min; what runs there is not affected"
    ):
        by(dataclasses.replace(ctx, clock=clock), ledger, run, sink)
    assert clock.seconds == RECONNECT_FOR
    assert 40 < len(clock.rests) < 80
    assert clock.rests[0] == 0
    assert clock.rests[-2] == 20
    assert sum("connected" in told for told in sink.notices) == 0
    assert ledger.get(RUN_ID).state is RunState.RUNNING


def test_f02_each_piece_of_the_log_renews_the_patience_and_is_gone_on_from_at_once(
    ctx: Context, ledger: Ledger, run: Run, clock: Patched, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = bytes(range(65, 90))

    def answer(request: dict[str, Any], nonce: bytes) -> bytes:
        clock.seconds += RECONNECT_FOR / 2
        at = request["offset"]
        done = end({"ok": True, **exit_with()})
        cut = liar.frames((wire.DATA, text[at : at + 1]))
        return (cut if at < len(text) else done)(request, nonce)

    liar.lie(monkeypatch, answer)
    sink = Sink()
    known = tail(dataclasses.replace(ctx, clock=clock), ledger, run, sink)
    assert (sink.data, known.state) == (text, RunState.FINISHED)
    assert clock.rests == [0.0] * len(text)


def test_a_wait_that_hears_of_its_host_renews_the_patience(
    ctx: Context, ledger: Ledger, run: Run, clock: Patched, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def answer(request: dict[str, Any], nonce: bytes) -> bytes:
        nonlocal asked
        asked += 1
        clock.seconds += RECONNECT_FOR / 2
        done = end({"ok": True, **exit_with()})
        sign = (wire.ITEM, {})
        return (done if asked > 20 else liar.frames(sign, sign))(request, nonce)

    liar.lie(monkeypatch, answer)
    known = wait(dataclasses.replace(ctx, clock=clock), ledger, run, Sink())
    assert known.state is RunState.FINISHED


def test_a_wait_with_a_timeout_gives_up_at_its_end(
    ctx: Context, ledger: Ledger, run: Run, clock: Patched, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, KILLED)
    with pytest.raises(NotFinished, match="did not answer within 5 s"):
        follow.wait(dataclasses.replace(ctx, clock=clock), ledger, run, 5.0, lambda _text: None)
    assert clock.seconds == 5.0


def test_nothing_is_tried_again_where_only_what_is_there_was_asked_for(
    ctx: Context, ledger: Ledger, run: Run, clock: Patched, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Agent] = []

    def connect(_ctx: Context, host: Any) -> Agent:
        made.append(Agent(host, liar.LyingTransport(KILLED)))
        return made[-1]

    monkeypatch.setattr(Context, "connect", connect)
    with pytest.raises(LinkLost):
        follow.follow(ctx, ledger, run, Sink(), cursor=follow.Cursor(), live=False)
    assert (len(made), clock.rests) == (1, [])


def test_a_wait_with_a_timeout_is_not_held_up_by_a_host_that_takes_long_to_connect(
    ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed = threading.Event()
    monkeypatch.setattr(Context, "connect", lambda *_: freed.wait(60))
    try:
        with pytest.raises(NotFinished, match="did not answer within 0.1 s"):
            follow.wait(ctx, ledger, run, 0.1, lambda _text: None)
    finally:
        freed.set()
    assert ledger.get(run.run_id).state is run.state
