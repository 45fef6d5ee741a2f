"""A run that only its host tells of: its record is data, never an order to this machine."""

from __future__ import annotations

import json
import sqlite3
import stat
from pathlib import Path
from typing import Any

import pytest

from orchestrator.domain import Run, RunState
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import Hearsay, found
from orchestrator.usecases import asking, evidence, reconcile
from orchestrator.usecases.context import Context
from tests.contract import liar
from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, until
from tests.helpers.runs import a_run

PYTHON = """#!/bin/sh
touch "{mark}"
exec python3 "$@"
"""


def forget(desk: Desk) -> None:
    """The ledger is lost."""
    for path in (desk.home / "state" / "orch").glob("ledger.db*"):
        path.unlink()


def edit(desk: Desk, run_id: str, name: str, **changes: Any) -> None:
    """The host's record `name` of the run holds the changes."""
    path = desk.home / ".orch" / "runs" / run_id / name
    document = json.loads(path.read_text())
    document.update(changes)
    path.chmod(0o600)
    path.write_text(json.dumps(document))


def recorded(desk: Desk, run_id: str, **changes: Any) -> None:
    path = desk.home / ".orch" / "runs" / run_id / "spec.json"
    told = json.loads(path.read_text())["recorded"]
    edit(desk, run_id, "spec.json", recorded={**told, **changes})


def taken_in(desk: Desk) -> str:
    return desk.orch("ledger", "rebuild", "--host", "box").stdout


@pytest.mark.parametrize("command", [("wait",), ("tail", "-f")])
def test_f94_a_command_in_a_host_s_record_is_not_run_here(
    command: tuple[str, ...], desk: Desk, tmp_path: Path
) -> None:
    run_id = desk.submit("train")
    desk.orch("wait", run_id)
    mark = tmp_path / "owned"
    argv = ["sh", "-c", f"touch {mark}"]
    recorded(desk, run_id, notify={"by": "controller", "events": ["end"], "argv": argv})
    forget(desk)
    assert run_id in taken_in(desk)
    desk.orch(*command, run_id)
    assert not mark.exists()
    assert desk.show(run_id)["outcome"] == "ok"


LOST = {"verdict": "lost", "exit_code": None, "attempt": 1, "metrics": None, "reasons": []}


def lost_run(desk: Desk, *args: str) -> str:
    """A run whose host says that it is lost and that it wants to go on, with a secret of ours."""
    run_id = desk.submit("train", *args)
    desk.orch("wait", run_id, code=None)
    edit(desk, run_id, "exit.json", **LOST)
    recorded(desk, run_id, retry={"on": ["lost"], "exit": [], "max": 3}, secrets=["PRECIOUS"],
             notify={"webhook": "$PRECIOUS", "events": ["end"]})  # fmt: skip
    return run_id


def test_f94_a_host_s_record_has_no_variable_of_ours_sent_to_it(desk: Desk) -> None:
    run_id = lost_run(desk)
    order = desk.home / ".orch" / "runs" / run_id / "order.json"
    told = json.loads(order.read_text())
    told["stages"][0]["argv"] = ["sh", "-c", "echo ${PRECIOUS:-nothing} is known"]
    order.write_text(json.dumps(told))
    forget(desk)
    desk.env["PRECIOUS"] = "gold"
    assert run_id in taken_in(desk)
    for command in (("reconcile", "--host", "box"), ("wait", run_id), ("tail", run_id)):
        assert "goes on" not in desk.orch(*command, code=None).stderr
        assert desk.show(run_id)["state"] == "finished"
    desk.orch("resume", run_id)
    desk.orch("wait", run_id, code=None)
    log = desk.orch("tail", run_id, "--no-follow").stdout
    assert "nothing is known" in log and "gold" not in log


def test_a_run_found_again_is_resumed_with_the_secrets_that_its_own_job_names(
    new_desk: MakeDesk,
) -> None:
    work = 'test -e ../again && echo "$TOKEN is known" && exit 0; touch ../again; exit 3'
    desk = new_desk({"train": {"command": work, "secrets": ["TOKEN"]}})
    desk.env["TOKEN"] = "silver"
    run_id = desk.submit("train")
    desk.orch("wait", run_id, code=1)
    forget(desk)
    taken_in(desk)
    desk.orch("resume", run_id)
    desk.orch("wait", run_id)
    assert "silver is known" in desk.orch("tail", run_id, "--no-follow").stdout


def trap(folder: Path, mark: Path) -> None:
    """A folder that looks like a project and has a program for a host's python."""
    folder.mkdir(parents=True, exist_ok=True)
    evil = folder / "python"
    evil.write_text(PYTHON.format(mark=mark))
    evil.chmod(evil.stat().st_mode | stat.S_IXUSR)
    hosts = {
        name: {"transport": "local", "python": str(evil), "session": "plain"}
        for name in ("local", "box")
    }
    (folder / "orch.yaml").write_text(json.dumps({"hosts": hosts}))


SLOW = "until test -e ../go; do sleep 0.05; done"


def test_f94_a_project_that_only_a_host_names_says_nothing_here(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    desk = new_desk({"slow": SLOW})
    run_id = desk.submit("slow")
    until(lambda: desk.show(run_id)["state"] == "running")
    mark, elsewhere = tmp_path / "owned", tmp_path / "elsewhere"
    trap(elsewhere, mark)
    edit(desk, run_id, "spec.json", project=str(elsewhere))
    forget(desk)
    assert run_id in taken_in(desk)
    assert run_id in desk.orch("ls", "--all").stdout
    assert desk.show(run_id)["state"] == "running"
    desk.orch("reconcile")
    desk.orch("reconcile", "--import")
    refused = desk.orch("fetch-results", run_id, code=2).stderr
    assert f"cd {elsewhere}" in refused
    desk.orch("report", run_id, code=2)
    desk.orch("resume", run_id, code=None)
    with sqlite3.connect(desk.home / "state" / "orch" / "ledger.db") as connection:
        connection.execute("PRAGMA application_id = 7")  # no ledger any more, its rows are whole
    connection.close()
    assert "is kept as" in desk.orch("ledger", "rebuild").stderr
    desk.orch("cancel", run_id)
    desk.orch("wait", run_id, code=1)
    assert not mark.exists()
    assert not (elsewhere / "results").exists()


def test_runs_of_another_project_are_of_use_there_after_a_rebuild_from_here(
    new_desk: MakeDesk,
) -> None:
    here, there = new_desk(), new_desk()
    there.home = here.home
    run_id = there.submit("train")
    there.orch("wait", run_id)
    before = there.show(run_id)
    forget(here)
    assert run_id in taken_in(here)
    assert here.show(run_id)["accuracy"] == 0.9
    assert [run["run_id"] for run in there.runs()] == [run_id]
    there.orch("fetch-results", run_id)
    assert there.show(run_id)["config"] == before["config"]
    assert there.results("train", run_id).is_dir()


BROKEN: list[dict[str, Any]] = [
    {"expect": {"metrics": {"accuracy": {"min": "x"}}}},
    {"expect": {"metrics": {"accuracy": 7}}},
    {"expect": {"metrics": [1]}},
    {"expect": 7, "metrics": 7, "results": 7, "volatile": 7},
    {"expect": {"baseline": {"who": 1}, "tolerance": "x"}},
    {"expect": {"baseline": {"run_id": [], "accuracy": "x", "n": -1}, "tolerance": [1]}},
    {"expect": {"metrics": {"accuracy": {"min": 10**400}}, "predictions": [1]}},
    {"metrics": {"file": [1], "primary": {"a": 1}, "declared": "yes"}},
    {"results": {"dir": 7, "exclude": "x"}, "volatile": [[1]]},
]


@pytest.mark.parametrize("number", range(len(BROKEN)))
def test_an_unlawful_record_is_absent_and_breaks_no_command(number: int, desk: Desk) -> None:
    run_id = desk.submit("train")
    desk.orch("wait", run_id)
    recorded(desk, run_id, **BROKEN[number])
    forget(desk)
    done = desk.orch("ledger", "rebuild", "--host", "box")
    assert f"{run_id}: succeeded (now in the ledger)" in done.stdout
    assert f"{run_id}: " in done.stderr and "not lawful" in done.stderr
    assert desk.show(run_id)["accuracy"] == 0.9
    for command in (("ls",), ("report",), ("ledger", "verify"), ("fetch-results",)):
        desk.orch(*command)
    desk.submit("train")


def test_a_time_that_is_none_is_absent(desk: Desk) -> None:
    run_id = desk.submit("train")
    until(lambda: (desk.home / ".orch" / "runs" / run_id / "exit.json").exists())
    edit(desk, run_id, "exit.json", ended_at="yesterday", started_at="0001-01-01T00:00:00+23:59")
    desk.orch("wait", run_id)
    assert desk.show(run_id)["ended_at"] is None
    for command in (("top", "--json"), ("ls",), ("show",), ("report",), ("ledger", "export")):
        desk.orch(*command)


class Recorder:
    """Stands for `git_files`: notes the projects it was asked about."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, project: Path, _commit: str) -> None:
        self.asked.append(str(project))


@pytest.mark.parametrize("foreign", [True, False])
def test_git_is_not_run_in_a_project_that_only_a_host_names(
    foreign: bool, ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    git = Recorder()
    monkeypatch.setattr(evidence, "git_files", git)
    liar.lie(monkeypatch, liar.end({"ok": True}))
    spec = found({}, Hearsay(foreign, liar.HOST))
    run = a_run(snapshot="s1:x", git_commit="0" * 40, git_dirty=False, spec=spec)
    with evidence.Hosts(ctx) as hosts:
        evidence.CodeStore(hosts, [run])
    assert git.asked == ([] if foreign else [run.project])


def test_f95_a_host_speaks_for_no_run_but_those_it_was_asked_for(
    ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = a_run("20261123-100000-000other", host="honest", project=run.project)
    ledger.intend(other)
    lie = {**liar.exit_with(verdict="failed"), "run_id": other.run_id}
    about = {"run_id": liar.RUN_ID, "phase": "running"}
    liar.lie(monkeypatch, liar.statuses(about, lie))
    (account,) = reconcile.reconcile(ctx, ledger, [run])
    assert account.error is not None and account.error.exit_code == 6
    asked = asking.refresh_quietly(ctx, ledger, [run, ledger.get(run.run_id)], lambda *_: None)
    assert [each.state for each in asked] == [run.state] * 2
    assert ledger.get(other.run_id).state is RunState.INTENT
