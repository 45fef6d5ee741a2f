"""A ledger from the run directories on the hosts: after a loss, from an old copy, from others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestrator.usecases.rebuild import described_run
from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, until

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
