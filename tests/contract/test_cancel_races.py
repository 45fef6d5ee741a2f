"""Cancels that meet a start, an end, or a process the kernel does not let go."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.datatree import scan_data
from orchestrator.domain import Run, RunState
from orchestrator.ledger.store import Ledger
from orchestrator.manifest import Scan
from orchestrator.usecases.asking import statuses
from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, of_run, until
from tests.contract.test_agent import Box, body, end_all, pushed

RUN_ID = "20261123-100000-000abcde"
FREEZER = Path("/sys/fs/cgroup/freezer")


def folder(desk: Desk, run_id: str) -> Path:
    return desk.home / ".orch" / "runs" / run_id


def record(place: Path) -> dict[str, Any]:
    return json.loads((place / "exit.json").read_text())


# --- before the start -----------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Box]:
    (tmp_path / "home").mkdir()
    yield Box(tmp_path / "home")
    end_all(tmp_path / "home")


@pytest.fixture
def tree(tmp_path: Path) -> Scan:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("x")
    return scan_data(tmp_path / "tree", tmp_path / "cache.json")


def test_f27_a_start_that_comes_after_its_cancel_starts_nothing(place: Box, tree: Scan) -> None:
    pushed(place, tree)
    with place.agent() as agent:
        told = agent.call("cancel", {"run_id": RUN_ID, "patience": 5})
        assert told["exit"]["verdict"] == "cancelled"
        late = agent.call("start", body(tree, RUN_ID, "touch ../../../ran"))
        assert (late["phase"], late["exit"]["verdict"]) == ("finished", "cancelled")
    assert not (place.runs / RUN_ID / "started").exists()
    assert not (place.home / ".orch" / "ran").exists()


def test_f27_a_start_that_comes_after_it_was_closed_starts_nothing(place: Box, tree: Scan) -> None:
    pushed(place, tree)
    closing = {"run_id": RUN_ID, "attempt": 1, "verdict": "never_started", "reason": "gone"}
    with place.agent() as agent:
        (told,) = statuses(agent, {"run_ids": [RUN_ID], "close": [closing]})
        assert told["exit"]["verdict"] == "never_started"
        assert agent.call("start", body(tree, RUN_ID, "true"))["phase"] == "finished"
        running = "20261123-100000-000fghij"
        agent.call("start", body(tree, running, "sleep 600"))
        late = [{**closing, "run_id": running}]
        (told,) = statuses(agent, {"run_ids": [running], "close": late})
        assert told["phase"] in ("queued", "running"), "a run that has started cannot be closed"
        agent.call("cancel", {"run_id": running, "patience": 10})


def test_f27_a_run_cancelled_before_it_reached_its_host_is_cancelled_there_too(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"sleep": "sleep 600"})
    run = Run(
        run_id=RUN_ID, job="sleep", project=str(desk.project), state=RunState.INTENT,
        config_hash="c1:" + "0" * 64, config={}, host="box", created_at="2026-11-23T10:00:00Z",
    )  # fmt: skip
    with Ledger.open(desk.home / "state" / "orch" / "ledger.db") as ledger:
        ledger.intend(run)
    for _ in range(2):
        desk.orch("cancel", RUN_ID)
        assert desk.rows() == [(RUN_ID, "finished", "cancelled")]
    assert record(folder(desk, RUN_ID))["verdict"] == "cancelled"


# --- at the end -----------------------------------------------------------------------------------


def test_f26_the_first_exit_record_wins_over_a_cancel_in_the_same_moment(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"short": "until test -e ../go; do sleep 0.01; done"})
    chance = random.Random(26)
    seen = set()
    for _ in range(8):
        run_id = desk.submit("short")
        cancel = desk.start("cancel", run_id, "--json")
        time.sleep(chance.uniform(0.1, 0.45))  # the moment of the race
        (folder(desk, run_id) / "go").touch()
        out, said = cancel.communicate(timeout=40)
        assert cancel.returncode == 0, said
        verdict = record(folder(desk, run_id))["verdict"]
        assert json.loads(out)["verdict"] == verdict == desk.show(run_id)["verdict"]
        if verdict == "succeeded":
            assert "it had ended before" in said
        seen.add(verdict)
    assert seen <= {"succeeded", "cancelled"}


# --- processes that stay --------------------------------------------------------------------------


@pytest.fixture
def freezer() -> Iterator[Path]:
    """A cgroup whose processes can be made deaf to SIGKILL."""
    if not (FREEZER / "cgroup.procs").exists():
        pytest.skip("no cgroup v1 freezer here")
    group = FREEZER / f"orch-test-{os.getpid()}"
    group.mkdir()
    yield group
    (group / "freezer.state").write_text("THAWED")
    until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


@pytest.mark.root
@pytest.mark.slow
def test_f25_a_process_the_kernel_does_not_let_go_is_not_called_cancelled(
    new_desk: MakeDesk, freezer: Path
) -> None:
    desk = new_desk({"deaf": "sleep 600"})
    run_id = desk.submit("deaf")
    until(lambda: of_run(run_id))
    (freezer / "cgroup.procs").write_text(str(of_run(run_id)[0]))
    (freezer / "freezer.state").write_text("FROZEN")
    done = desk.orch("cancel", run_id, code=4, timeout=100)
    assert "has not ended yet" in done.stderr
    assert desk.show(run_id)["state"] == "running"
    assert "would not end" in desk.orch("tail", run_id, "--no-follow").stdout
    (freezer / "freezer.state").write_text("THAWED")
    desk.orch("wait", run_id, code=1)
    assert desk.show(run_id)["verdict"] == "cancelled"
    assert of_run(run_id) == []
