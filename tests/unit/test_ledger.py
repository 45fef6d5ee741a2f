from __future__ import annotations

import dataclasses
import math
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.domain import (
    ExitRecord,
    Fetched,
    Judged,
    Outcome,
    Run,
    RunState,
    Session,
    Verdict,
)
from orchestrator.errors import LedgerError, NotFound
from orchestrator.ledger import Ledger, rows
from orchestrator.usecases.settle import settle
from tests.helpers.runs import AT, HASH, a_run, an_id

LATER = "2026-11-23T09:20:00.000000Z"
LATEST = "2026-11-23T09:30:00.000000Z"
ID = a_run().run_id
DONE = ExitRecord(Verdict.SUCCEEDED, 0, None, AT, LATER)
GOOD = Judged(Outcome.OK, (), 0.873, {"n": 872}, ((400, 36), (75, 361)), ("neg", "pos"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "state" / "orch" / "ledger.db") as opened:
        yield opened


def kinds(ledger: Ledger, run_id: str = ID) -> list[str]:
    return [event.kind for event in ledger.events(run_id)]


def test_a_run_comes_back_as_it_was_intended(ledger: Ledger) -> None:
    full = a_run(
        profile="cpu",
        overrides={"a.b": 1},
        findings=({"severity": "error", "rule": "missing", "ours": None},),
        forced=True,
        git_commit="abc",
        git_dirty=True,
        session=Session("tmux", "orch-x"),
        accuracy=0.5,
        metrics={"n": 4},
        confusion_matrix=((1, 2), (3, 4)),
        labels=("neg", "pos"),
        tags={"k": "v"},
        note="a note\nin two lines",
        spec={"results_dir": "results"},
    )
    ledger.intend(full)
    assert ledger.get(ID) == full


def test_every_field_of_a_run_has_its_column() -> None:
    assert tuple(field.name for field in dataclasses.fields(Run)) == rows.COLUMNS


def test_an_id_is_intended_once(ledger: Ledger) -> None:
    ledger.intend(a_run(job="first"))
    with pytest.raises(LedgerError, match="already"):
        ledger.intend(a_run(job="second"))
    assert ledger.get(ID).job == "first"
    assert kinds(ledger) == ["intent"]


def test_a_run_goes_through_its_life_one_event_a_line(ledger: Ledger) -> None:
    ledger.intend(a_run())
    ledger.synced(ID, AT, "s1:code", {"sst2": "sha256:1"})
    assert ledger.get(ID).state is RunState.SYNCED
    ledger.started(ID, AT, AT, Session("screen", "s"), RunState.QUEUED)
    ledger.seen(ID, LATER, RunState.RUNNING)
    running = ledger.get(ID)
    assert (running.state, running.last_seen_at) == (RunState.RUNNING, LATER)
    assert ledger.finished(ID, LATER, DONE, GOOD) is True
    ledger.fetched(ID, LATER, Fetched.COMPLETE, "results/train/x")
    run = ledger.get(ID)
    assert (run.snapshot, run.data) == ("s1:code", {"sst2": "sha256:1"})
    assert run.session == Session("screen", "s")
    assert (run.state, run.verdict, run.exit_code) == (RunState.FINISHED, Verdict.SUCCEEDED, 0)
    assert (run.outcome, run.accuracy, run.labels) == (Outcome.OK, 0.873, ("neg", "pos"))
    assert run.confusion_matrix == ((400, 36), (75, 361))
    assert (run.started_at, run.ended_at) == (AT, LATER)
    assert (run.fetched, run.results_path) == (Fetched.COMPLETE, "results/train/x")
    assert kinds(ledger) == ["intent", "synced", "started", "seen", "finished", "fetched"]
    assert [event.seq for event in ledger.events(ID)] == [1, 2, 3, 4, 5, 6]


def test_only_the_first_account_of_an_end_counts(ledger: Ledger) -> None:
    ledger.intend(a_run())
    assert ledger.finished(ID, LATER, DONE, GOOD) is True
    lost = ExitRecord(Verdict.LOST, reasons=("the host restarted",))
    assert ledger.finished(ID, LATEST, lost, Judged(Outcome.INVALID_RESULT)) is False
    assert ledger.never_started(ID, LATEST, "no trace") is False
    run = ledger.get(ID)
    assert (run.verdict, run.outcome, run.last_seen_at) == (Verdict.SUCCEEDED, Outcome.OK, LATER)
    assert kinds(ledger) == ["intent", "finished"]


@pytest.mark.parametrize("report", ["synced", "started", "seen", "unknown"])
def test_a_late_report_never_opens_a_finished_run(ledger: Ledger, report: str) -> None:
    ledger.intend(a_run())
    ledger.finished(ID, LATER, DONE, GOOD)
    if report == "synced":
        ledger.synced(ID, LATEST, "s1:code", {})
    elif report == "started":
        ledger.started(ID, LATEST, None, None, RunState.RUNNING)
    elif report == "seen":
        ledger.seen(ID, LATEST, RunState.RUNNING)
    else:
        ledger.unknown(ID, LATEST, "reply lost")
    run = ledger.get(ID)
    assert (run.state, run.verdict, run.started_at) == (RunState.FINISHED, Verdict.SUCCEEDED, AT)


def test_a_stale_queued_never_takes_a_running_run_back(ledger: Ledger) -> None:
    ledger.intend(a_run())
    ledger.started(ID, AT, AT, None, RunState.RUNNING)
    ledger.seen(ID, LATER, RunState.QUEUED)
    ledger.synced(ID, LATER, "s1:code", {})
    assert ledger.get(ID).state is RunState.RUNNING


def test_an_answer_from_before_a_newer_one_does_not_take_the_timeline_back(ledger: Ledger) -> None:
    """A follower of a resumed run asks; the answer of the start, which came later, knew more."""
    session = Session("tmux", "s")
    ledger.intend(a_run())
    ledger.started(ID, AT, AT, session, RunState.RUNNING)
    ledger.started(ID, LATER, None, session, RunState.QUEUED)
    assert kinds(ledger) == ["intent", "started"]
    ledger.started(ID, LATEST, None, Session("screen", "s"), RunState.QUEUED)
    told = [event.data["state"] for event in ledger.events(ID) if event.kind == "started"]
    assert told == ["running", "running"]
    assert ledger.get(ID).last_seen_at == LATEST


def test_a_lost_reply_makes_it_unknown_until_the_host_is_asked(ledger: Ledger) -> None:
    ledger.intend(a_run())
    ledger.unknown(ID, AT, "the link was lost during start")
    assert ledger.get(ID).state is RunState.UNKNOWN
    ledger.seen(ID, LATER, RunState.RUNNING)
    assert ledger.get(ID).state is RunState.RUNNING


def test_being_seen_without_news_moves_the_time_and_adds_no_line(ledger: Ledger) -> None:
    ledger.intend(a_run())
    ledger.started(ID, AT, AT, None, RunState.RUNNING)
    ledger.seen(ID, LATEST)
    ledger.seen(ID, LATER, RunState.RUNNING)
    assert ledger.get(ID).last_seen_at == LATEST
    assert kinds(ledger) == ["intent", "started"]


def test_a_run_proven_never_to_have_run_is_finished_so(ledger: Ledger) -> None:
    ledger.intend(a_run())
    assert ledger.never_started(ID, LATER, "the host has no trace of it") is True
    run = ledger.get(ID)
    assert (run.state, run.verdict) == (RunState.FINISHED, Verdict.NEVER_STARTED)
    assert (run.outcome, run.outcome_reasons) == (None, ("the host has no trace of it",))


def test_reasons_of_result_and_end_are_kept_each_once(ledger: Ledger) -> None:
    ledger.intend(a_run())
    record = ExitRecord(Verdict.OOM, None, 9, reasons=("killed by the kernel", "no file"))
    ledger.finished(ID, LATER, record, Judged(Outcome.INVALID_RESULT, ("no file",)))
    assert ledger.get(ID).outcome_reasons == ("no file", "killed by the kernel")


def test_a_result_read_later_replaces_the_outcome_and_not_the_verdict(ledger: Ledger) -> None:
    ledger.intend(a_run())
    ledger.finished(ID, LATER, DONE, Judged(Outcome.INVALID_RESULT, ("torn",)))
    ledger.judged(ID, LATEST, GOOD)
    run = ledger.get(ID)
    assert (run.outcome, run.accuracy, run.outcome_reasons) == (Outcome.OK, 0.873, ())
    assert run.verdict is Verdict.SUCCEEDED


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_accuracy_in_the_ledger_is_finite_or_null(ledger: Ledger, value: float) -> None:
    ledger.intend(a_run())
    judged = Judged(Outcome.INVALID_RESULT, accuracy=value, metrics={"loss": value, "n": [value]})
    ledger.finished(ID, LATER, DONE, judged)
    run = ledger.get(ID)
    assert run.accuracy is None
    assert run.metrics == {"loss": None, "n": [None]}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("accuracy", "9e999"),
        ("accuracy", "'0.9'||'x'"),
        ("state", "'paused'"),
        ("verdict", "'fine'"),
        ("outcome", "'great'"),
        ("fetched", "'some'"),
        ("state", "'finished'"),  # without a verdict
        ("verdict", "'lost'"),  # of a run that is not finished
    ],
)
def test_the_file_itself_refuses_what_has_no_meaning(
    ledger: Ledger, column: str, value: str
) -> None:
    ledger.intend(a_run())
    with sqlite3.connect(ledger.path) as other, pytest.raises(sqlite3.IntegrityError):
        other.execute(f"UPDATE runs SET {column} = {value}")
    other.close()


def test_a_superseded_run_says_by_which(ledger: Ledger) -> None:
    ledger.intend(a_run())
    later = an_id(80000)
    ledger.intend(a_run(later, supersedes=ID))
    assert ledger.get(later).supersedes == ID
    assert kinds(ledger) == ["intent"]  # it may yet never start
    ledger.started(later, LATER, None, None, RunState.QUEUED)
    assert kinds(ledger) == ["intent"]
    ledger.started(later, LATER, LATER, None, RunState.RUNNING)
    ledger.finished(later, LATER, DONE, GOOD)
    assert kinds(ledger) == ["intent", "superseded"]
    assert ledger.events(ID)[-1].data == {"by": later}
    ledger.intend(a_run(an_id(80001), supersedes=an_id(1)))  # which this ledger never saw
    ledger.finished(an_id(80001), LATER, DONE, GOOD)
    assert ledger.get(an_id(80001)).supersedes == an_id(1)


def test_a_run_that_never_started_supersedes_nothing_unless_it_turns_out_to_run(
    ledger: Ledger,
) -> None:
    later = an_id(80000)
    ledger.intend(a_run())
    ledger.intend(a_run(later, supersedes=ID))
    ledger.never_started(later, LATER, "no host")
    assert ledger.get(later).supersedes is None
    assert kinds(ledger) == ["intent"]
    ledger.corrected(later, LATEST, "it runs", 1)
    ledger.started(later, LATEST, LATER, None, RunState.RUNNING)
    assert ledger.get(later).supersedes == ID
    assert kinds(ledger) == ["intent", "superseded"]


def test_notes_tags_and_other_lines(ledger: Ledger) -> None:
    ledger.intend(a_run(tags={"old": "1"}))
    ledger.noted(ID, LATER, "looks good")
    ledger.tagged(ID, LATER, {"new": "2"}, ["old"])
    ledger.event(ID, LATER, "cancel_asked", {"by": "user"})
    assert (ledger.get(ID).note, ledger.get(ID).tags) == ("looks good", {"new": "2"})
    assert kinds(ledger) == ["intent", "noted", "tagged", "cancel_asked"]
    assert ledger.events(ID)[-1].data == {"by": "user"}


def test_a_tag_leaves_the_others_and_one_that_is_not_there_cannot_be_taken_away(
    ledger: Ledger,
) -> None:
    ledger.intend(a_run(tags={"old": "1"}))
    ledger.tagged(ID, LATER, {"new": "2"})
    with pytest.raises(NotFound, match="no tag 'odl'; did you mean `old`"):
        ledger.tagged(ID, LATER, {"more": "3"}, ["odl"])
    assert ledger.get(ID).tags == {"old": "1", "new": "2"}
    assert [event.data for event in ledger.events(ID)][1:] == [{"tags": {"old": "1", "new": "2"}}]


def test_a_run_found_on_a_host_is_taken_in_as_it_is(ledger: Ledger) -> None:
    found = a_run(state=RunState.FINISHED, verdict=Verdict.FAILED, exit_code=1)
    ledger.adopt(found, LATER, {"from": "nigel"})
    assert ledger.get(ID) == found
    assert kinds(ledger) == ["adopted"]


@pytest.mark.parametrize(
    "act",
    [
        lambda ledger: ledger.get("nothing"),
        lambda ledger: ledger.synced("nothing", AT, None, {}),
        lambda ledger: ledger.finished("nothing", AT, DONE, GOOD),
        lambda ledger: ledger.seen("nothing", AT, None),
        lambda ledger: ledger.event("nothing", AT, "x", {}),
    ],
)
def test_an_unknown_id_is_not_found(ledger: Ledger, act: object) -> None:
    with pytest.raises(NotFound):
        act(ledger)  # type: ignore[operator]


def test_runs_are_filtered_and_sorted_by_id(ledger: Ledger) -> None:
    for second in range(6):
        ledger.intend(a_run(an_id(second), job=f"job{second % 2}", project=f"/p{second // 4}"))
    ledger.finished(an_id(0), LATER, DONE, GOOD)
    ledger.started(an_id(1), AT, AT, None, RunState.RUNNING)

    def found(**given: object) -> list[str]:
        return [run.run_id for run in ledger.runs(**given)]  # type: ignore[arg-type]

    assert found() == [an_id(s) for s in (5, 4, 3, 2, 1, 0)]
    assert found(newest_first=False, limit=2) == [an_id(0), an_id(1)]
    assert found(project="/p1") == [an_id(5), an_id(4)]
    assert found(project="/p0", job="job0") == [an_id(2), an_id(0)]
    assert found(state=RunState.RUNNING) == [an_id(1)]
    assert found(state=RunState.FINISHED) == [an_id(0)]
    assert found(project="/p0", open_only=True) == [an_id(3), an_id(2), an_id(1)]
    assert found(limit=0) == []
    assert ledger.count() == 6
    assert ledger.count("/p1") == 2
    latest = ledger.latest("/p0", "job0")
    assert latest is not None
    assert latest.run_id == an_id(2)
    assert ledger.latest("/p2") is None
    assert ledger.job_names("/p0") == ["job0", "job1"]


def test_runs_of_the_same_config_come_oldest_first(ledger: Ledger) -> None:
    for second, job in ((2, "a"), (1, "a"), (3, "b")):
        ledger.intend(a_run(an_id(second), job=job))
    ledger.intend(a_run(an_id(4), config_hash="c1:other"))
    assert [run.run_id for run in ledger.same_config(HASH)] == [an_id(1), an_id(2), an_id(3)]
    assert [run.run_id for run in ledger.same_config(HASH, "a")] == [an_id(1), an_id(2)]


def test_a_path_that_is_not_utf8_still_names_its_project(ledger: Ledger) -> None:
    ledger.intend(a_run(project="/p/\udcff", note="n\udcff"))
    assert ledger.count("/p/\udcff") == 1
    assert ledger.get(ID).note == "n\\udcff"


def test_ledger_and_new_folders_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "ledger.db"
    with Ledger.open(path) as ledger:
        ledger.intend(a_run())
        modes = {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        assert modes == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700


def test_reading_an_absent_ledger_finds_nothing_and_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "none" / "ledger.db"
    with Ledger.open(path, readonly=True) as ledger:
        assert ledger.runs() == []
        assert ledger.latest("/p") is None
        assert ledger.count() == 0
    assert not path.parent.exists()


def test_a_ledger_opened_for_reading_is_not_written(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        ledger.intend(a_run())
    with Ledger.open(tmp_path / "ledger.db", readonly=True) as ledger:
        assert ledger.get(ID).job == "train"
        with pytest.raises(LedgerError, match="reading"):
            ledger.noted(ID, LATER, "x")


def test_a_reader_sees_what_a_writer_committed_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path) as writer, Ledger.open(path, readonly=True) as reader:
        writer.intend(a_run())
        assert reader.count() == 1


def test_a_sound_ledger_has_nothing_wrong(ledger: Ledger) -> None:
    ledger.intend(a_run())
    assert ledger.integrity() == []


# --- news of an attempt that is over --------------------------------------------------------------

FAILED = ExitRecord(Verdict.FAILED, 1, None, AT, LATER)


@pytest.fixture
def resumed(ledger: Ledger) -> Ledger:
    """A ledger in which another command has settled attempt 1 and begun attempt 2."""
    ledger.intend(a_run())
    ledger.started(ID, AT, AT, None, RunState.RUNNING, 1)
    assert ledger.finished(ID, LATER, FAILED, Judged(Outcome.UNVERIFIED))
    ledger.fetched(ID, LATER, Fetched.COMPLETE, "results/x", 1)
    assert ledger.resuming(ID, LATER, 2)
    return ledger


def test_a_late_word_of_an_earlier_attempt_changes_nothing(resumed: Ledger) -> None:
    before, lines = resumed.get(ID), kinds(resumed)
    assert resumed.finished(ID, LATEST, FAILED, Judged(Outcome.UNVERIFIED)) is False
    assert resumed.never_started(ID, LATEST, "closed", 1) is False
    assert resumed.lost(ID, LATEST, "gone", 1) is False
    resumed.started(ID, LATEST, LATEST, Session("tmux", "old"), RunState.RUNNING, 1)
    resumed.seen(ID, LATEST, RunState.RUNNING, 1)
    assert dataclasses.replace(resumed.get(ID), last_seen_at=before.last_seen_at) == before
    assert kinds(resumed) == lines
    assert resumed.finished(ID, LATEST, dataclasses.replace(FAILED, attempt=2), GOOD) is True
    resumed.corrected(ID, LATEST, "it runs", 1)
    assert resumed.get(ID).state is RunState.FINISHED


def test_results_of_an_earlier_attempt_are_never_all_there_is(resumed: Ledger) -> None:
    resumed.fetched(ID, LATEST, Fetched.COMPLETE, "results/x", 1)
    assert resumed.get(ID).fetched is Fetched.PARTIAL
    resumed.fetched(ID, LATEST, Fetched.COMPLETE, "results/x", 2)
    assert resumed.get(ID).fetched is Fetched.COMPLETE


def test_an_answer_that_was_asked_for_before_a_resume_does_not_end_the_new_attempt(
    resumed: Ledger,
) -> None:
    asked = dataclasses.replace(resumed.get(ID), state=RunState.RUNNING, attempt=1)
    told = {"run_id": ID, "attempt": 1, "phase": "finished", "exit": {"verdict": "failed"}}
    known = settle(resumed, asked, told, LATEST)
    assert (known.state, known.attempt, known.verdict) == (RunState.INTENT, 2, None)
