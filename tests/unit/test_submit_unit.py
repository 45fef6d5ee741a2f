"""Submit step by step against a scripted host: what the ledger holds at each moment, and after."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator import names
from orchestrator.clock import iso
from orchestrator.domain import ExitRecord, Judged, Outcome, Run, RunState, Verdict
from orchestrator.errors import (
    ConnectFailed,
    HostDiskFull,
    Interrupted,
    LedgerError,
    LinkLost,
    OrchError,
    OutcomeUnknown,
    PreflightRefused,
)
from orchestrator.ledger.store import Ledger
from orchestrator.transport.base import Agent
from orchestrator.usecases import asking
from orchestrator.usecases import resume as resuming
from orchestrator.usecases import submit as submitting
from orchestrator.usecases.context import Context
from orchestrator.usecases.plan import Request, make_plan
from orchestrator.usecases.retry import request_for
from remote import wire
from tests.contract import liar
from tests.contract.liar import Answer, end, frames
from tests.helpers.project import make_project
from tests.helpers.runs import refreshed

SYNCED = end({"ok": True}, (wire.ITEM, {"wanted": []}))


def running(request: dict[str, Any], nonce: bytes) -> bytes:
    status = {"run_id": request["run_id"], "phase": "running", "started_at": "2026-11-23T10:00:00Z"}
    session = {"kind": "plain", "name": "orch-x"}
    return end({"ok": True, **status, "session": session})(request, nonce)


def asked(request: dict[str, Any], nonce: bytes) -> bytes:
    runs = [{"run_id": run_id, "phase": "running"} for run_id in request["run_ids"]]
    return liar.statuses(*runs)(request, nonce)


class Host:
    """A scripted host: answers by verb, each used once and the last one for ever."""

    def __init__(self, **script: list[Answer]) -> None:
        self.script = script
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: dict[str, Any], nonce: bytes) -> bytes:
        self.asked.append(request)
        left = self.script[request["verb"]]
        return (left.pop(0) if len(left) > 1 else left[0])(request, nonce)

    @property
    def verbs(self) -> list[str]:
        return [request["verb"] for request in self.asked]


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    jobs = {"train": {"command": "true", "config": {"lr": 0.1}}}
    hosts = {"hosts": {"liar": {"ssh": "liar"}}, "default_host": "liar"}
    project = make_project(tmp_path / "project", jobs, orch_yaml=hosts)
    return liar.context(tmp_path / "home", project, [])


@pytest.fixture
def ledger(ctx: Context) -> Iterator[Ledger]:
    with Ledger.open(ctx.layout.ledger) as opened:
        yield opened


def submit(ctx: Context, request: Request | None = None) -> Run:
    request = request or Request("train")
    run, agent = submitting.submit(ctx, make_plan(ctx, request), request)
    agent.close()
    return run


def only(ledger: Ledger) -> Run:
    (run,) = ledger.runs()
    return run


def test_the_intent_is_on_disk_before_the_first_connection(
    ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RunState] = []

    def connect(_ctx: Context, host: Any) -> Agent:
        with Ledger.open(ctx.layout.ledger) as mine:  # a thread of its own connects
            seen.append(only(mine).state)
        raise ConnectFailed("liar: nobody there")

    monkeypatch.setattr(Context, "connect", connect)
    with pytest.raises(ConnectFailed):
        submit(ctx)
    assert seen == [RunState.INTENT]
    assert only(ledger).verdict is Verdict.NEVER_STARTED


def test_a_start_is_recorded_with_what_the_host_said(
    ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(sync=[SYNCED], start=[running])
    liar.lie(monkeypatch, host)
    run = submit(ctx, Request("train", tags={"a": "b"}, note="n"))
    assert (run.state, run.started_at) == (RunState.RUNNING, "2026-11-23T10:00:00.000000Z")
    assert host.verbs == ["sync", "start"]
    assert names.is_run_id(run.run_id)
    assert only(ledger) == run
    assert run.snapshot == host.asked[0]["tree"] == host.asked[1]["tree"]
    assert [event.kind for event in ledger.events(run.run_id)][:2] == ["intent", "synced"]


LOST: dict[str, tuple[Answer, type[OrchError], RunState, Verdict | None]] = {
    "no answer to the start": (lambda _r, _n: b"", OutcomeUnknown, RunState.UNKNOWN, None),
    "half an answer": (lambda r, n: running(r, n)[:-9], OutcomeUnknown, RunState.UNKNOWN, None),
    "garbage after a frame": (
        lambda r, n: frames((wire.ITEM, {}))(r, n) + b"x" * 50,
        OutcomeUnknown, RunState.UNKNOWN, None,
    ),
    "the agent failed in the middle": (
        end({"ok": False, "error": {"kind": "HostError", "message": "odd"}}),
        OutcomeUnknown, RunState.UNKNOWN, None,
    ),
    "a refusal": (
        end({"ok": False, "error": {"kind": "HostDiskFull", "message": "full"}}),
        HostDiskFull, RunState.FINISHED, Verdict.NEVER_STARTED,
    ),
    "no free GPU": (
        end({"ok": False, "error": {"kind": "GpuBusy", "message": "busy"}}),
        PreflightRefused, RunState.FINISHED, Verdict.NEVER_STARTED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOST)
def test_what_is_known_after_a_start_that_went_wrong(
    kind: str, ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, error, state, verdict = LOST[kind]
    host = Host(sync=[SYNCED], start=[answer])
    liar.lie(monkeypatch, host)
    with pytest.raises(error) as caught:
        submit(ctx)
    run = only(ledger)
    assert (run.state, run.verdict) == (state, verdict)
    assert host.verbs.count("start") == 1, "a start was sent twice"
    if error is OutcomeUnknown:
        assert run.run_id in caught.value.message
        assert caught.value.exit_code == 9


@pytest.mark.parametrize("state", [RunState.UNKNOWN, RunState.INTENT])
def test_f54_a_ledger_that_is_locked_once_the_host_has_the_run_does_not_make_it_never_started(
    state: RunState, ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:

    def impatient(ctx: Context, *, readonly: bool = False) -> Ledger:
        return Ledger.open(ctx.layout.ledger, readonly=readonly, busy_seconds=0.05)

    monkeypatch.setattr(Context, "ledger", impatient)
    other = sqlite3.connect(ctx.layout.ledger, isolation_level=None)

    def locked(request: dict[str, Any], nonce: bytes) -> bytes:
        other.execute("BEGIN IMMEDIATE")
        return running(request, nonce)

    def synced(*args: Any) -> None:
        try:
            really_synced(*args)
        finally:
            if state is RunState.UNKNOWN:  # it is free again when the failure is written down
                other.execute("ROLLBACK")

    really_synced = Ledger.synced
    monkeypatch.setattr(Ledger, "synced", synced)
    liar.lie(monkeypatch, Host(sync=[SYNCED], start=[locked], status=[asked]))
    with pytest.raises(LedgerError) as caught:
        submit(ctx)
    other.close()
    run = only(ledger)
    assert run.state is state
    assert f"liar has taken {run.run_id}" in caught.value.message
    assert f"orch reconcile {run.run_id}" in str(caught.value.hint)
    with ctx.connect(liar.HOST) as agent:
        assert asking.meet(ctx, ledger, run, agent).state is RunState.RUNNING


def test_a_lost_link_before_the_start_means_it_never_started(
    ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, Host(sync=[lambda _r, _n: b""], start=[running]))
    with pytest.raises(LinkLost):
        submit(ctx)
    assert only(ledger).verdict is Verdict.NEVER_STARTED


NEEDS = {
    "tree, then runs": ([end({"ok": True, "need": "tree"}), running], None),
    "tree for ever": ([end({"ok": True, "need": "tree"})], OrchError),
    "data nobody declared": ([end({"ok": True, "need": "data", "names": ["x"]})], OrchError),
    "data without names": ([end({"ok": True, "need": "data", "names": 7})], OrchError),
    "something else": ([end({"ok": True, "need": "money"})], OrchError),
}


@pytest.mark.parametrize("kind", NEEDS)
def test_a_host_that_keeps_asking_is_answered_a_few_times_only(
    kind: str, ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, error = NEEDS[kind]
    host = Host(sync=[SYNCED], start=list(answers))
    liar.lie(monkeypatch, host)
    if error is None:
        assert submit(ctx).state is RunState.RUNNING
    else:
        with pytest.raises(error):
            submit(ctx)
        assert only(ledger).state in (RunState.FINISHED, RunState.UNKNOWN)
    assert host.verbs.count("start") <= 5


WANTED: list[Any] = [
    7, None, [7], [[0]], [[-1, 0]], [[10**6, 0]], [["x", 0]], [[0, -1]], [[0, 10**9]], {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("wanted", WANTED, ids=repr)
def test_a_host_that_asks_for_what_is_not_offered_gets_nothing(
    wanted: Any, ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, Host(sync=[end({"ok": True}, (wire.ITEM, {"wanted": wanted}))]))
    with pytest.raises(OrchError) as caught:
        submit(ctx)
    assert caught.value.exit_code == 6
    assert only(ledger).verdict is Verdict.NEVER_STARTED


def interrupted(_request: dict[str, Any], _nonce: bytes) -> bytes:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("verb", "state"), [("sync", RunState.FINISHED), ("start", RunState.UNKNOWN)]
)
def test_f52_ctrl_c_before_the_start_is_never_started_and_after_it_is_unknown(
    verb: str, state: RunState, ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: dict[str, list[Answer]] = {"sync": [SYNCED], "start": [running]}
    liar.lie(monkeypatch, Host(**{**answers, verb: [interrupted]}))
    with pytest.raises(Interrupted) as caught:
        submit(ctx)
    run = only(ledger)
    assert run.state is state
    assert run.run_id in caught.value.message


def test_the_second_submit_sends_the_change_only_and_supersedes(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(sync=[SYNCED], start=[running], status=[asked])
    liar.lie(monkeypatch, host)
    first = submit(ctx)
    (ctx.cwd / "new.py").write_text("x = 1\n")
    second = submit(ctx)
    assert second.supersedes == first.run_id
    assert host.verbs == ["sync", "start", "status", "start"]
    last = host.asked[-1]
    assert last["base"] == first.snapshot
    assert last["tree"] == second.snapshot != first.snapshot
    third = submit(ctx, Request("train", overrides=["lr=0.2"]))
    assert third.supersedes is None, "another config is another experiment"


def test_a_submit_that_reached_no_host_supersedes_nothing_nor_does_its_retry_supersede_it(
    ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host(sync=[SYNCED, lambda _r, _n: b"", SYNCED], start=[running], status=[asked])
    liar.lie(monkeypatch, host)
    good = submit(ctx)
    (ctx.cwd / "new.bin").write_bytes(b"x" * 3_000_000)  # too much to ride along with the start
    with pytest.raises(LinkLost):
        submit(ctx)
    failed = ledger.runs()[0]
    assert (failed.verdict, failed.supersedes) == (Verdict.NEVER_STARTED, None)
    assert "superseded" not in [event.kind for event in ledger.events(good.run_id)]
    again = submit(ctx, request_for(failed, None, {}, None, force=False))
    assert again.supersedes == good.run_id
    assert ledger.events(good.run_id)[-1].data == {"by": again.run_id}


def test_f32_a_new_run_is_the_latest_also_behind_one_from_the_future(
    ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    ctx = replace(ctx, say=said.append)
    liar.lie(monkeypatch, Host(sync=[SYNCED], start=[running], status=[asked]))
    first = submit(ctx)
    assert said == []
    ahead = ctx.clock.now() + timedelta(days=1)
    future = names.new_run_id(ahead, "zzzzz")
    ledger.intend(replace(first, run_id=future, job="other"))
    elsewhere = names.new_run_id(ahead + timedelta(days=1), "zzzzz")
    ledger.intend(replace(first, run_id=elsewhere, project="/another"))
    new = submit(ctx)
    (told,) = said
    assert future in told and "ahead of this machine's clock" in told
    assert future < new.run_id < elsewhere
    assert ledger.latest(new.project) == new
    assert first.created_at < new.created_at < iso(ctx.clock.now())


def test_two_runs_at_the_same_moment_have_two_ids(
    ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.lie(monkeypatch, Host(sync=[SYNCED], start=[running], status=[asked]))
    made = {submit(ctx).run_id for _ in range(5)}
    assert len(made) == len(ledger.runs()) == 5


def test_f91_a_secret_goes_to_the_host_and_nowhere_else(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (ctx.cwd / "jobs" / "secretive.yaml").write_text("command: 'true'\nsecrets: [HF_TOKEN]\n")
    host = Host(sync=[SYNCED], start=[running])
    liar.lie(monkeypatch, host)
    dict.update(ctx.env, HF_TOKEN="canary-9c1")  # type: ignore[arg-type]
    run = submit(ctx, Request("secretive"))
    assert host.asked[-1]["order"]["secrets"] == {"HF_TOKEN": "canary-9c1"}
    assert "canary" not in str(host.asked[-1]["spec"])
    assert "canary" not in repr(run)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes(), path


# --- resume ---------------------------------------------------------------------------------------


def failed(ctx: Context, ledger: Ledger) -> Run:
    """A run that ended badly in its first attempt, with a result of sorts."""
    run = liar.running_run(ctx, ledger)
    record = ExitRecord(Verdict.FAILED, 9, ended_at=ctx.now(), cause="exit")
    ledger.finished(run.run_id, ctx.now(), record, Judged(Outcome.UNVERIFIED, accuracy=0.5))
    return ledger.get(run.run_id)


def a_status(**changes: Any) -> dict[str, Any]:
    exit_ = {"verdict": "failed", "exit_code": 9, "cause": "exit"}
    return {"run_id": liar.RUN_ID, "phase": "finished", "attempt": 1, "exit": exit_, **changes}


ASKED = liar.statuses(a_status())
REFUSAL = end({"ok": False, "error": {"kind": "NotResumable", "message": "no"}})


def test_an_attempt_is_in_the_ledger_before_the_host_is_asked_for_it(
    ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = failed(ctx, ledger)
    seen: list[tuple[RunState, int, float | None]] = []

    def started(request: dict[str, Any], nonce: bytes) -> bytes:
        with Ledger.open(ctx.layout.ledger) as mine:
            known = mine.get(liar.RUN_ID)
        seen.append((known.state, known.attempt, known.accuracy))
        return end({"ok": True, **a_status(phase="running", attempt=2)})(request, nonce)

    host = Host(status=[ASKED], resume=[started])
    liar.lie(monkeypatch, host)
    known, agent = resuming.resume(ctx, ledger, before)
    agent.close()
    assert seen == [(RunState.INTENT, 2, None)]
    assert (known.state, known.attempt, known.verdict) == (RunState.RUNNING, 2, None)
    assert host.asked[1]["attempt"] == 2


@pytest.mark.parametrize("answer", [REFUSAL, end({"ok": False, "error": {"kind": "HostDiskFull"}})])
def test_a_refused_resume_leaves_the_run_as_it_was(
    answer: Answer, ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = failed(ctx, ledger)
    liar.lie(monkeypatch, Host(status=[ASKED], resume=[answer]))
    with pytest.raises(OrchError):
        resuming.resume(ctx, ledger, before)
    assert ledger.get(liar.RUN_ID) == before
    assert [e.kind for e in ledger.events(liar.RUN_ID)][-2:] == ["resuming", "not_resumed"]


def test_a_resume_whose_answer_is_lost_is_unknown_and_settled_by_the_host(
    ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = failed(ctx, ledger)
    host = Host(status=[ASKED], resume=[lambda _r, _n: b""])
    liar.lie(monkeypatch, host)
    with pytest.raises(OutcomeUnknown) as caught:
        resuming.resume(ctx, ledger, before)
    assert "orch reconcile" in str(caught.value.hint)
    known = ledger.get(liar.RUN_ID)
    assert (known.state, known.attempt) == (RunState.UNKNOWN, 2)
    # The host has not heard of it: the old record proves nothing of the new attempt.
    known = refreshed(ctx, ledger, known)
    assert (known.state, known.attempt) == (RunState.UNKNOWN, 2)
    (closing,) = host.asked[-1]["close"]
    assert (closing["attempt"], closing["verdict"]) == (2, "never_started")
    liar.lie(monkeypatch, liar.statuses(a_status(phase="running", attempt=2)))
    assert refreshed(ctx, ledger, known).state is RunState.RUNNING


def test_an_attempt_begun_by_another_controller_is_learnt_of(
    ctx: Context, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = failed(ctx, ledger)
    liar.lie(monkeypatch, liar.statuses(a_status(phase="running", attempt=3)))
    known = refreshed(ctx, ledger, before)
    assert (known.state, known.attempt, known.verdict) == (RunState.RUNNING, 3, None)
    assert known.accuracy is None
