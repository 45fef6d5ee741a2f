"""The exit code tells what to do next, whatever command met the trouble."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import Desk, assert_clear
from tests.helpers.cli import orch_argv, orch_env
from tests.helpers.sshd import PrivateSshd

NOBODY = "no-such-host-x"


@pytest.mark.parametrize(
    "command",
    [
        ["doctor"],
        ["gpus"],
        ["gpus", "box"],
        ["top", "--host"],
        ["reconcile", "--host"],
        ["check", "train", "--host"],
    ],
    ids=" ".join,
)
def test_a_host_nobody_has_heard_of_is_not_found(command: list[str], desk: Desk) -> None:
    done = desk.orch(*command, NOBODY, code=3)
    assert NOBODY in done.stdout + done.stderr
    assert "orch host ls" in done.stdout + done.stderr
    if "box" in command:
        assert "no GPU" in done.stdout


def test_the_host_of_a_run_that_was_taken_out_of_the_project_is_not_found(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"bad": "exit 1"})
    runs = [desk.submit("bad"), desk.submit("bad")]
    for run_id in runs:
        desk.orch("wait", run_id, code=1)
    (desk.project / "orch.yaml").write_text("name: bare\n")
    for command in (["tail"], ["fetch-results"], ["resume"], ["attach"]):
        done = desk.orch(*command, runs[0], code=3)
        assert_clear(done, "'box'", runs[0], "orch.yaml")
        assert "go on" not in done.stderr
    assert "'box'" in desk.orch("tail", *runs, code=3).stderr


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


# --- what is in the way on this machine -----------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (["report", "-o", "no/such/x.html"], "no/such/x.html"),
        (["report", "-o", "notes.md"], "notes.md"),
        (["report", "-o", "jobs/x.html/y.md"], "jobs/x.html"),
        (["ledger", "export", "-o", "no/such/x"], "no/such/x"),
        (["ledger", "export", "-o", "jobs"], "jobs"),
        (["init", "/proc/x"], "/proc/x"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_file_that_cannot_be_written_is_a_mistaken_command(
    command: list[str], word: str, desk: Desk
) -> None:
    desk.orch("submit", "train", "-f")
    (desk.project / "notes.md").write_text("precious")
    assert_clear(desk.orch(*command, code=2), word)
    assert (desk.project / "notes.md").read_text() == "precious"


def test_a_folder_that_is_gone_is_left_first(desk: Desk) -> None:
    argv = ["sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh", *orch_argv(["ls"])]
    (desk.project / "gone").mkdir()
    done = subprocess.run(
        argv, cwd=desk.project / "gone", env=orch_env(desk.home), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert_clear(done, "does not exist any more")


@pytest.mark.parametrize("kind", ["file", "dangling link", "file in it", "link in it"])
def test_what_is_in_the_way_of_results_is_named(kind: str, desk: Desk) -> None:
    desk.orch("submit", "train", "-f")
    results = desk.project / "results"
    way = results / "train" if kind == "file in it" else results
    if kind == "link in it":
        way = results / "train" / desk.show()["run_id"]
        way.parent.mkdir(parents=True)
        way.symlink_to(desk.home)
    elif kind == "dangling link":
        way.symlink_to("nowhere")
    else:
        way.parent.mkdir(exist_ok=True)
        way.write_text("precious")
    assert_clear(desk.orch("fetch-results", code=2), str(way), "in the way")


def shell(desk: Desk, command: str, *words: str) -> subprocess.CompletedProcess[str]:
    """What `orch WORDS` did, whose call is "$@" in this command of bash."""
    argv = ["bash", "-c", f"set -o pipefail; {command}", "bash", *orch_argv(words)]
    return subprocess.run(
        argv, cwd=desk.project, env=orch_env(desk.home), capture_output=True, text=True, timeout=60
    )


def test_stdout_that_is_full_or_closed_is_said_and_never_called_a_bad_end(desk: Desk) -> None:
    desk.orch("submit", "train", "-f")
    for words in (["ls"], ["tail"], ["tail", "--raw"], ["show", "--json"]):
        done = shell(desk, '"$@" > /dev/full', *words)
        assert done.returncode == 141, done.stderr
        assert_clear(done, "stdout could not be written", "No space left")
        done = shell(desk, '"$@" >&-', *words)
        assert done.returncode == 141, done.stderr
        assert_clear(done, "stdout is closed")
    for command in ('"$@" > /dev/full', '"$@" | true', '"$@" >&-'):
        assert shell(desk, command, "--help").returncode in (0, 141)


@pytest.mark.parametrize("command", ['"$@" > /dev/full', '"$@" | true', '"$@" >&-'])
def test_a_submit_whose_id_nobody_could_read_says_that_it_was_started(
    command: str, new_desk: MakeDesk
) -> None:
    desk = new_desk({"long": "sleep 600"})
    done = shell(desk, command, "submit", "long")
    ((run_id, state, _),) = desk.rows()
    assert done.returncode == 141, done.stderr
    assert_clear(done, "stdout", f"{run_id} was started", f"orch tail {run_id}")
    assert state in ("queued", "running")


def test_an_ssh_config_that_is_not_there_is_said_to_be_so(desk: Desk, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    done = desk.orch("doctor", NOBODY, code=3, ORCH_SSH_CONFIG=absent)
    assert f"{absent} (which does not exist)" in done.stdout + done.stderr
    done = desk.orch("host", "ls", ORCH_SSH_CONFIG=absent)
    assert f"ORCH_SSH_CONFIG names {absent}, which does not exist" in done.stderr


@pytest.mark.ssh
def test_of_a_jump_host_that_does_not_resolve_the_name_is_told(
    over: str, new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(sshd.host_block("inner") + f"    ProxyJump {NOBODY}\n")
    desk = new_desk(host=box(sshd, ssh="inner"), ssh_config=config)
    done = desk.orch("doctor", code=6)
    told = f"the name {NOBODY} does not resolve" if over == "ssh" else f"its jump host {NOBODY}"
    assert told in done.stdout
    assert "orch doctor" not in done.stdout, "it advises itself"
