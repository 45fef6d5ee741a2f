"""From a host's account of a run to the ledger: the one place where evidence becomes a verdict.

The host is not trusted to send lawful values: each is checked before it is written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator import lawful
from orchestrator.checks.outcome import judge
from orchestrator.domain import ExitRecord, Judged, Outcome, Run, RunState, Session, Verdict
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import recorded_of
from orchestrator.transport.replies import run_status
from orchestrator.usecases import hostclock, hostevents, places

PHASES: Mapping[str, RunState] = {
    "claimed": RunState.SYNCED,
    "starting": RunState.QUEUED,
    "queued": RunState.QUEUED,
    "running": RunState.RUNNING,
    "unowned": RunState.RUNNING,
}
REASONS_MAX = 20
UNOWNED = "unowned"  # the event: the supervisor was killed, the job lives and is watched again
ELSEWHERE = "elsewhere"  # the event: its host leads to another machine with the same home now


def settle(ledger: Ledger, run: Run, status: Mapping[str, Any], at: str) -> Run:
    """Write down what the host's status proves; the run as it is known afterwards.

    Nothing is concluded from what the host does not say: a run it has never seen stays as it is.
    """
    phase = run_status(status, run.run_id)["phase"]
    attempt = attempt_of(status)
    if attempt > run.attempt and (phase in PHASES or phase == "finished"):
        ledger.went_on(run.run_id, at, attempt)
        run = ledger.get(run.run_id)
    hostevents.note(ledger, run, status, at)
    machine = lawful.text(status.get("machine"))
    if machine is not None:
        _note_once(ledger, run, at, ELSEWHERE, {"attempt": attempt, "machine": machine})
    if run.state is RunState.FINISHED:
        return run
    if attempt < run.attempt and phase != "absent":
        ledger.seen(run.run_id, at)  # the host has not heard of our attempt yet
    elif phase == "finished" and isinstance(status.get("exit"), dict):
        _finished(ledger, run, status, at)
    elif phase == "finished" and status.get("exit_fault") is not None:
        _unread(ledger, run, status, at)
    elif phase in PHASES:
        state = PHASES[phase]
        if state is not run.state or run.session is None:
            _started(ledger, run, status, at, state)
        else:
            ledger.seen(run.run_id, at, state, attempt)
        if status.get("adopted") is True:
            _note_once(ledger, run, at, UNOWNED, {"attempt": attempt})
    return ledger.get(run.run_id)


def settle_anew(ledger: Ledger, run: Run, status: Mapping[str, Any], at: str) -> Run:
    """`settle`, of a finished run too: a verdict that its host contradicts is withdrawn."""
    why = contradiction(run, status)
    if why is not None:
        ledger.corrected(run.run_id, at, why, run.attempt)
    return settle(ledger, ledger.get(run.run_id), status, at)


def _finished(ledger: Ledger, run: Run, status: Mapping[str, Any], at: str) -> None:
    record = replace(exit_record(status["exit"]), attempt=attempt_of(status))
    if record.verdict is Verdict.NEVER_STARTED:
        ledger.seen(run.run_id, at)
        ledger.never_started(run.run_id, at, "; ".join(record.reasons), record.attempt)
        return
    ran = lawful.moment(status.get("started_at")) or status.get("session")
    if ran and run.started_at is None and run.session is None:
        _started(ledger, run, status, at, run.state)
    began, ended = hostclock.ours(ledger, run, status, at, record.started_at, record.ended_at)
    record = replace(record, started_at=began, ended_at=ended)
    ledger.finished(run.run_id, at, record, judge_record(run, record))


def _unread(ledger: Ledger, run: Run, status: Mapping[str, Any], at: str) -> None:
    """It has ended, and nobody will ever read how: what stands for its exit record is none."""
    fault = lawful.text(status["exit_fault"]) or "its host does not say why"
    reason = f"it has ended, and its exit record on the host cannot be read: {fault}"
    record = ExitRecord(Verdict.LOST, reasons=(reason,), attempt=attempt_of(status))
    ledger.finished(run.run_id, at, record, judge_record(run, record))


def is_news(run: Run, status: Mapping[str, Any]) -> bool:
    """Whether `settle` would write down more than that the host answered."""
    phase = run_status(status, run.run_id)["phase"]
    same = PHASES.get(phase) is run.state and run.session is not None
    told = "adopted" in status or bool(status.get("events"))
    return not same or told or attempt_of(status) != run.attempt


def contradiction(run: Run, status: Mapping[str, Any]) -> str | None:
    """How the host's evidence contradicts what the ledger holds of a finished run, in words."""
    phase = run_status(status, run.run_id)["phase"]
    if run.state is not RunState.FINISHED or attempt_of(status) != run.attempt:
        return None
    verdict = run.verdict.value if run.verdict else "nothing"
    if phase in ("queued", "running", "unowned", "starting"):
        return f"the ledger said {verdict}, on its host it is {phase}"
    if phase == "finished" and isinstance(status.get("exit"), dict):
        record = exit_record(status["exit"])
        if record.verdict is not run.verdict:
            return f"the ledger said {verdict}, the host's exit record says {record.verdict.value}"
    return None


def _note_once(ledger: Ledger, run: Run, at: str, kind: str, told: dict[str, Any]) -> None:
    if not any(each.kind == kind and each.data == told for each in ledger.events(run.run_id)):
        ledger.event(run.run_id, at, kind, told)


def _started(ledger: Ledger, run: Run, status: Mapping[str, Any], at: str, state: RunState) -> None:
    known = status.get("session")
    session = None
    if isinstance(known, dict) and known.get("kind") in ("tmux", "screen", "plain"):
        session = Session(str(known["kind"]), lawful.text(known.get("name")) or "")
    told = lawful.moment(status.get("started_at"))
    (started_at,) = hostclock.ours(ledger, run, status, at, told)
    place = () if "machine" in status else places.place(status)
    ledger.started(run.run_id, at, started_at, session, state, attempt_of(status), place)


def judge_record(run: Run, record: ExitRecord, primary: str | None = None) -> Judged:
    """What the result is worth by the recorded spec; `primary`: another metric than its own."""
    if record.metrics_error is not None:
        reason = (record.metrics_error,)
        succeeded = record.verdict is Verdict.SUCCEEDED
        return Judged(Outcome.INVALID_RESULT if succeeded else Outcome.UNVERIFIED, reason)
    kept = recorded_of(run.spec)
    return judge(
        record.metrics,
        metrics_declared=kept.metrics_declared,
        expect=kept.expect,
        primary=primary or kept.metrics_primary,
        succeeded=record.verdict is Verdict.SUCCEEDED,
    )


def exit_record(raw: Mapping[str, Any]) -> ExitRecord:
    """The host's exit record, every field checked; an unlawful verdict counts as `lost`."""
    reasons = raw.get("reasons")
    listed = reasons[:REASONS_MAX] if isinstance(reasons, list) else []
    told = [text for item in listed if (text := lawful.text(item)) is not None]
    try:
        verdict = Verdict(str(raw.get("verdict")))
    except ValueError:
        verdict = Verdict.LOST
        told.append("the host's exit record names no lawful verdict")
    metrics = raw.get("metrics")
    content = metrics.get("text") if isinstance(metrics, dict) else None
    fault = metrics.get("error") if isinstance(metrics, dict) else None
    return ExitRecord(
        verdict=verdict,
        cause=_cause(raw.get("cause")),
        attempt=lawful.count(raw.get("attempt")) or 1,
        exit_code=lawful.count(raw.get("exit_code")),
        signal=lawful.count(raw.get("signal")),
        started_at=lawful.moment(raw.get("started_at")),
        ended_at=lawful.moment(raw.get("ended_at")),
        reasons=tuple(told),
        metrics=content.encode("utf-8", "surrogatepass") if isinstance(content, str) else None,
        metrics_error=None if fault is None else lawful.text(fault) or "its host does not say why",
    )


def attempt_of(status: Mapping[str, Any]) -> int:
    """The attempt that a host's status tells of."""
    return lawful.count(status.get("attempt")) or 1


def _cause(value: Any) -> str | None:
    word = isinstance(value, str) and len(value) <= 40 and value.replace("_", "").isalnum()
    return value if word and value.isascii() else None


def exit_code_of(run: Run) -> int:
    """0 fine, 1 ended badly, 7 succeeded with a result that does not pass."""
    if run.verdict is not Verdict.SUCCEEDED:
        return 1
    return 0 if run.outcome is None or run.outcome.passes else 7
