"""Row 21 on a machine with a real systemd: its logind kills what a login leaves running."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import of_run, supervisor_of, until
from tests.helpers.machine import Machine

pytestmark = [pytest.mark.logins, pytest.mark.ssh, pytest.mark.root]


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine() as started:
        yield started


def test_f21_a_run_outlives_its_login_in_a_scope_of_its_own_and_is_killed_without_one(
    machine: Machine, new_desk: MakeDesk
) -> None:
    jobs = {"sleep": "echo up; sleep 600 & wait"}
    desk = new_desk(jobs, host=box(machine), ssh_config=machine.client_config)
    broken = machine.bin_dir / "busctl"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert "cannot leave the login" in desk.orch("doctor", code=None).stdout
    run_id = desk.submit("sleep")
    desk.orch("wait", run_id, code=1)
    shown = desk.show(run_id)
    assert (shown["verdict"], shown["cause"], shown["signal"]) == ("killed", "logout", 15)
    assert "a logout will end this run" in desk.orch("tail", "--no-follow", run_id).stdout

    broken.unlink()
    assert "runs outlive it" in desk.orch("doctor", code=None).stdout
    run_id = desk.submit("sleep")
    until(lambda: not machine.logins())
    assert desk.show(run_id)["state"] == "running"
    owner = supervisor_of(machine.root_dir / "runs" / run_id)  # its pid over there
    scope = f"user@{machine.uid}.service/app.slice/orch-{run_id}-{owner}.scope"
    assert len(of_run(run_id)) >= 2
    for pid in of_run(run_id):
        assert scope in Path(f"/proc/{pid}/cgroup").read_text()
    desk.orch("cancel", run_id)
    assert desk.show(run_id)["verdict"] == "cancelled"
    assert of_run(run_id) == []
    units = "systemctl --user list-units --all --plain --no-legend 'orch-*'"
    until(lambda: machine.run(units).stdout == "")
