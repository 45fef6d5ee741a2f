"""The ledger and the hosts agree, whatever was cut short: in both directions, by evidence alone."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator import inflight
from orchestrator.domain import Run, RunState, Verdict
from orchestrator.ledger.store import Ledger
from orchestrator.paths import LocalLayout
from orchestrator.usecases.context import Context
from orchestrator.usecases.reconcile import reconcile
from orchestrator.usecases.settle import settle
from tests.contract import liar
from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, assert_clear, of_run, supervisor_of, until
from tests.helpers import processes

SLEEP = "echo up; sleep 600 & wait"
HELD = "echo up; until test -e ../go; do sleep 0.05; done; "
INTENDED = "20261123-100000-000abcde"


def layout(desk: Desk) -> LocalLayout:
    return LocalLayout(desk.home / "state" / "orch")


def folder(desk: Desk, run_id: str) -> Path:
    return desk.home / ".orch" / "runs" / run_id


def intended(desk: Desk, run_id: str = INTENDED, state: RunState = RunState.INTENT) -> Run:
    """A run whose submit was killed before or after its start was sent."""
    run = Run(
        run_id=run_id, job="sleep", project=str(desk.project), state=RunState.INTENT,
        config_hash="c1:" + "0" * 64, config={}, host="box", created_at="2026-11-23T10:00:00Z",
    )  # fmt: skip
    with Ledger.open(layout(desk).ledger) as ledger:
        ledger.intend(run)
        if state is RunState.UNKNOWN:
            ledger.unknown(run_id, "2026-11-23T10:00:01Z", "the answer was lost")
    return run


def rewritten(desk: Desk, run_id: str, **columns: Any) -> None:
    """The ledger's row of the run says something else."""
    connection = sqlite3.connect(layout(desk).ledger)
    names = ", ".join(f"{name} = ?" for name in columns)
    with connection:
        connection.execute(f"UPDATE runs SET {names} WHERE run_id = ?", (*columns.values(), run_id))
    connection.close()


def kinds(desk: Desk, run_id: str) -> list[str]:
    return [event["kind"] for event in desk.show(run_id)["events"]]


def unreachable(desk: Desk) -> str:
    """The host does not answer from now on; what its description was before."""
    before = (desk.project / "orch.yaml").read_text()
    gone = '{"hosts": {"box": {"ssh": "nobody@127.0.0.1:9"}}, "default_host": "box"}'
    (desk.project / "orch.yaml").write_text(gone)
    return before


# --- starts that were left open -------------------------------------------------------------------


@pytest.mark.parametrize("state", [RunState.INTENT, RunState.UNKNOWN])
@pytest.mark.parametrize("command", [["ls"], ["show", INTENDED], ["reconcile"], ["wait", INTENDED]])
def test_a_start_left_open_that_the_host_never_saw_is_closed_there_and_here(
    command: list[str], state: RunState, new_desk: MakeDesk
) -> None:
    desk = new_desk({"sleep": SLEEP})
    intended(desk, state=state)
    desk.orch(*command, code=1 if command[0] == "wait" else 0)
    assert desk.rows() == [(INTENDED, "finished", "never_started")]
    record = json.loads((folder(desk, INTENDED) / "exit.json").read_text())
    assert record["verdict"] == "never_started"


def test_a_start_that_is_under_way_is_left_alone(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": SLEEP})
    intended(desk)
    with inflight.hold(layout(desk).inflight(INTENDED)):
        desk.orch("ls")
        desk.orch("reconcile")
        done = desk.orch("tail", INTENDED, code=3)
        assert "still going on" in done.stderr
    assert [row[1] for row in desk.rows()] == ["intent"]
    assert not folder(desk, INTENDED).exists()
    desk.orch("reconcile", INTENDED)
    assert [row[2] for row in desk.rows()] == ["never_started"]


def test_a_submit_killed_at_any_moment_is_settled_by_the_next_look(new_desk: MakeDesk) -> None:
    desk = new_desk({"mark": 'echo "$ORCH_RUN_ID" >> "$ORCH_RUN_DIR/../../marks"'})
    desk.orch("submit", "mark", "-f")
    for pause in (0.25, 0.35, 0.45, 0.55):
        submit = desk.start("submit", "mark")
        time.sleep(pause)  # the moment of the fault
        os.killpg(submit.pid, signal.SIGKILL)
        submit.communicate(timeout=20)

    def over() -> bool:
        desk.orch("reconcile")
        return {row[1] for row in desk.rows()} == {"finished"}

    until(over, 30)
    marks = (desk.home / ".orch" / "marks").read_text().split()
    assert len(marks) == len(set(marks))
    for run_id, _, verdict in desk.rows():
        assert (verdict == "succeeded") is (run_id in marks), (run_id, verdict, marks)


# --- ledger and host disagree ---------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["lost", "never_started"])
def test_a_run_that_lives_though_the_ledger_says_dead_is_corrected(
    verdict: str, new_desk: MakeDesk
) -> None:
    desk = new_desk({"sleep": SLEEP})
    run_id = desk.submit("sleep")
    rewritten(desk, run_id, state="finished", verdict=verdict, outcome="unverified")
    said = desk.orch("reconcile", "--host", "box").stdout
    assert f"{run_id}: {verdict} -> running" in said
    assert "corrected" in kinds(desk, run_id)
    desk.orch("cancel", run_id)
    assert desk.show(run_id)["verdict"] == "cancelled"


def test_a_cancel_asks_the_host_of_a_run_that_counts_as_never_started(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": SLEEP})
    run_id = desk.submit("sleep")
    never = {"state": "finished", "verdict": "never_started", "outcome": "unverified"}
    rewritten(desk, run_id, **never)
    before = unreachable(desk)
    done = desk.orch("cancel", run_id)
    assert f"whether {run_id} did start was not asked" in done.stderr
    assert desk.rows()[0][2] == "never_started"
    (desk.project / "orch.yaml").write_text(before)
    desk.orch("cancel", run_id)
    assert desk.show(run_id)["verdict"] == "cancelled"


def test_a_verdict_that_the_exit_record_contradicts_is_corrected(new_desk: MakeDesk) -> None:
    desk = new_desk()
    desk.orch("submit", "train", "-f")
    ((run_id, _, _),) = desk.rows()
    rewritten(desk, run_id, verdict="lost", outcome="unverified", accuracy=None)
    (account,) = json.loads(desk.orch("reconcile", run_id, "--json").stdout)
    (told,) = account["runs"]
    assert (told["before"]["verdict"], told["verdict"], told["accuracy"]) == (
        "lost",
        "succeeded",
        0.9,
    )
    assert desk.orch("reconcile", run_id).stdout.startswith(f"{run_id}: succeeded")


def test_an_answer_from_before_the_end_does_not_withdraw_the_verdict(
    ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command hears of the end and writes it down while the answer is on its way."""

    def answer(request: dict[str, Any], nonce: bytes) -> bytes:
        with Ledger.open(ctx.layout.ledger) as another:
            settle(another, run, liar.exit_with(), ctx.now())
        return liar.statuses({"run_id": run.run_id, "phase": "running"})(request, nonce)

    liar.lie(monkeypatch, answer)
    (account,) = reconcile(ctx, ledger, [run])
    assert account.error is None
    known = ledger.get(run.run_id)
    assert (known.state, known.verdict) == (RunState.FINISHED, Verdict.SUCCEEDED)
    assert "corrected" not in [event.kind for event in ledger.events(run.run_id)]


def test_a_run_whose_directory_was_taken_away_is_lost_only_when_nothing_of_it_lives(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"sleep": SLEEP})
    run_id = desk.submit("sleep")
    supervisor = supervisor_of(folder(desk, run_id))
    folder(desk, run_id).rename(desk.home / "elsewhere")
    said = desk.orch("reconcile").stdout
    assert f"`orch cancel {run_id}` ends them" in said
    assert desk.rows()[0][1] == "running", "its processes live"
    (account,) = json.loads(desk.orch("reconcile", "--json").stdout)
    assert account["vanished"] == [run_id]
    assert f"{run_id}: box has its directory no more" in desk.orch("ls").stderr
    processes.end([supervisor, *of_run(run_id)])
    until(lambda: not of_run(run_id))
    desk.orch("ls")
    assert desk.rows()[0][1] == "running", "only reconcile concludes from a missing directory"
    assert f"{run_id}: running -> lost" in desk.orch("reconcile").stdout


def rooted(new_desk: MakeDesk, root: Path, command: str, **more: str) -> tuple[Desk, str]:
    """A desk whose host has this root, and the id of the run it has started there."""
    host = {"transport": "local", "session": "plain", "root": str(root), **more}
    desk = new_desk({"job": command}, host=host)
    return desk, desk.submit("job")


def root_is(desk: Desk, root: Path) -> None:
    host = {"transport": "local", "session": "plain", "root": str(root)}
    described = {"hosts": {"box": host}, "default_host": "box"}
    (desk.project / "orch.yaml").write_text(json.dumps(described))


def test_a_run_that_is_looked_for_under_another_root_is_not_lost(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    desk, run_id = rooted(new_desk, tmp_path / "first", "true")
    until((tmp_path / "first" / "runs" / run_id / "exit.json").exists)
    root_is(desk, tmp_path / "second")
    done = desk.orch("reconcile")
    assert desk.rows()[0][1] != "finished"
    for word in (f"{tmp_path}/first", f"{tmp_path}/second", "nothing was concluded", "orch.yaml"):
        assert word in done.stderr
    fetch = desk.orch("fetch-results", run_id, code=3)
    assert_clear(fetch, f"{tmp_path}/first", "`root:`")
    assert_clear(desk.orch("cancel", run_id, code=3), f"{tmp_path}/first", "`root:`")
    assert not (tmp_path / "second" / "runs" / run_id).exists(), "nothing was closed there"
    root_is(desk, tmp_path / "first")
    assert "-> succeeded" in desk.orch("reconcile").stdout


def test_a_run_is_not_lost_when_its_project_was_moved_away(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    desk, run_id = rooted(new_desk, tmp_path / "first", "true")
    until((tmp_path / "first" / "runs" / run_id / "exit.json").exists)
    moved = desk.project.rename(tmp_path / "moved")
    desk.project.mkdir()
    config = desk.home / "config" / "orch" / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('{"hosts": {"box": {"transport": "local", "session": "plain"}}}')
    assert f"{tmp_path}/first" in desk.orch("reconcile").stderr
    assert desk.rows()[0][1] != "finished"
    desk.project.rmdir()
    moved.rename(desk.project)
    desk.orch("reconcile")
    assert desk.rows()[0][2] == "succeeded"


def test_another_machine_under_the_hosts_name_does_not_make_its_runs_lost(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    root, away, machine = tmp_path / "root", tmp_path / "away", tmp_path / "machine"
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nORCH_MACHINE_ID_FILE={machine} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    machine.write_text("the first")
    desk, run_id = rooted(new_desk, root, "true", python=str(python))
    until((root / "runs" / run_id / "exit.json").exists)
    machine.write_text("another")
    (root / "runs").rename(away)
    (root / "runs").mkdir()
    assert "nothing was concluded" in desk.orch("reconcile").stderr
    assert_clear(desk.orch("cancel", run_id, code=3), "was started on")
    assert desk.rows()[0][1] != "finished"
    machine.write_text("the first")
    desk.orch("reconcile")  # the very machine: the run is gone from it
    assert desk.rows()[0][2] == "lost"
    (root / "runs").rmdir()
    away.rename(root / "runs")
    assert f"{run_id}: lost (gone) -> succeeded" in desk.orch("reconcile").stdout


def test_a_cancel_asks_again_after_a_run_that_counts_as_gone(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    desk, run_id = rooted(new_desk, tmp_path / "root", SLEEP)
    rewritten(desk, run_id, state="finished", verdict="lost", cause="gone", outcome="unverified")
    assert "had ended" not in desk.orch("cancel", run_id).stderr
    assert desk.show(run_id)["verdict"] == "cancelled"
    assert not of_run(run_id)


def test_a_host_that_had_nothing_left_of_a_run_may_be_silent(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": SLEEP})
    run_id = desk.submit("sleep")
    desk.orch("cancel", run_id)
    rewritten(desk, run_id, verdict="lost", cause="gone")
    before = unreachable(desk)
    assert desk.orch("reconcile").stdout == "no run is open\n"
    desk.orch("reconcile", "--host", "box", code=6)
    (desk.project / "orch.yaml").write_text(before)
    assert f"{run_id}: lost (gone) -> cancelled" in desk.orch("reconcile").stdout


def test_runs_of_others_on_the_host_are_listed_and_left_alone(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    host = {"transport": "local", "session": "plain", "root": str(tmp_path / "shared")}
    mine = new_desk({"sleep": SLEEP}, host=host)
    other = new_desk({"theirs": HELD}, host=host)
    theirs = other.submit("theirs")
    run_id = mine.submit("sleep")
    said = mine.orch("reconcile").stdout
    assert f"{run_id}: running" in said
    assert f"  {theirs}  theirs of {other.project}" in said
    (account,) = json.loads(mine.orch("reconcile", "--host", "box", "--json").stdout)
    assert [(run["run_id"], run["job"]) for run in account["foreign"]] == [(theirs, "theirs")]
    assert [row[0] for row in mine.rows()] == [run_id]
    mine.orch("cancel", run_id)
    assert other.show(theirs)["state"] == "running"
    other.orch("cancel", theirs)


# --- silence --------------------------------------------------------------------------------------


def test_silence_changes_no_state_and_says_since_when(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": SLEEP})
    run_id = desk.submit("sleep")
    rewritten(desk, run_id, last_seen_at="2026-11-23T10:00:00.000000Z")
    before = unreachable(desk)
    listed = desk.orch("ls")
    assert "running (last seen" in listed.stdout
    assert "host unreachable)" in listed.stdout
    assert "host unreachable" in desk.orch("show", run_id).stdout
    done = desk.orch("reconcile", code=6)
    assert "box" in done.stderr
    assert desk.rows()[0][1] == "running"
    (desk.project / "orch.yaml").write_text(before)
    assert desk.orch("reconcile").stdout == f"{run_id}: running\n"
    desk.orch("cancel", run_id)


def test_a_host_that_hangs_holds_a_list_up_for_seconds_only(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    hanging = tmp_path / "python3"
    hanging.write_text("#!/bin/sh\nexec sleep 100\n")
    hanging.chmod(0o755)
    desk = new_desk({"sleep": SLEEP})
    run_id = desk.submit("sleep")
    before = (desk.project / "orch.yaml").read_text()
    host = {"transport": "local", "session": "plain", "python": str(hanging)}
    (desk.project / "orch.yaml").write_text(
        json.dumps({"hosts": {"box": host}, "default_host": "box"})
    )
    began = time.monotonic()
    assert "host unreachable" in desk.orch("ls").stdout
    assert time.monotonic() - began < 20
    (desk.project / "orch.yaml").write_text(before)
    desk.orch("cancel", run_id)


def test_nothing_open_asks_nobody(desk: Desk) -> None:
    assert desk.orch("reconcile").stdout == "no run is open\n"
    assert json.loads(desk.orch("reconcile", "--json").stdout) == []
    assert "nosuch" in desk.orch("reconcile", "nosuch", code=3).stderr


def test_check_submit_jobs_and_export_meet_open_runs_first(new_desk: MakeDesk) -> None:
    desk = new_desk()
    run_id = desk.submit("train")
    until((folder(desk, run_id) / "exit.json").exists)
    assert desk.rows()[0][1] == "running"
    assert f"already ran: {run_id}, 90.0 %, ok" in desk.orch("check", "train").stdout
    assert desk.rows() == [(run_id, "finished", "succeeded")]
    for command in (
        ("jobs", "--json"), ("ledger", "export", "--format", "json"),
        ("submit", "train", "--dry-run", "--json"),
    ):  # fmt: skip
        rewritten(desk, run_id, state="running", verdict=None, outcome=None, accuracy=None)
        assert '"running"' not in desk.orch(*command).stdout
        assert desk.rows() == [(run_id, "finished", "succeeded")]


def test_a_submit_without_a_config_asks_nobody_first(new_desk: MakeDesk) -> None:
    desk = new_desk({"quick": "true"})
    run_id = desk.submit("quick")
    until((folder(desk, run_id) / "exit.json").exists)
    desk.orch("submit", "quick", "--dry-run")
    assert desk.rows() == [(run_id, "running", None)]
    desk.orch("check", "quick")
    assert desk.rows() == [(run_id, "finished", "succeeded")]


def test_a_silent_host_of_an_open_run_hinders_no_check(new_desk: MakeDesk) -> None:
    desk = new_desk()
    run_id = desk.submit("train")
    settings = desk.project / "orch.yaml"
    here = settings.read_text()
    settings.write_text("hosts: {box: {transport: openssh, ssh: '127.0.0.1:1'}}\n")
    done = desk.orch("check", "train")
    assert f"has an open run: {run_id} on box, running" in done.stdout
    assert done.stderr == ""
    assert "what was last known is shown" in desk.orch("jobs").stderr
    assert "what was last known is shown" in desk.orch("ledger", "export").stderr
    settings.write_text(here)
    desk.orch("wait")
