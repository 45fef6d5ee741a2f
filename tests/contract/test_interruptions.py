"""What is killed or interrupted here or there: the run's state stays true and is found out."""

from __future__ import annotations

import os
import signal
import time

from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, of_run, supervisor_of, until
from tests.helpers import processes

SLEEPER = "echo up; sleep 600 & wait"


def test_f23_a_killed_supervisor_is_not_a_dead_run(new_desk: MakeDesk) -> None:
    job = "echo up; until test -e ../go; do sleep 0.05; done; echo through"
    desk = new_desk({"slow": job})
    run_id = desk.submit("slow")
    place = desk.home / ".orch" / "runs" / run_id
    os.kill(supervisor_of(place), signal.SIGKILL)
    for _ in range(2):
        assert desk.show()["state"] == "running"
    assert of_run(run_id)
    (place / "go").touch()
    until(lambda: not of_run(run_id))
    desk.orch("wait")
    shown = desk.show()
    assert (shown["state"], shown["verdict"], shown["exit_code"]) == ("finished", "succeeded", 0)
    assert "through" in desk.orch("tail", "--no-follow").stdout
    assert desk.orch("fetch-results").returncode == 0


def test_f23_supervisor_and_job_killed_are_found_out_and_stay_so(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": SLEEPER})
    run_id = desk.submit("sleep")
    tail = desk.start("tail")
    assert tail.stdout
    assert tail.stdout.readline() == "up\n"
    processes.end([supervisor_of(desk.home / ".orch" / "runs" / run_id), *of_run(run_id)])
    assert tail.wait(timeout=20) == 1
    tail.communicate()
    first = desk.show()
    assert (first["verdict"], first["signal"]) == ("killed", signal.SIGKILL)
    assert desk.show() == first
    assert len(desk.runs()) == 1, "it was started again"


def test_f52_ctrl_c_at_any_moment_of_a_submit_leaves_a_truthful_ledger(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"quick": "sleep 0.3"}, files={f"f{n}": "x" * n for n in range(200)})
    for pause in (0.05, 0.12, 0.2, 0.26, 0.32, 0.38, 0.44, 0.5, 0.6):
        before = {row[0] for row in desk.rows()}
        submit = desk.start("submit", "quick")
        time.sleep(pause)
        os.killpg(submit.pid, signal.SIGINT)
        out, said = submit.communicate(timeout=20)
        assert submit.returncode in (0, 1, 130, -signal.SIGINT), said
        # The interpreter's own start-up cannot be caught; from our first line on it is.
        assert "Traceback" not in said or "orchestrator" not in said, said
        new = [row for row in desk.rows() if row[0] not in before]
        assert len(new) <= 1
        if submit.returncode == 0:
            assert [row[0] for row in new] == out.split()
        elif new and submit.returncode == 130:
            assert new[0][0] in out + said, f"{new} is not named: {said!r}"
    _assert_truthful(desk)


def _assert_truthful(desk: Desk) -> None:
    """I1, I2, I3: every run of the host is in the ledger, none started twice, none dead alive."""
    place = desk.home / ".orch" / "runs"
    there = {path.name for path in place.iterdir() if path.is_dir()} if place.exists() else set()
    assert there <= {row[0] for row in desk.rows()}
    for run_id, state, verdict in desk.rows():
        started = (place / run_id / "started").exists()
        assert not (started and verdict == "never_started")
        if started and state != "finished":
            desk.orch("wait", run_id, "--timeout", "20s", code=None)
            assert desk.show(run_id)["verdict"] == "succeeded"
    marks = desk.home / ".orch" / "marks"
    ids = marks.read_text().split() if marks.exists() else []
    assert len(ids) == len(set(ids)), "a run was started twice"


def test_f43_to_f47_a_submit_killed_at_any_moment_leaves_no_run_nobody_knows(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"quick": "echo $ORCH_RUN_ID >> $ORCH_RUN_DIR/../../marks"})
    for step in range(14):
        submit = desk.start("submit", "quick")
        time.sleep(0.1 + 0.03 * step)
        os.killpg(submit.pid, signal.SIGKILL)
        submit.communicate(timeout=20)
    _assert_truthful(desk)
    desk.orch("submit", "quick", "-f")
    _assert_truthful(desk)
    assert desk.show()["verdict"] == "succeeded"
