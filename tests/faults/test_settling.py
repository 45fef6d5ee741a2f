"""What was left open is settled: on the host, in the ledger, by a new watcher, by a new master."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import struct
import termios
from pathlib import Path

import pytest

from orchestrator.ledger.store import Ledger
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import of_run, supervisor_of, until
from tests.faults.hosts import Python
from tests.faults.truth import MARK, host_root, marks
from tests.helpers import processes
from tests.helpers.sshd import PrivateSshd


def test_f44_a_run_that_never_reached_its_host_is_closed_by_reconcile(new_desk: MakeDesk) -> None:
    desk = new_desk({"quick": MARK})
    submit = desk.start("submit", "quick")
    until(desk.rows)
    os.killpg(submit.pid, signal.SIGKILL)
    submit.communicate(timeout=30)
    desk.orch("reconcile")
    assert {row[1] for row in desk.rows()} == {"finished"}


def test_f61_runs_that_a_restored_ledger_does_not_know_are_listed(new_desk: MakeDesk) -> None:
    desk = new_desk({"quick": MARK})
    desk.orch("submit", "quick", "-f")
    ledger = desk.home / "state" / "orch" / "ledger.db"
    Ledger.open(ledger).close()
    shutil.copy(ledger, ledger.with_suffix(".old"))
    run_id = desk.submit("quick")
    desk.orch("wait", run_id)
    for path in ledger.parent.glob("ledger.db*"):
        path.unlink()
    shutil.copy(ledger.with_suffix(".old"), ledger)
    assert run_id not in [row[0] for row in desk.rows()]
    done = desk.orch("reconcile", "--host", "box", code=None)
    assert run_id in done.stdout + done.stderr
    desk.orch("reconcile", "--host", "box", "--import", code=None)
    assert desk.show(run_id)["verdict"] == "succeeded"


def test_f47_a_start_that_arrives_after_its_run_was_given_up_does_not_start(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    python = Python(tmp_path / "python")
    desk = new_desk({"quick": MARK}, host=python.host)
    desk.orch("submit", "quick", "-f")
    held = tmp_path / "held"
    python.prefix("sh", "-c", f'\'until test -e {held}; do sleep 0.05; done; exec "$0" "$@"\'')
    submit = desk.start("submit", "quick")
    (agent,) = until(lambda: [pid for pid in waiting(held) if unread(pid)])
    (run_id,) = [row[0] for row in desk.rows() if row[1] != "finished"]
    os.killpg(submit.pid, signal.SIGKILL)
    python.plain()
    desk.orch("reconcile", code=None)
    desk.orch("cancel", run_id, code=None)
    assert desk.show(run_id)["verdict"] in ("cancelled", "never_started")
    held.touch()
    until(lambda: not processes.is_alive(agent))
    submit.communicate(timeout=30)
    until(lambda: not of_run(run_id))
    assert marks(host_root(desk))[run_id] == 0


def waiting(word: Path) -> list[int]:
    """Processes whose command line holds the path."""
    found = []
    for pid in _all_pids():
        try:
            if os.fsencode(word) in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def unread(pid: int) -> int:
    """Bytes that wait on the process's stdin."""
    fd = os.open(f"/proc/{pid}/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return int(struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0])
    finally:
        os.close(fd)


def test_f23_a_job_that_lost_its_supervisor_keeps_its_own_verdict(new_desk: MakeDesk) -> None:
    desk = new_desk({"slow": "echo up; until test -e ../go; do sleep 0.05; done; exit 0"})
    run_id = desk.submit("slow")
    place = host_root(desk) / "runs" / run_id
    until(lambda: "up" in (place / "log").read_text())
    os.kill(supervisor_of(place), signal.SIGKILL)
    tail = desk.start("tail")  # whoever meets it takes it up again
    assert tail.stdout
    assert tail.stdout.readline() == "up\n"
    assert desk.show()["state"] == "running"
    until(lambda: json.loads((place / "supervisor.json").read_text())["pid"] in _all_pids(), 20)
    (place / "go").touch()
    tail.communicate(timeout=60)
    assert of_run(run_id) == []
    assert (desk.show()["verdict"], desk.show()["exit_code"]) == ("succeeded", 0)


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


@pytest.mark.ssh
def test_f11_a_control_socket_lies_where_its_path_is_short(
    new_desk: MakeDesk, sshd: PrivateSshd
) -> None:
    desk = new_desk(host=box(sshd, transport="openssh"), ssh_config=sshd.client_config)
    desk.env["XDG_STATE_HOME"] = str(desk.home / ("deep" * 30))
    desk.orch("submit", "train", "-f")
    assert desk.show()["accuracy"] == 0.9
