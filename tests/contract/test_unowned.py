"""Jobs whose supervisor was killed: they go on, are watched again, and their end is known."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, job_of, of_run, supervisor_of, until
from tests.helpers import processes

HELD = "echo up; until test -e ../go; do sleep 0.05; done; "


def folder(desk: Desk, run_id: str) -> Path:
    return desk.home / ".orch" / "runs" / run_id


def begun(desk: Desk, job: str) -> tuple[str, Path]:
    run_id = desk.submit(job)
    place = folder(desk, run_id)
    until(lambda: (place / "log").exists() and b"up" in (place / "log").read_bytes())
    until(lambda: json.loads((place / "job.json").read_text())["phase"] == "running")
    return run_id, place


def without_supervisor(place: Path) -> int:
    """The run's supervisor is killed; its pid."""
    pid = supervisor_of(place)
    assert processes.end([pid]) == []
    return pid


def test_f23_a_job_that_lost_its_supervisor_is_watched_again_and_ends_as_it_ends(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"train": {**TRAIN, "command": HELD + "python3 work.py"}})
    run_id, place = begun(desk, "train")
    killed = without_supervisor(place)
    job = job_of(run_id)
    shown = desk.show(run_id)
    assert (shown["state"], shown["verdict"]) == ("running", None)
    assert "unowned" in [event["kind"] for event in shown["events"]]
    assert supervisor_of(place) != killed
    assert processes.is_alive(supervisor_of(place))
    assert job in of_run(run_id), "it was started again"
    (place / "go").touch()
    desk.orch("wait", run_id)
    shown = desk.show(run_id)
    assert (shown["verdict"], shown["exit_code"], shown["accuracy"]) == ("succeeded", 0, 0.9)
    log = desk.orch("tail", run_id).stdout
    assert log.count("first byte of the job") == 1
    assert "watched again" in log


def test_f23_an_end_that_nobody_watched_is_known_all_the_same(new_desk: MakeDesk) -> None:
    desk = new_desk({"fails": HELD + "exit 3", "killed": HELD + "kill -6 $$"})
    for job, verdict, code, number in (("fails", "failed", 3, None), ("killed", "killed", None, 6)):
        run_id, place = begun(desk, job)
        without_supervisor(place)
        (place / "go").touch()
        until((place / "ended.json").exists)
        until(lambda: not of_run(run_id))  # noqa: B023
        desk.orch("wait", run_id, code=1)
        shown = desk.show(run_id)
        assert (shown["verdict"], shown["exit_code"], shown["signal"]) == (verdict, code, number)


def test_f23_without_supervisor_and_keeper_the_job_still_counts_as_running(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"held": HELD + "exit 0"})
    run_id, place = begun(desk, "held")
    without_supervisor(place)
    keeper = json.loads((place / "job.json").read_text())["pid"]
    assert processes.end([keeper]) == []
    assert of_run(run_id)
    assert desk.show(run_id)["state"] == "running"
    (place / "go").touch()
    desk.orch("wait", run_id, code=1)
    shown = desk.show(run_id)
    assert shown["verdict"] == "lost", "nobody knows its exit code"
    assert shown["cause"] == "supervisor_lost"


@pytest.mark.sessions
@pytest.mark.parametrize("kind", ["tmux", "screen"])
def test_a_run_that_is_found_lost_leaves_no_session(kind: str, new_desk: MakeDesk) -> None:
    desk = new_desk({"held": HELD}, host={"transport": "local", "session": kind})
    run_id, place = begun(desk, "held")
    until(lambda: viewers(place))
    keeper = json.loads((place / "job.json").read_text())["pid"]
    without_supervisor(place)
    assert processes.end([keeper, *of_run(run_id)]) == []
    assert viewers(place)
    assert desk.show(run_id)["verdict"] == "lost"
    until(lambda: not viewers(place))


def viewers(place: Path) -> list[int]:
    """Who shows the run's log."""
    words = ["tail", "-n", "+1", "-F", str(place / "log")]
    return [pid for pid in processes.all_pids() if processes.argv_of(pid) == words]


def test_f23_a_job_watched_again_keeps_its_time_limit_and_can_be_cancelled(
    new_desk: MakeDesk,
) -> None:
    limited = {"command": HELD, "resources": {"time": "3s"}}
    desk = new_desk({"limited": limited, "stubborn": "trap '' TERM; " + HELD})
    run_id, place = begun(desk, "limited")
    without_supervisor(place)
    desk.orch("ls")
    desk.orch("wait", run_id, code=1)
    shown = desk.show(run_id)
    assert (shown["verdict"], shown["cause"]) == ("killed", "time_limit")
    assert of_run(run_id) == []
    run_id, place = begun(desk, "stubborn")
    without_supervisor(place)
    desk.orch("ls")
    desk.orch("cancel", run_id)
    assert of_run(run_id) == []
    assert desk.show(run_id)["verdict"] == "cancelled"


def test_a_supervisor_that_is_asked_to_end_takes_the_job_with_it_and_says_so(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"held": HELD})
    run_id, place = begun(desk, "held")
    os.kill(supervisor_of(place), signal.SIGTERM)
    desk.orch("wait", run_id, code=1)
    shown = desk.show(run_id)
    assert (shown["verdict"], shown["cause"]) == ("killed", "terminated")
    assert of_run(run_id) == []


def resident(pid: int) -> int:
    """kB of memory the process holds, shared pages included."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def test_who_stands_by_a_run_is_small(new_desk: MakeDesk) -> None:
    desk = new_desk({"held": HELD})
    run_id, place = begun(desk, "held")
    keeper = json.loads((place / "job.json").read_text())["pid"]
    assert resident(supervisor_of(place)) < 15_000
    assert resident(keeper) < 15_000
    without_supervisor(place)
    desk.orch("ls")
    assert resident(supervisor_of(place)) < 15_000
    (place / "go").touch()
    desk.orch("wait", run_id)
