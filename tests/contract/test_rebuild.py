"""A ledger from the run directories on the hosts: after a loss, from an old copy, from others."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from orchestrator.usecases.rebuild import described_run
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import TRAIN, Desk, until
from tests.helpers.project import write_yaml
from tests.helpers.sshd import PrivateSshd

# What a ledger knows that no run directory holds: the past, and what was fetched.
OURS = ("events", "last_seen_at", "fetched", "results_path")


def ledger(desk: Desk) -> Path:
    return desk.home / "state" / "orch" / "ledger.db"


def without_ours(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in OURS}


@pytest.fixture
def busy(new_desk: MakeDesk) -> Desk:
    """A desk with a run that succeeded, one that failed and one that goes on."""
    jobs = {"train": {**TRAIN, "profiles": {"p": {"config": {"lr": 0.5}}}}, "bad": "exit 3",
            "slow": "until test -e ../go; do sleep 0.05; done"}  # fmt: skip
    desk = new_desk(jobs, git=True)
    desk.orch("submit", "train", "--profile", "p", "--set", "right=46", "--tag", "a=b",
              "--note", "größe", "-f")  # fmt: skip
    desk.orch("submit", "bad", "-f", code=1)
    desk.submit("slow")
    until(lambda: desk.show("slow")["state"] == "running")
    yield desk
    desk.orch("cancel", "slow", code=None)


@pytest.mark.parametrize("loss", ["gone", "garbage", "empty"])
def test_f56_a_lost_ledger_is_made_anew_and_the_old_file_is_kept(loss: str, busy: Desk) -> None:
    before = {run["run_id"]: without_ours(run) for run in busy.runs()}
    for path in ledger(busy).parent.glob("ledger.db-*"):
        path.unlink()
    if loss == "gone":
        ledger(busy).unlink()
    else:
        ledger(busy).write_bytes(b"garbage" * 1000 if loss == "garbage" else b"")
        assert "orch ledger rebuild" in busy.orch("ls", code=11).stderr
    said = busy.orch("ledger", "rebuild")
    assert said.stdout.count("(now in the ledger)") == 3
    after = {run["run_id"]: without_ours(run) for run in busy.runs()}
    for run_id, document in before.items():
        assert after[run_id] == document
    kept = list(ledger(busy).parent.glob("ledger.db.damaged-*"))
    assert len(kept) == (0 if loss == "gone" else 1)
    again = busy.orch("ledger", "rebuild").stdout
    assert "now in the ledger" not in again


def test_f61_an_old_copy_of_the_ledger_learns_of_later_runs_on_request(busy: Desk) -> None:
    (ledger(busy).parent / "old").mkdir()
    old = shutil.copy(ledger(busy), ledger(busy).parent / "old" / "ledger.db")
    busy.orch("submit", "bad", "-f", code=1)
    later = busy.runs()[0]["run_id"]
    for path in ledger(busy).parent.glob("ledger.db*"):
        path.unlink()
    shutil.copy(old, ledger(busy))
    assert later in busy.orch("reconcile", "--host", "box").stdout
    assert later not in [row[0] for row in busy.rows()]
    (account,) = json.loads(busy.orch("reconcile", "--host", "box", "--import", "--json").stdout)
    assert later in [run["run_id"] for run in account["taken"]]
    assert account["foreign"] == []
    assert busy.show(later)["verdict"] == "failed"


LAWFUL = {
    "job": "train", "project": "/p", "created_at": "2026-11-23T10:00:00Z",
    "config_hash": "c1:1", "config": {"lr": 0.1},
}  # fmt: skip
UNLAWFUL: list[Any] = [
    None, [], {}, {**LAWFUL, "job": "../x"}, {**LAWFUL, "job": 7}, {**LAWFUL, "project": "p"},
    {**LAWFUL, "created_at": "yesterday"}, {**LAWFUL, "config": [1]},
    {**LAWFUL, "config": {"lr": float("nan")}}, {**LAWFUL, "config_hash": None},
]  # fmt: skip


@pytest.mark.parametrize("about", UNLAWFUL)
def test_what_a_host_tells_of_a_run_is_not_believed_blindly(about: Any) -> None:
    assert described_run("20261123-100000-000abcde", "box", about) is None
    assert described_run("..", "box", LAWFUL) is None


def test_odd_fields_of_a_description_are_left_out() -> None:
    odd = {"tags": {"a": 1, "b": "c"}, "note": [1], "data": 7, "findings": [1], "git_dirty": "yes"}
    run = described_run("20261123-100000-000abcde", "box", {**LAWFUL, **odd})
    assert run is not None
    assert (run.tags, run.note, run.data, run.findings) == ({"b": "c"}, None, {}, ())
    assert run.git_dirty is None


def test_a_config_that_does_not_give_its_hash_is_left_out_and_that_is_said(
    new_desk: MakeDesk,
) -> None:
    spoil = """echo '{"lr": 99}' > $ORCH_CONFIG"""
    desk = new_desk({"spoil": {"command": spoil, "config": {"lr": 0.1}}})
    desk.orch("submit", "spoil", "-f")
    before = desk.show()
    ledger(desk).unlink()
    done = desk.orch("ledger", "rebuild")
    assert re.search(r"the config.json that \w+ has of it does not give", done.stderr)
    after = desk.show(before["run_id"])
    assert (after["config"], after["config_hash"]) == ({}, before["config_hash"])
    assert "does not give" in desk.orch("ledger", "verify", code=11).stdout


def test_a_rebuild_says_whom_it_asked_and_which_aliases_it_did_not(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    config = tmp_path / "ssh_config"
    config.write_text("Host nigel\n  HostName 127.0.0.1\n  Port 1\nHost *\n  User x\n")
    desk = new_desk({"ok": "true"}, ssh_config=config)
    desk.orch("submit", "ok", "-f")
    ledger(desk).write_bytes(b"junk\n")
    done = desk.orch("ledger", "rebuild")
    assert "asked local, box" in done.stderr
    assert "not asked: nigel" in done.stderr
    assert "orch ledger rebuild --host nigel" in done.stderr
    assert "nothing was changed" not in done.stderr
    assert "ledger.db.damaged-1" in done.stderr
    assert "asked nigel\n" in desk.orch("ledger", "rebuild", "--host", "nigel", code=6).stderr


@pytest.mark.parametrize("by", ["orch.yaml", "config.yaml", "ORCH_HOST"])
def test_the_default_host_is_one_that_somebody_named(
    by: str, new_desk: MakeDesk, tmp_path: Path
) -> None:
    config = tmp_path / "ssh_config"
    config.write_text("Host nigel other\n  HostName 127.0.0.1\n  Port 1\n")
    desk = new_desk({"ok": "true"}, ssh_config=config)
    user = desk.home / "config" / "orch" / "config.yaml"
    user.parent.mkdir(parents=True)
    named = {"default_host": "nigel"}
    write_yaml(desk.project / "orch.yaml", named if by == "orch.yaml" else {})
    write_yaml(user, named if by == "config.yaml" else {})
    if by == "ORCH_HOST":
        desk.env[by] = "nigel"
    for command in (("ledger", "rebuild"), ("reconcile", "--import")):
        told = desk.orch(*command, code=6).stderr
        assert "asked local, nigel\n" in told and "not asked: other (" in told
    shown = json.loads(desk.orch("gpus", "--json").stdout)
    assert [each["host"] for each in shown] == ["local", "nigel"]
    board = json.loads(desk.orch("top", "--json").stdout)
    assert [each["host"] for each in board["hosts"]] == ["local", "nigel"]


def test_hosts_that_only_the_old_ledger_names_are_asked_too(
    new_desk: MakeDesk, sshd: PrivateSshd
) -> None:
    desk = new_desk({"ok": "true"}, host=box(sshd), ssh_config=sshd.client_config)
    run_id = desk.submit("ok", "--host", "box")
    desk.orch("wait", run_id)
    (desk.project / "orch.yaml").write_text("{}")
    with sqlite3.connect(ledger(desk)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("UPDATE runs SET host = ?", (sshd.alias,))
    connection.close()
    assert f"asked local, {sshd.alias}" in desk.orch("ledger", "rebuild").stderr
    with sqlite3.connect(ledger(desk)) as connection:  # the rows are whole, the file is not ours
        connection.execute("PRAGMA application_id = 7")
    connection.close()
    done = desk.orch("ledger", "rebuild")
    assert f"asked local, {sshd.alias}" in done.stderr
    assert "ledger.db.damaged-1" in done.stderr


def test_results_that_lie_here_with_their_journal_are_known_again(desk: Desk) -> None:
    run_id = desk.submit("train")
    desk.orch("wait", run_id)
    desk.orch("fetch-results", run_id)
    ledger(desk).write_bytes(b"junk\n")
    desk.orch("ledger", "rebuild")
    shown = desk.show(run_id)
    assert (shown["fetched"], shown["results_path"]) == (
        "partial", str(desk.results("train", run_id)))  # fmt: skip
    assert "were here already" in desk.orch("fetch-results", run_id).stderr
    assert desk.show(run_id)["fetched"] == "complete"


def test_a_rebuild_of_a_whole_ledger_says_what_it_found(desk: Desk) -> None:
    run_id = desk.submit("train")
    desk.orch("wait", run_id)
    said = desk.orch("ledger", "rebuild").stdout
    assert said == "local, box: no run is open, and none is there that was not known\n"


def test_a_run_directory_that_says_nothing_is_named_as_such(desk: Desk) -> None:
    run_id = desk.submit("train")
    desk.orch("wait", run_id)
    (desk.home / ".orch" / "runs" / run_id / "spec.json").unlink()
    for path in ledger(desk).parent.glob("ledger.db*"):
        path.unlink()
    said = desk.orch("ledger", "rebuild").stdout
    assert "local: 1 run that this ledger does not know\n" in said
    assert f"  {run_id}  its directory there does not say what it is" in said


def test_reconcile_imports_from_every_host_that_is_named_somewhere(desk: Desk) -> None:
    run_id = desk.submit("train")
    desk.orch("wait", run_id)
    for path in ledger(desk).parent.glob("ledger.db*"):
        path.unlink()
    done = desk.orch("reconcile", "--import")
    assert f"{run_id}: succeeded (now in the ledger)" in done.stdout
    assert "asked local, box" in done.stderr


def test_a_ledger_that_is_only_locked_is_not_put_aside(desk: Desk) -> None:
    run_id = desk.submit("train")
    desk.orch("wait", run_id)
    holder = sqlite3.connect(ledger(desk), isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    said = desk.orch("ledger", "rebuild", code=11).stderr
    holder.close()
    assert "try again" in said
    assert not list(ledger(desk).parent.glob("*damaged*"))
    assert desk.show(run_id)["run_id"] == run_id
