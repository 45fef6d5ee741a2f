"""What befalls a host and the processes on it: memory, pids, clocks, mounts, logins, sessions."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.usecases import hosts
from remote import files
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import (
    TRAIN,
    Desk,
    assert_clear,
    is_root,
    job_of,
    of_run,
    supervisor_of,
    until,
)
from tests.contract.terminal import attached
from tests.faults.hosts import Python
from tests.faults.truth import MARK, assert_truthful, host_root
from tests.helpers import processes
from tests.helpers.sshd import PrivateSshd

ROOT = Path(__file__).resolve().parents[2]
CGROUPS = Path("/sys/fs/cgroup")
SLEEPER = "echo up; sleep 600 & wait"


def cgroup(controller: str) -> Iterator[Path]:
    """A cgroup of our own below the one we are in; skips where the kernel or its rights say no."""
    with open("/proc/self/cgroup") as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    mine = [path for _, names, path in lines if controller in names.split(",")]
    if not mine:
        pytest.skip(f"no cgroup v1 controller {controller} here")
    place = CGROUPS / controller / mine[0].lstrip("/") / f"orch-test-{os.getpid()}"
    try:
        place.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")
    yield place
    for pid in (place / "cgroup.procs").read_text().split():
        processes.end([int(pid)])
    until(lambda: not (place / "cgroup.procs").read_text().strip())
    place.rmdir()


@pytest.fixture
def memory() -> Iterator[Path]:
    yield from cgroup("memory")


@pytest.fixture
def freezer() -> Iterator[Path]:
    yield from cgroup("freezer")


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="a memory limit needs root")
def test_f22_a_job_killed_for_memory_is_oom_and_one_killed_by_hand_is_not(
    memory: Path, new_desk: MakeDesk, tmp_path: Path
) -> None:
    (memory / "memory.limit_in_bytes").write_text(str(64 << 20))
    eat = "python3 -c 'x = []\nwhile True: x.append(bytes(1 << 20))'"
    python = Python(tmp_path / "python")
    # The agent enters the cgroup before it is python; its supervisor and the job are born there.
    python.prefix("sh", "-c", f'\'echo 0 > {memory}/cgroup.procs; exec "$0" "$@"\'')
    desk = new_desk({"eats": eat, "sleep": "sleep 600"}, host=python.host)
    desk.orch("submit", "eats", "-f", code=1)
    shown = desk.show()
    assert shown["verdict"] == "oom"
    assert "memory" in " ".join(shown["outcome_reasons"])
    run_id = desk.submit("sleep")
    os.kill(job_of(run_id), signal.SIGKILL)
    desk.orch("wait", run_id, code=1)
    assert (desk.show(run_id)["verdict"], desk.show(run_id)["signal"]) == ("killed", 9)


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="a frozen process needs root")
def test_f25_a_process_that_cannot_die_keeps_its_run_from_being_called_cancelled(
    freezer: Path, new_desk: MakeDesk
) -> None:
    desk = new_desk({"sleep": SLEEPER})
    run_id = desk.submit("sleep")
    until(lambda: len(of_run(run_id)) >= 2)
    stuck = next(pid for pid in of_run(run_id) if pid != job_of(run_id))
    (freezer / "cgroup.procs").write_text(str(stuck))
    (freezer / "freezer.state").write_text("FROZEN")
    cancel = desk.start("cancel", run_id)
    log = host_root(desk) / "runs" / run_id / "log"
    try:
        until(lambda: "would not end" in log.read_text(), 60)
        assert processes.is_alive(stuck)
        assert desk.show(run_id)["state"] == "running"
    finally:
        (freezer / "freezer.state").write_text("THAWED")
    desk.orch("wait", run_id, code=1)
    cancel.communicate(timeout=60)
    assert desk.show(run_id)["verdict"] == "cancelled"
    assert of_run(run_id) == []


PID_REUSE = """
import json, os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from remote import ending, files, procs, status
from remote.layout import Layout
layout = Layout(sys.argv[2])
layout.ensure()
run = layout.run("20261125-100000-000abcde")
os.mkdir(run.path)

def at(pid):
    "A sleeper with exactly this pid."
    while True:
        with open("/proc/sys/kernel/ns_last_pid", "w") as file:
            file.write(str(pid - 1))
        child = subprocess.Popen(["sleep", "600"])
        if child.pid == pid:
            return child
        child.kill(); child.wait()

owner, job = at(5000), at(5001)
files.write_json(run.started, {"boot_id": procs.boot_id()})
for path, child in ((run.identity, owner), (run.job, job)):
    known = {"pid": child.pid, "start_time": procs.start_time(child.pid), "phase": "running"}
    files.write_json(path, known)
assert procs.is_same(5000, procs.start_time(5000))
for child in (owner, job):
    child.kill(); child.wait()
time.sleep(0.05)
strangers = [at(5000), at(5001)]
assert [child.pid for child in strangers] == [5000, 5001]
told = status.status(layout, run.run_id)
assert told["exit"]["verdict"] == "lost", told
assert all(child.poll() is None for child in strangers), "a stranger was signalled"
print("held")
"""


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="a pid namespace needs root")
def test_f17_a_pid_that_another_process_has_now_is_neither_believed_nor_signalled(
    tmp_path: Path,
) -> None:
    argv = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-c"]
    done = subprocess.run(
        [*argv, PID_REUSE, str(ROOT), str(tmp_path / "root")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "held\n", done.stderr


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="mounting needs root")
def test_f30_a_host_that_turns_read_only_is_told_and_its_runs_are_found_again_later(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    place = tmp_path / "host"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", place], check=True)
    try:
        host = {"transport": "local", "session": "plain", "root": str(place / "orch")}
        desk = new_desk({"train": TRAIN, "sleep": SLEEPER}, host=host)
        desk.orch("submit", "train", "-f")
        run_id = desk.submit("sleep")
        # The open log keeps a plain remount busy; the job's own writes fail all the same after it.
        frozen = ["mount", "-o", "remount,ro", place]
        if subprocess.run(frozen, capture_output=True).returncode != 0:
            subprocess.run(["mount", "--bind", "-o", "ro", place, place], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        assert_clear(desk.orch("submit", "train", code=10), "box", "read-only")
        assert desk.show(run_id)["state"] == "running"
        subprocess.run(["mount", "-o", "remount,bind,rw", place], check=False)
        subprocess.run(["mount", "-o", "remount,rw", place], check=False)
        desk.orch("cancel", run_id)
        desk.orch("submit", "train", "-f")
    finally:
        for _ in range(2):
            subprocess.run(["umount", "--lazy", place], capture_output=True)


@pytest.mark.ssh
@pytest.mark.sessions
def test_f19_a_deleted_tmux_socket_costs_the_view_and_attach_makes_a_new_one(
    new_desk: MakeDesk, sshd: PrivateSshd
) -> None:
    if not sshd.private_home:
        pytest.skip("would take the caller's own tmux socket: needs an account of its own")
    host = box(sshd, session="tmux")
    desk = new_desk({"sleep": SLEEPER}, host=host, ssh_config=sshd.client_config)
    run_id = desk.submit("sleep")
    until(lambda: f"orch-{run_id}" in sshd.run("tmux ls").stdout)
    before = [p for p in processes.owned_by(sshd.uid) if processes.name_of(p).startswith("tmux")]
    shutil.rmtree(f"/tmp/tmux-{sshd.uid}")
    assert desk.show()["state"] == "running"
    assert "up" in attached(desk, "up")
    assert f"orch-{run_id}" in sshd.run("tmux ls").stdout
    desk.orch("cancel", run_id)
    processes.end(before)


@pytest.mark.ssh
def test_f21_a_login_that_ends_with_all_its_processes_does_not_end_the_run(
    new_desk: MakeDesk, sshd: PrivateSshd
) -> None:
    desk = new_desk({"sleep": SLEEPER}, host=box(sshd), ssh_config=sshd.client_config)
    tail = desk.start("submit", "sleep", "-f")
    assert tail.stdout
    run_id = tail.stdout.readline().strip()
    assert tail.stdout.readline() == "up\n"
    logins = sshd.session_pids()
    sessions = {None, *map(processes.session_of, logins)}
    inside = processes.descendants(logins[0])
    agents = [pid for pid in inside if processes.session_of(pid) not in sessions]
    processes.end([*logins, *(p for p in agents if "sleep" not in processes.name_of(p))])
    tail.kill()
    tail.communicate()
    assert desk.show(run_id)["state"] == "running"
    # What a login manager with KillUserProcesses does goes further: then the run is lost, and so
    # it is called.
    processes.end([*of_run(run_id), supervisor_of(sshd.root_dir / "runs" / run_id)])
    desk.orch("wait", run_id, code=1)
    assert desk.show(run_id)["verdict"] == "lost"


# A host where a logout kills, seen from login 12 of a user who lingers.
LOGIND = """
import os, sys
if os.path.exists(sys.argv[1]):
    sys.path.insert(0, sys.argv[1])
    from remote import logind
    for name in ("SESSIONS", "LINGER", "CGROUP"):
        setattr(logind, name, {folder!r} + "/" + name)
    logind.FOLDERS = ({folder!r},)
    logind.user_name = lambda: "ada"
"""
# What the user's manager does when it is asked for a scope, as far as a process can see it.
BUSCTL = """#!/bin/sh
echo "$@" >> {folder}/asked
{fails}
echo "0::/user.slice/user-1000.slice/user@1000.service/app.slice/run.scope" > {folder}/CGROUP
"""


@pytest.mark.parametrize("works", [True, False])
def test_f21_a_run_takes_a_scope_of_its_own_where_a_logout_would_end_it(
    works: bool, new_desk: MakeDesk, tmp_path: Path
) -> None:
    host = tmp_path / "logind"
    (host / "LINGER").mkdir(parents=True)
    (host / "SESSIONS").mkdir()
    (host / "LINGER" / "ada").touch()
    (host / "logind.conf").write_text("[Login]\nKillUserProcesses=yes\n")
    (host / "CGROUP").write_text("0::/user.slice/user-1000.slice/session-12.scope\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "busctl").write_text(BUSCTL.format(folder=host, fails="" if works else "exit 1"))
    (tools / "busctl").chmod(0o755)
    python = Python(tmp_path / "python")
    python.preamble(LOGIND.format(folder=str(host)))
    desk = new_desk({"sleep": SLEEPER}, host=python.host)
    desk.env["PATH"] = f"{tools}:{os.environ['PATH']}"
    run_id = desk.submit("sleep")
    until(lambda: "up" in desk.orch("tail", "--no-follow", run_id).stdout)
    owner = supervisor_of(host_root(desk) / "runs" / run_id)
    asked = (host / "asked").read_text().split()
    assert asked[asked.index("PIDs") + 3] == str(owner)
    assert f"orch-{run_id}-{owner}.scope" in asked
    told = "a logout will end this run" in desk.orch("tail", "--no-follow", run_id).stdout
    assert told is not works
    desk.orch("cancel", run_id)
    (host / "CGROUP").write_text("0::/user.slice/user-1000.slice/session-12.scope\n")
    checked = desk.orch("doctor", code=None).stdout
    assert ("runs outlive it" in checked) is works
    assert ("cannot leave the login" in checked) is not works


def test_f21_doctor_warns_where_a_logout_kills() -> None:
    bad = hosts._logout({"kill_user_processes": True})
    assert (bad.level, "KillExcludeUsers" in bad.text) == ("fail", True)
    assert "enable-linger" in bad.text
    assert hosts._logout({"kill_user_processes": False}).level == "ok"
    assert hosts._logout({"kill_user_processes": None}).level == "ok"


def test_f26_a_cancel_and_a_normal_end_at_the_same_moment_agree_on_one_end(
    new_desk: MakeDesk, full: bool
) -> None:
    desk = new_desk({"short": f"{MARK}; sleep 0.15"})
    desk.orch("submit", "short", "-f")
    chance = random.Random(26)
    seen = set()
    for _ in range(500 if full else 8):
        run_id = desk.submit("short")
        time.sleep(chance.random() * 0.25)  # the moment of the fault, not a wait for it
        told = json.loads(desk.orch("cancel", run_id, "--json").stdout)["verdict"]
        record = json.loads((host_root(desk) / "runs" / run_id / "exit.json").read_text())
        assert told == record["verdict"] == desk.show(run_id)["verdict"]
        assert of_run(run_id) == []
        seen.add(told)
    assert seen <= {"cancelled", "succeeded"}
    assert_truthful(desk, host_root(desk), host_was_hurt=True)


LATE = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"


@pytest.fixture
def crashed(new_desk: MakeDesk, tmp_path: Path) -> tuple[Desk, str, Path]:
    """A run, lost when the power of its host went, of whose code and config one file is empty; and
    its folder there."""
    boot = tmp_path / "boot"
    boot.write_text("one")
    python = Python(tmp_path / "python")
    python.preamble(f"import os\nos.environ['ORCH_BOOT_ID_FILE'] = {str(boot)!r}")
    desk = new_desk({"late": "python3 late.py"}, host=python.host, files={"late.py": LATE})
    run_id = desk.submit("late")
    place = host_root(desk) / "runs" / run_id
    until(lambda: "up" in (place / "log").read_text() and (place / "synced").exists())
    processes.end([supervisor_of(place)])
    processes.end(of_run(run_id))
    boot.write_text("another")
    os.truncate(place / "tree" / "late.py", 0)
    (place / "tree" / "made").write_text("by the job")
    desk.orch("wait", run_id, code=1)
    return desk, run_id, place


def test_f16_code_that_had_not_reached_the_disk_is_placed_anew_before_a_resume(
    crashed: tuple[Desk, str, Path],
) -> None:
    desk, run_id, place = crashed
    (place / "synced").unlink()
    desk.orch("resume", run_id)
    until(lambda: (place / "log").read_text().count("up\n") == 2)
    until((place / "synced").exists)
    assert (place / "tree" / "late.py").read_text() == LATE
    assert (place / "tree" / "made").read_text() == "by the job"
    assert (place / "unsynced" / "late.py").read_text() == ""
    told = "placed anew, since they had not reached the disk when the host went down: late.py"
    assert told in (place / "log").read_text()
    assert told in desk.orch("show", run_id).stdout
    desk.orch("cancel", run_id)


def test_f16_code_that_had_reached_the_disk_is_the_jobs_own_to_change(
    crashed: tuple[Desk, str, Path],
) -> None:
    desk, run_id, place = crashed
    desk.orch("resume", run_id, "-f")
    assert (place / "tree" / "late.py").read_text() == ""


def test_f16_a_run_whose_code_a_crash_has_cost_is_not_resumed(
    crashed: tuple[Desk, str, Path],
) -> None:
    desk, run_id, place = crashed
    (place / "synced").unlink()
    shutil.rmtree(host_root(desk) / "store" / "objects")
    done = desk.orch("resume", run_id, code=5)
    assert_clear(done, "before the run's code had reached the disk", "orch retry")
    assert desk.show(run_id)["attempt"] == 1


def test_f16_a_config_that_a_crash_has_cost_is_put_back(crashed: tuple[Desk, str, Path]) -> None:
    desk, run_id, place = crashed
    (place / "synced").unlink()
    sent = (place / "config.json").read_bytes()
    os.truncate(place / "config.json", 0)
    desk.orch("resume", run_id)
    until(lambda: (place / "log").read_text().count("up\n") == 2)
    assert (place / "config.json").read_bytes() == sent
    desk.orch("cancel", run_id)
    (event,) = [each for each in desk.show(run_id)["events"] if each["kind"] == "changed"]
    assert event["data"]["message"].startswith("config.json was changed")


NO_ROOM = """
import errno, os, sys
sys.path.insert(0, {root!r})
from remote import files, supervisor
write, supervisor.STUCK_POLL = files._write_synced, 0.1
def synced(path, *more):
    if "exit.json" in path and os.path.exists({full!r}):
        raise OSError(errno.{fault}, os.strerror(errno.{fault}), path)
    write(path, *more)
files._write_synced = synced
"""


@pytest.mark.parametrize("fault", ["ENOSPC", "ESTALE"])
def test_f29_an_end_that_cannot_be_written_down_is_written_when_it_can_be(
    fault: str, new_desk: MakeDesk, tmp_path: Path
) -> None:
    """Others take every byte that the reserve frees, or the file server is away for a while."""
    full = tmp_path / "full"
    python = Python(tmp_path / "python")
    python.preamble(NO_ROOM.format(root=str(ROOT), full=str(full), fault=fault))
    desk = new_desk({"fails": "exit 3"}, host=python.host)
    full.touch()
    run_id = desk.submit("fails")
    place = host_root(desk) / "runs" / run_id
    until(lambda: "cannot be written down yet" in (place / "log").read_text())
    assert desk.show(run_id)["state"] == "running"
    full.unlink()
    desk.orch("wait", run_id, code=1)
    assert (desk.show(run_id)["verdict"], desk.show(run_id)["exit_code"]) == ("failed", 3)


CLOCK = "import time; real = time.time; time.time = lambda: real() + {by}"


def test_f16_what_a_run_wrote_before_its_host_was_restarted_can_be_fetched(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    python = Python(tmp_path / "python")
    job = "echo half >results/part; echo up; sleep 600"
    desk = new_desk({"part": job}, host=python.host)
    run_id = desk.submit("part")
    place = host_root(desk) / "runs" / run_id
    until(lambda: "up" in (place / "log").read_text(), 60)
    processes.end([supervisor_of(place)])  # first, or it would record the job's end
    processes.end(of_run(run_id))
    (tmp_path / "boot").write_text("another-boot")
    boot = str(tmp_path / "boot")
    python.preamble(f"import os\nos.environ['ORCH_BOOT_ID_FILE'] = {boot!r}")
    desk.orch("wait", run_id, code=1)
    desk.orch("fetch-results", run_id)
    shown = desk.show(run_id)
    assert (shown["verdict"], shown["cause"], shown["accuracy"]) == ("lost", "reboot", None)
    assert (desk.results("part", run_id) / "part").read_text() == "half\n"
    assert of_run(run_id) == []


@pytest.mark.parametrize("by", [86400, -86400])
def test_f31_a_host_a_day_off_runs_and_judges_as_any_other(
    by: int, new_desk: MakeDesk, tmp_path: Path
) -> None:
    python = Python(tmp_path / "python")
    python.preamble(CLOCK.format(by=by))
    desk = new_desk({"train": TRAIN, "sleep": SLEEPER}, host=python.host)
    desk.orch("submit", "train", "-f")
    assert desk.show()["accuracy"] == 0.9
    run_id = desk.submit("sleep")
    python.preamble(CLOCK.format(by=-by))  # and it jumps while a run goes on
    assert desk.show(run_id)["state"] == "running"
    desk.orch("cancel", run_id)
    assert desk.show(run_id)["verdict"] == "cancelled"
    assert "clock" in desk.orch("doctor", code=None).stdout
    assert desk.runs()[0]["run_id"] == run_id


@pytest.mark.parametrize("by", [90000, -90000])
def test_f31_how_long_a_run_goes_on_and_when_it_ended_is_measured_by_one_clock(
    by: int, new_desk: MakeDesk, tmp_path: Path
) -> None:
    python = Python(tmp_path / "python")
    python.preamble(CLOCK.format(by=by))
    desk = new_desk({"sleep": SLEEPER}, host=python.host)
    run_id = desk.submit("sleep")
    for command in ("ls", "show", "top"):
        assert not re.search(r"\b1 d\b", desk.orch(command).stdout)
    known = desk.show(run_id)
    assert known["created_at"] <= known["started_at"] <= known["last_seen_at"]
    desk.orch("cancel", run_id)
    told = desk.orch("top").stdout
    assert run_id in told and "1 d" not in told
    ended = desk.show(run_id)
    assert known["created_at"] <= ended["started_at"] <= ended["ended_at"] <= ended["last_seen_at"]


def test_f31_times_are_utc_whatever_zone_the_host_is_in(new_desk: MakeDesk, tmp_path: Path) -> None:
    python = Python(tmp_path / "python")
    python.preamble("import os, time; os.environ['TZ'] = 'America/New_York'; time.tzset()")
    desk = new_desk(host=python.host)
    desk.orch("submit", "train", "-f")
    shown = desk.show()
    assert shown["created_at"] <= shown["started_at"] <= shown["ended_at"]
    assert all(shown[name].endswith("Z") for name in ("created_at", "started_at", "ended_at"))


NFS = "from remote import files; files.filesystem = lambda path: 'nfs4'"


def test_f33_on_a_network_home_the_locks_are_on_the_hosts_own_disk(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    python = Python(tmp_path / "python")
    python.preamble(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nif '-c' not in sys.argv:\n    {NFS}"
    )
    desk = new_desk({"train": TRAIN, "sleep": SLEEPER}, host=python.host)
    run_id = desk.submit("sleep")
    local = Path(f"/tmp/orch-{os.getuid()}")
    held = [path for path in local.iterdir() if path.name.endswith(f"{run_id}.lock")]
    assert [files.is_locked(str(path)) for path in held] == [True]
    assert not list((host_root(desk) / "locks").iterdir())
    assert desk.show(run_id)["state"] == "running"
    assert "nfs4" in desk.orch("doctor", code=None).stdout
    desk.orch("cancel", run_id)
    assert desk.show(run_id)["verdict"] == "cancelled"
    for path in held:
        path.unlink()


def be_machine(python: Python, name: str, folder: Path) -> None:
    """The host's python is from now on that of the machine `name`, on a home that others have."""
    locks = folder / name
    locks.mkdir(exist_ok=True)
    for kind in ("boot", "machine"):
        (folder / f"{name}.{kind}").write_text(f"{kind}-of-{name}")
    python.preamble(
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"os.environ['ORCH_BOOT_ID_FILE'] = {str(folder / f'{name}.boot')!r}\n"
        f"os.environ['ORCH_MACHINE_ID_FILE'] = {str(folder / f'{name}.machine')!r}\n"
        f"if '-c' not in sys.argv:\n    {NFS}\n    from remote import layout, procs\n"
        f"    layout.local_dir = lambda: {str(locks)!r}\n"
        + ("    procs.is_same = lambda *_: False\n" if name != "first" else "")
    )


def test_f33_another_machine_with_the_same_home_proves_nothing_about_a_run(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    """The lock, the pids and the boot id it sees are its own."""
    python = Python(tmp_path / "python")
    be_machine(python, "first", tmp_path)
    desk = new_desk({"sleep": SLEEPER}, host=python.host)
    run_id = desk.submit("sleep")
    be_machine(python, "second", tmp_path)
    desk.orch("reconcile")
    assert desk.show(run_id)["state"] == "running"
    assert_clear(desk.orch("cancel", run_id, code=6), "was started on", "name of its own")
    assert_clear(desk.orch("resume", run_id, code=5), "has not ended")
    assert not (host_root(desk) / "runs" / run_id / "exit.json").exists()
    be_machine(python, "first", tmp_path)
    desk.orch("cancel", run_id)
    be_machine(python, "second", tmp_path)
    shown = desk.show(run_id)
    assert (shown["verdict"], shown["attempt"]) == ("cancelled", 1)
    assert "elsewhere" in desk.orch("show", run_id).stdout


def test_f33_of_two_machines_with_one_home_each_gets_its_own_runs_back(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    pythons = {name: Python(tmp_path / f"python-{name}") for name in ("another", "first")}
    for name, python in pythons.items():
        be_machine(python, name, tmp_path)
    desk = new_desk({"sleep": SLEEPER})
    (tmp_path / "home").mkdir()
    (tmp_path / "mounted").symlink_to("home")
    roots = {"first": str(tmp_path / "home"), "another": str(tmp_path / "mounted")}
    hosts = {name: {**python.host, "root": roots[name]} for name, python in pythons.items()}
    (desk.project / "orch.yaml").write_text(json.dumps({"hosts": hosts, "default_host": "first"}))
    run_id = desk.submit("sleep")
    for path in (desk.home / "state" / "orch").glob("ledger.db*"):
        path.unlink()
    desk.orch("ledger", "rebuild")  # takes in what `another` tells first
    shown = desk.show(run_id)
    assert (shown["host"], shown["state"]) == ("first", "running")
    desk.orch("cancel", run_id)


@pytest.mark.root
@pytest.mark.skipif(not is_root(), reason="a folder of another user needs root")
@pytest.mark.parametrize("how", ["another user", "a link", "open to all"])
def test_f34_a_lock_folder_that_another_could_have_prepared_is_refused(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from remote import layout

    monkeypatch.setattr(layout.os, "getuid", lambda: 987_654)  # its folder is ours to prepare
    place = Path("/tmp/orch-987654")
    try:
        if how == "a link":
            place.symlink_to(tmp_path)
        else:
            place.mkdir(mode=0o700)
            os.chown(place, 987_654 if how == "open to all" else 12_345, -1)
            place.chmod(0o777 if how == "open to all" else 0o700)
        with pytest.raises(layout.Unsafe, match="not a private folder"):
            layout.local_dir()
    finally:
        place.unlink() if place.is_symlink() else place.rmdir()
