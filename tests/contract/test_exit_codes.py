"""The exit code tells what to do next, whatever command met the trouble."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import Desk, assert_clear
from tests.helpers.sshd import PrivateSshd

NOBODY = "no-such-host-x"


@pytest.mark.parametrize(
    "command",
    [["doctor"], ["gpus"], ["gpus", "box"], ["reconcile", "--host"], ["check", "train", "--host"]],
    ids=" ".join,
)
def test_a_host_nobody_has_heard_of_is_not_found(command: list[str], desk: Desk) -> None:
    done = desk.orch(*command, NOBODY, code=3)
    assert NOBODY in done.stdout + done.stderr
    assert "orch host ls" in done.stdout + done.stderr
    if "box" in command:
        assert "no GPU" in done.stdout


@pytest.mark.ssh
@pytest.mark.usefixtures("over")
def test_an_unknown_host_key_is_a_matter_of_trust_for_commands_on_many_hosts_too(
    new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    config = sshd.write_client_config(tmp_path / "client", trusted=False)
    desk = new_desk(host=box(sshd), ssh_config=config)
    for command in (["reconcile", "--host", "box"], ["gpus", "local", "box"]):
        assert "orch host trust box" in desk.orch(*command, code=8).stderr
    desk.orch("submit", "train", "--host", "local", "-f")
    done = desk.orch("ledger", "rebuild", "--host", "box", "--host", NOBODY, "--json", code=6)
    assert [each["reached"] for each in json.loads(done.stdout)] == [False, False]
    assert NOBODY in done.stderr
    assert "orch host trust box" in done.stderr


def test_a_misspelt_key_of_the_project_is_a_mistake_and_no_silent_host(new_desk: MakeDesk) -> None:
    desk = new_desk({"long": "sleep 600"})
    desk.submit("long")
    file = desk.project / "orch.yaml"
    file.write_text(file.read_text() + "defualt_host: box\n")
    done = desk.orch("reconcile", code=2)
    assert_clear(done, "defualt_host", "orch.yaml")
