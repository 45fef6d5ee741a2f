"""What a command says is true, and stands where a script or a tired reader looks for it."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, assert_clear, until
from tests.helpers.cli import assert_exit, run_orch


@pytest.mark.parametrize("command", [["ls"], ["show"], ["host", "ls"], ["ledger", "export"]])
def test_a_project_variable_that_names_none_is_an_error_for_readers_too(
    command: list[str], desk: Desk
) -> None:
    done = desk.orch(*command, code=2, ORCH_PROJECT="/no/such/project")
    assert_clear(done, "ORCH_PROJECT", "/no/such/project")
    assert done.stdout == ""


def test_wait_that_gives_up_still_prints_its_document(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": "sleep 600"})
    run_id = desk.submit("sleep")
    done = desk.orch("wait", "--timeout", "1s", "--json", code=4)
    known = json.loads(done.stdout)
    assert (known["run_id"], known["state"], known["verdict"]) == (run_id, "running", None)


def test_hosts_of_the_users_file_are_known_outside_of_a_project(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "config" / "orch").mkdir(parents=True)
    (home / "config" / "orch" / "config.yaml").write_text(
        "hosts: {lab: {transport: local, session: plain}, far: {ssh: me@127.0.0.1:9}}\n"
        "default_host: lab\n"
    )
    listed = run_orch(["host", "ls", "--json"], home=home, project=tmp_path)
    assert_exit(listed, 0)
    named = {host["name"]: host["source"] for host in json.loads(listed.stdout)}
    assert named == {"local": "embedded", "lab": "config.yaml", "far": "config.yaml"}
    for env, host, code in (({}, "lab", 0), ({"ORCH_HOST": "far"}, "far", 6)):
        done = run_orch(["doctor", "--json"], home=home, project=tmp_path, env=env)
        assert_exit(done, code)
        assert json.loads(done.stdout)["host"] == host


def test_doctor_names_the_account_and_each_cards_driver(desk: Desk, tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho '0, GPU-1, Some Card, 100, 40960, 0, 550.54.14'\n")
    tool.chmod(0o755)
    path = f"{tool.parent}:{os.environ['PATH']}"
    checks = json.loads(desk.orch("doctor", "--json", PATH=path).stdout)["checks"]
    told = {check["name"]: check["text"] for check in checks}
    assert f"user {pwd.getpwuid(os.getuid()).pw_name}," in told["connection"]
    assert told["gpu"] == "0: Some Card, 40860 of 40960 MiB free now, driver 550.54.14"


@pytest.mark.parametrize(
    ("wanted", "there", "level", "started_in"),
    [
        ("screen", ["tmux", "screen"], "ok", "screen"),
        ("tmux", ["screen"], "warn", "screen"),
        ("screen", [], "warn", "plain"),
        ("plain", ["tmux"], "ok", "plain"),
        ("auto", ["screen"], "ok", "screen"),
    ],
)
def test_doctor_says_in_what_a_run_will_be_started(
    wanted: str, there: list[str], level: str, started_in: str, new_desk: MakeDesk, tmp_path: Path
) -> None:
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\nexit 0\n")
        (tmp_path / name).chmod(0o755)
    for name in ("sh", "true"):
        (tmp_path / name).symlink_to(f"/bin/{name}")
    desk = new_desk({"nothing": "true"}, host={"transport": "local", "session": wanted})
    desk.env["PATH"] = str(tmp_path)
    checks = json.loads(desk.orch("doctor", "--json").stdout)["checks"]
    (told,) = (check for check in checks if check["name"] == "session")
    assert told["level"] == level
    assert (wanted in told["text"]) is (wanted != "auto")
    desk.submit("nothing")
    desk.orch("wait")
    session = desk.show()["session"]
    assert session["kind"] == started_in
    assert started_in in told["text"] or "no tmux and no screen" in told["text"]


def test_a_start_that_the_host_refuses_names_the_run_and_the_next_step(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"far": {**TRAIN, "data": {"x": {"at": "/no/such/data"}}}})
    done = desk.orch("submit", "far", code=5)
    ((run_id, state, verdict),) = desk.rows()
    assert (state, verdict) == ("finished", "never_started")
    assert_clear(done, "/no/such/data", f"{run_id} was not started")


def test_of_a_run_that_reached_no_host_none_is_asked(new_desk: MakeDesk, tmp_path: Path) -> None:
    config = tmp_path / "ssh"
    config.write_text("Host box\n  HostName 127.0.0.1\n  Port 1\n")
    desk = new_desk(host={"ssh": "box", "session": "plain"}, ssh_config=config)
    desk.orch("submit", "train", code=6)
    run_id = desk.show()["run_id"]
    desk.orch("submit", "train", code=6)
    other = desk.show()["run_id"]
    for command, code, word in (
        (["wait", run_id], 1, "never_started"),
        (["tail", run_id], 1, "never_started"),
        (["tail", run_id, "--no-follow"], 0, f"{run_id} never started; it has no log"),
        (["tail", run_id, other], 1, other),
        (["attach", run_id], 3, "never started; there is nothing to attach to"),
        (["resume", run_id], 5, "never started; there is nothing to go on with"),
        (["fetch-results", run_id], 3, "never started; it has no results"),
    ):
        done = desk.orch(*command, code=code)
        assert word in done.stdout + done.stderr, command
        assert "connect" not in done.stderr.partition("never")[0], command


def test_a_run_that_never_started_is_no_history_of_its_config(new_desk: MakeDesk) -> None:
    desk = new_desk({"train": {**TRAIN, "data": {"x": {"at": "/no/such/data"}}}})
    desk.orch("submit", "train", code=5)
    found = json.loads(desk.orch("check", "train", "--json").stdout)["findings"]
    assert "history" not in {finding["rule"] for finding in found}


def test_the_count_below_the_table_is_of_the_runs_asked_for(new_desk: MakeDesk) -> None:
    desk = new_desk({"a": "true", "b": "true"})
    for job in ("a", "a", "b"):
        desk.orch("submit", job, "-f")
    assert "1 of 2 runs" in desk.orch("ls", "--job", "a", "-n", "1").stderr
    assert desk.orch("ls", "--job", "a,absent", "--json").stdout == desk.orch(
        "ls", "--job", "a", "--json").stdout != "[]\n"  # fmt: skip
    assert "1 of 3 runs" in desk.orch("ls", "-n", "1").stderr


def test_ctrl_c_in_the_log_of_an_ended_run_does_not_say_it_goes_on(new_desk: MakeDesk) -> None:
    desk = new_desk({"loud": "yes | head -c 30000000"})
    desk.orch("submit", "loud")
    desk.orch("wait", "loud")
    tail = desk.start("tail", "loud")
    assert tail.stdout is not None and tail.stdout.readline()
    tail.send_signal(signal.SIGINT)  # it cannot have ended: nobody reads the rest
    _, said = tail.communicate(timeout=60)
    assert tail.returncode == 130
    assert "goes on" not in said
    assert "had ended" in said and "orch tail" in said


def test_a_project_folder_the_ledger_cannot_name_is_refused_before_a_run_exists(
    tmp_path: Path,
) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/na\xffme"))
    folder.mkdir()
    home = tmp_path / "home"
    assert_exit(run_orch(["init"], home=home, project=folder), 0)
    done = run_orch(["submit", "hello"], home=home, project=folder)
    assert_exit(done, 2)
    assert_clear(done, "UTF-8", "rename")
    assert not (home / "state").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only mount needs root")
@pytest.mark.root
def test_a_ledger_that_may_not_be_written_is_still_read(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": "sleep 600"})
    state = desk.home / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", state], check=True)
    try:
        other = desk.submit("sleep")
        desk.orch("cancel", other)
        run_id = desk.submit("sleep")
        until(lambda: desk.show()["state"] == "running")
        subprocess.run(["mount", "-o", "remount,ro", state], check=True)
        for command in (["ls", "--json"], ["show", "--json"]):
            done = desk.orch(*command)
            assert run_id in done.stdout
            assert "ledger.db" in done.stderr and "last known" in done.stderr
        assert "unreachable" not in desk.orch("show").stdout
        assert "is not kept" in desk.orch("cancel", run_id).stderr
        for args in (["tail"], ["wait"]):
            done = desk.orch(*args, code=1)
            assert "cancelled" in done.stderr
            assert "is not kept" in done.stderr
        assert "fetched and verified" in desk.orch("fetch-results").stderr
        assert "is not kept" in desk.orch("report", "-o", str(desk.project / "r.md")).stderr
        assert run_id in desk.orch("compare", run_id, other).stdout
        assert dict(row[:2] for row in desk.rows())[run_id] == "running"
    finally:
        subprocess.run(["umount", state], check=True)
