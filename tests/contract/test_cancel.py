"""Cancel: whatever the job started is gone, and what it had done is kept."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import Desk, assert_clear, of_run, supervisor_of, take_away, until
from tests.helpers import processes
from tests.helpers.project import make_project
from tests.helpers.sshd import PrivateSshd

STUBBORN = r"""
import os, signal, subprocess, sys, time
open("results/partial.txt", "w").write("so far")
def deaf(*_): pass
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, deaf)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setpgid(0, 0)
    while True: time.sleep(60)
subprocess.Popen(["setsid", "sh", "-c", "trap '' TERM; sleep 600 & wait; sleep 600"])
subprocess.Popen(["nohup", "sleep", "600"], start_new_session=True)
print("up", flush=True)
while True: time.sleep(60)
"""
POLITE = r"""
import os, signal, sys, time
def leave(*_):
    open("results/checkpoint", "w").write("saved")
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
while True: time.sleep(60)
"""


def started(desk: Desk, job: str, word: str = "up") -> str:
    run_id = desk.submit(job)
    until(lambda: word in desk.orch("tail", "--no-follow").stdout)
    return run_id


@pytest.mark.parametrize("where", ["local", pytest.param("ssh", marks=pytest.mark.ssh)])
def test_f24_not_one_process_is_left(
    where: str, new_desk: MakeDesk, request: pytest.FixtureRequest
) -> None:
    options = {}
    if where == "ssh":
        server: PrivateSshd = request.getfixturevalue("sshd")
        options = {"host": box(server), "ssh_config": server.client_config}
    desk = new_desk({"stubborn": "python3 stubborn.py"}, files={"stubborn.py": STUBBORN}, **options)
    run_id = started(desk, "stubborn")
    until(lambda: len(of_run(run_id)) >= 6)
    began = time.monotonic()
    desk.orch("cancel", run_id)
    assert time.monotonic() - began < 30
    assert of_run(run_id) == []
    shown = desk.show(run_id)
    assert (shown["state"], shown["verdict"], shown["exit_code"]) == ("finished", "cancelled", None)
    assert shown["signal"] in (9, 15)  # of the shell, which may have become the program
    desk.orch("fetch-results", run_id)
    assert (desk.results("stubborn", run_id) / "partial.txt").read_text() == "so far"
    assert desk.orch("wait", run_id, code=1).stderr


def test_f24_a_child_that_dropped_its_environment_is_ended_too(new_desk: MakeDesk) -> None:
    desk = new_desk({"clean": "env -i sleep 4242 & echo up; wait"})
    run_id = started(desk, "clean")
    (sleeper,) = [pid for pid in processes.all_pids() if _command(pid) == ["sleep", "4242"]]
    try:
        desk.orch("cancel", run_id)
        assert not processes.is_alive(sleeper)
    finally:
        processes.end([sleeper])


def _command(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().split("\0")[:-1]
    except OSError:
        return []


def test_a_job_may_save_its_work_at_term(new_desk: MakeDesk) -> None:
    desk = new_desk({"polite": "exec python3 polite.py"}, files={"polite.py": POLITE})
    run_id = started(desk, "polite")
    desk.orch("cancel", run_id)
    shown = desk.show()
    assert (shown["verdict"], shown["exit_code"], shown["signal"]) == ("cancelled", 0, None)
    assert "saved" in desk.orch("tail", run_id, "--no-follow").stdout
    desk.orch("fetch-results", run_id)
    assert (desk.results("polite", run_id) / "checkpoint").read_text() == "saved"


LATE = """
import os, signal, sys, time
def leave(*_):
    time.sleep(4)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
while True: time.sleep(60)
"""


@pytest.mark.parametrize(("grace", "signal_"), [("1s", 9), ("30s", None)])
def test_a_cancel_gives_the_grace_of_the_spec_and_says_it(
    grace: str, signal_: int | None, new_desk: MakeDesk
) -> None:
    spec = {"command": ["python3", "late.py"], "resources": {"grace": grace}}
    desk = new_desk({"late": spec}, files={"late.py": LATE})
    run_id = started(desk, "late")
    assert f"within {grace[:-1]} s is killed" in desk.orch("cancel", run_id).stderr
    shown = desk.show()
    assert (shown["verdict"], shown["signal"]) == ("cancelled", signal_)


def test_a_run_over_its_time_has_the_grace_of_the_spec(new_desk: MakeDesk) -> None:
    spec = {"command": ["python3", "late.py"], "resources": {"time": "2s", "grace": "1s"}}
    desk = new_desk({"late": spec}, files={"late.py": LATE})
    desk.orch("submit", "late", "-f", code=1)
    shown = desk.show()
    assert (shown["cause"], shown["signal"]) == ("time_limit", 9)


def test_what_outlives_its_job_does_not_have_the_job_s_grace(new_desk: MakeDesk) -> None:
    left = "(trap '' TERM; while :; do sleep 1; done) & echo up"
    desk = new_desk({"leaves": {"command": left, "resources": {"grace": "1h"}}})
    run_id = desk.submit("leaves")
    desk.orch("wait", run_id, "--timeout", "60s")
    assert of_run(run_id) == []


def test_f27_cancel_twice_and_cancel_after_the_end_change_nothing(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": "echo up; sleep 600", "quick": "true"})
    run_id = started(desk, "sleep")
    desk.orch("cancel", run_id)
    before = desk.show(run_id)
    desk.orch("cancel", run_id)
    assert desk.show(run_id) == before
    quick = desk.submit("quick")
    desk.orch("wait")
    said = desk.orch("cancel", quick).stderr
    assert "succeeded" in said
    assert desk.show(quick)["verdict"] == "succeeded"


def test_f27_two_cancels_at_once_agree(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": "echo up; sleep 600"})
    run_id = started(desk, "sleep")
    both = [desk.start("cancel", run_id, "--json") for _ in range(2)]
    told = [json.loads(each.communicate(timeout=30)[0])["verdict"] for each in both]
    assert told == ["cancelled", "cancelled"]
    assert [each.returncode for each in both] == [0, 0]


def test_f23_cancel_ends_a_run_whose_supervisor_is_gone(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": "echo up; sleep 600 & wait"})
    run_id = started(desk, "sleep")
    os.kill(supervisor_of(desk.home / ".orch" / "runs" / run_id), signal.SIGKILL)
    assert desk.show()["state"] == "running"
    desk.orch("cancel", run_id)
    assert of_run(run_id) == []
    assert desk.show()["verdict"] == "cancelled"


@pytest.mark.parametrize("supervised", [True, False])
def test_a_run_whose_directory_was_taken_away_is_ended_and_settled(
    supervised: bool, new_desk: MakeDesk
) -> None:
    desk = new_desk({"sleep": "echo up; sleep 600; sleep 600"}, git=True)
    run_id = started(desk, "sleep")
    folder = desk.home / ".orch" / "runs" / run_id
    owner = supervisor_of(folder)
    if not supervised:
        processes.end([owner])
    take_away(folder)
    desk.orch("cancel", run_id)
    assert of_run(run_id) == []
    assert not processes.is_alive(owner)
    shown = desk.show(run_id)
    assert (shown["state"], shown["verdict"]) == ("finished", "cancelled")
    assert "taken away" in shown["outcome_reasons"][0]
    assert shown["ended_at"] is not None
    assert desk.orch("ledger", "verify", run_id).returncode == 0
    assert not folder.exists()


def test_a_dead_run_without_its_directory_is_lost_whoever_asks_first(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": "echo up; sleep 600"})
    run_id = started(desk, "sleep")
    folder = desk.home / ".orch" / "runs" / run_id
    owner = supervisor_of(folder)
    take_away(folder)
    processes.end([owner, *of_run(run_id)])
    assert "had ended before: " + run_id + ": lost (gone)" in desk.orch("cancel", run_id).stderr
    assert desk.show(run_id)["verdict"] == "lost"


def test_cancel_needs_a_run(desk: Desk) -> None:
    assert "nosuch" in desk.orch("cancel", "nosuch", code=3).stderr
    desk.orch("cancel", code=2)


def test_cancel_on_a_silent_host_changes_nothing_here(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": "echo up; sleep 600"})
    run_id = started(desk, "sleep")
    good = (desk.project / "orch.yaml").read_text()
    (desk.project / "orch.yaml").write_text(
        '{"hosts": {"box": {"ssh": "nobody@127.0.0.1:9"}}, "default_host": "box"}'
    )
    done = desk.orch("cancel", run_id, code=6)
    assert "box" in done.stderr
    assert desk.show(run_id)["state"] == "running"
    assert of_run(run_id)
    (desk.project / "orch.yaml").write_text(good)
    desk.orch("cancel", run_id)


def test_a_slip_reaches_no_run_of_another_project(desk: Desk, tmp_path: Path) -> None:
    """A job that was never submitted, called as another project's run id ends; and that end."""
    desk.spec("sleep", "command: sleep 600")
    run_id = desk.submit("sleep")
    end = run_id[-6:]
    other = make_project(tmp_path / "other", {end: "true"}, git=False)
    elsewhere = Desk(desk.home, other)
    for command in (["cancel"], ["tag", "-d", "x"], ["resume"], ["retry"], ["tail"], ["show"]):
        told = elsewhere.orch(*command, end, code=3)
        assert_clear(told, f"job {end} has no run yet", f"orch submit {end}")
    end = run_id[-5:]
    for command in (["cancel", end], ["tag", end, "a=1"], ["note", end, "x"], ["resume", end],
                    ["retry", end]):  # fmt: skip
        assert_clear(elsewhere.orch(*command, code=3), run_id, str(desk.project), "its whole id")
    shown = json.loads(elsewhere.orch("show", end, "--json").stdout)
    assert (shown["state"], shown["tags"], shown["note"]) == ("running", {}, None)
    assert len(desk.rows()) == 1
    elsewhere.orch("cancel", run_id)
    assert desk.show(run_id)["verdict"] == "cancelled"
