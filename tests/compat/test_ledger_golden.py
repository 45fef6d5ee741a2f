"""Ledgers of every published schema open, migrate and read as they were written.

`ledger_v1.db` was written by `write` with schema 1, `ledger_v2.db` by `write` and `write_more` with
schema 2; a published file is never made anew. A change of the tables adds a migration, a golden
file of its schema, and a number in SCHEMAS.
"""

from __future__ import annotations

import shutil
import sqlite3
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
from orchestrator.ledger import Ledger, schema

SCHEMAS = (1, 2)
T0, T1, T2 = (f"2026-11-23T09:{minute}:00.000000Z" for minute in (19, 20, 50))
OLD, NEW, OTHER = "20261123-091900-000aaaaa", "20261123-095000-000bbbbb", "20261123-095100-000ccccc"
AGAIN = "20261123-095200-000ddddd"


def intents() -> list[Run]:
    """The three runs as they were intended."""
    config = {"training": {"ema": 0.9999, "warmup": 500}, "name": "größe", "none": None}
    old = Run(
        run_id=OLD,
        job="mdlm-pretrained-fixed",
        project="/projects/textdiff",
        state=RunState.INTENT,
        config_hash="c1:" + "0a" * 32,
        config=config,
        host="nigel",
        created_at=T0,
        profile="cpu",
        overrides={"training.warmup": 500},
        findings=({"severity": "error", "rule": "differs", "key": "training.warmup"},),
        forced=True,
        git_commit="f" * 40,
        git_dirty=False,
        tags={"try": "1"},
        note="two lines\nof text",
        spec={"results_dir": "results"},
    )
    new = Run(NEW, old.job, old.project, RunState.INTENT, "c1:" + "0b" * 32, {}, "nigel", T2)
    other = Run(OTHER, "hello", "/projects/hello", RunState.INTENT, "c1:1", {}, "local", T2)
    return [old, Run(**{**as_fields(new), "supersedes": OLD}), other]


def as_fields(run: Run) -> dict[str, object]:
    return {name: getattr(run, name) for name in Run.__dataclass_fields__}


def write(path: Path) -> None:
    """The golden ledger is at `path`."""
    judged = Judged(
        Outcome.DEGENERATE,
        ("class 1 is never predicted",),
        0.578,
        {"n": 1000, "accuracy": 0.578},
        ((578, 0), (422, 0)),
        ("negative", "positive"),
    )
    with Ledger.open(path) as ledger:
        for run in intents():
            ledger.intend(run)
        ledger.event(OLD, T2, "superseded", {"by": NEW})  # was told with the intent then
        ledger.synced(OLD, T0, "s1:" + "c" * 64, {"sst2": "sha256:" + "d" * 64})
        ledger.started(OLD, T1, T1, Session("tmux", "orch-" + OLD), RunState.RUNNING)
        ledger.finished(OLD, T2, ExitRecord(Verdict.SUCCEEDED, 0, None, T1, T2), judged)
        ledger.fetched(OLD, T2, Fetched.COMPLETE, f"results/mdlm-pretrained-fixed/{OLD}")
        ledger.started(NEW, T2, None, Session("plain", "42"), RunState.QUEUED)
        ledger.unknown(OTHER, T2, "the reply was lost")


def write_more(path: Path) -> None:
    """What schema 2 can hold besides: a run in its second attempt, one that died for a cause."""
    lost = ExitRecord(Verdict.LOST, reasons=("the host was restarted",), cause="reboot")
    oom = ExitRecord(Verdict.OOM, None, 9, T1, T2, cause="oom", attempt=2)
    with Ledger.open(path) as ledger:
        ledger.intend(Run(AGAIN, "again", "/projects/a", RunState.INTENT, "c1:2", {}, "nigel", T0))
        ledger.started(AGAIN, T0, T0, Session("plain", "x"), RunState.RUNNING)
        ledger.finished(AGAIN, T1, lost, Judged(Outcome.UNVERIFIED))
        assert ledger.resuming(AGAIN, T1, 2)
        ledger.finished(AGAIN, T2, oom, Judged(Outcome.UNVERIFIED))


@pytest.fixture(params=SCHEMAS)
def schema_number(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def ledger_file(tmp_path: Path, schema_number: int) -> Path:
    """A copy of the golden file; the original is never opened."""
    golden = Path(__file__).with_name(f"ledger_v{schema_number}.db")
    return Path(shutil.copy(golden, tmp_path / "ledger.db"))


def test_every_schema_has_its_golden_file() -> None:
    assert len(schema.MIGRATIONS) == SCHEMAS[-1]


def test_a_golden_file_is_of_its_schema(ledger_file: Path, schema_number: int) -> None:
    with sqlite3.connect(ledger_file) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (schema_number,)
        assert database.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
    database.close()


def test_f59_an_old_ledger_reads_as_it_was_written(
    ledger_file: Path, tmp_path: Path, schema_number: int
) -> None:
    write(tmp_path / "fresh.db")
    if schema_number > 1:
        write_more(tmp_path / "fresh.db")
    with Ledger.open(ledger_file) as old, Ledger.open(tmp_path / "fresh.db") as fresh:
        assert old.integrity() == []
        assert old.runs() == fresh.runs()
        for run in fresh.runs():
            assert old.events(run.run_id) == fresh.events(run.run_id)


def test_an_old_ledger_holds_the_run_it_tells_of(ledger_file: Path) -> None:
    with Ledger.open(ledger_file, readonly=True) as ledger:
        run = ledger.get(OLD)
    assert (run.state, run.verdict, run.outcome) == (
        RunState.FINISHED,
        Verdict.SUCCEEDED,
        Outcome.DEGENERATE,
    )
    assert run.accuracy == 0.578
    assert run.confusion_matrix == ((578, 0), (422, 0))
    assert run.config == {
        "training": {"ema": 0.9999, "warmup": 500},
        "name": "größe",
        "none": None,
    }
    assert run.note == "two lines\nof text"
    assert run.session == Session("tmux", "orch-" + OLD)


def test_an_old_ledger_goes_on_being_written(ledger_file: Path) -> None:
    with Ledger.open(ledger_file) as ledger:
        ledger.seen(OTHER, T2, RunState.RUNNING)
        assert ledger.get(OTHER).state is RunState.RUNNING
        assert [event.kind for event in ledger.events(OTHER)] == ["intent", "unknown", "seen"]


def test_a_run_of_schema_1_is_in_its_first_attempt(ledger_file: Path) -> None:
    with Ledger.open(ledger_file) as ledger:
        known = ledger.get(OLD)
        assert (known.attempt, known.cause) == (1, None)
        if ledger.find(AGAIN):
            again = ledger.get(AGAIN)
            assert (again.attempt, again.verdict, again.cause) == (2, Verdict.OOM, "oom")
