"""What follows say at their end, and to whom: the verdict, the hints, the run that is meant."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.domain import Host, Run, Session
from orchestrator.ledger.store import Ledger
from orchestrator.transport import ssh, ssh_route
from orchestrator.usecases import attach
from orchestrator.usecases.context import Context
from tests.contract import liar
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import TRAIN, Desk, assert_clear
from tests.helpers.cli import assert_exit, orch_argv, orch_env
from tests.helpers.sshd import PrivateSshd

ROOT = Path(__file__).resolve().parents[2]


def merged(desk: Desk, *words: str) -> str:
    """All that `orch WORDS` wrote, on one stream as on a terminal."""
    done = subprocess.run(
        orch_argv(words), cwd=desk.project, env=orch_env(desk.home), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("raw", [[], ["--raw"]], ids=["safe", "raw"])
def test_the_verdict_begins_a_line_and_the_log_gets_no_byte_for_it(
    raw: list[str], new_desk: MakeDesk
) -> None:
    desk = new_desk({"open": "printf 'no newline'"})
    run_id = desk.submit("open")
    desk.orch("wait")
    assert f"no newline\n{run_id}: succeeded" in merged(desk, "tail", *raw)
    done = desk.orch("tail", *raw)
    assert (done.stdout, done.stderr[:1]) == ("no newline", run_id[:1])
    assert merged(desk, "tail", "--no-follow", *raw) == "no newline"


# --- attach ---------------------------------------------------------------------------------------


def test_attach_without_a_terminal_says_so_and_asks_no_host(new_desk: MakeDesk) -> None:
    desk = new_desk({"long": "sleep 600"})
    run_id = desk.submit("long")
    assert_clear(desk.orch("attach", code=2), "no terminal", f"orch tail {run_id}")


@pytest.mark.parametrize(("kind", "word"), [("plain", "had no session"), ("tmux", "lost")])
def test_a_session_that_is_opened_for_the_first_time_was_not_lost(
    kind: str, word: str, ctx: Context, ledger: Ledger, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    reply = {"ok": True, "phase": "running", "view": {"rebuilt": True}, "argv": ["tmux", "a"]}
    liar.lie(monkeypatch, liar.end(reply))
    shown = attach.view(ctx, ledger, replace(run, session=Session(kind, "orch-x")))
    assert word in (shown.notice or "")


@pytest.mark.ssh
def test_what_ssh_says_of_itself_is_no_end_of_a_run(
    new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    desk = new_desk({"short": "echo visible"}, host=box(sshd))
    (desk.home / ".ssh").mkdir()
    config = desk.home / ".ssh" / "config"
    shutil.copy(sshd.client_config, config)
    desk.orch("submit", "short", "-f")
    assert desk.orch("attach").stdout == "visible\n"
    client = tmp_path / "bin" / "ssh"
    client.parent.mkdir()
    client.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 255\n')
    client.chmod(0o755)
    done = desk.orch("attach", code=6, PATH=f"{client.parent}:{os.environ['PATH']}")
    assert_clear(done, "ssh", "orch doctor box")
    words = done.stdout.split()
    assert words[:3] == ["-T", "-F", str(config)]


# --- which run is meant ---------------------------------------------------------------------------


def test_a_refused_submit_hides_no_run_that_goes_on(new_desk: MakeDesk) -> None:
    desk = new_desk({"long": "sleep 600"})
    run_id = desk.submit("long")
    refused = desk.orch("submit", "long", "--unique", code=5)
    assert f"orch show {run_id}" in refused.stderr
    latest = desk.show("long")["run_id"]
    assert latest != run_id
    assert "fetch-results" not in desk.orch("show", "long").stdout
    late = desk.orch("wait", "long", "--timeout", "1s", code=4)
    assert_clear(late, f"{run_id} is meant", f"orch tail {run_id}")
    for command in (["attach"], ["tail", "--no-follow"]):
        assert f"{run_id} is meant" in desk.orch(*command, code=None).stderr
    resumed = desk.orch("resume", run_id, code=5)
    assert_clear(resumed, f"orch tail {run_id}", f"orch cancel {run_id}")
    desk.orch("cancel", "long")
    assert desk.show(run_id)["verdict"] == "cancelled"


def test_a_run_that_fails_at_its_start_has_one_verdict(new_desk: MakeDesk) -> None:
    desk = new_desk({"broken": {"command": ["/nonexistent/prog"]}})
    done = desk.orch("submit", "broken", "-f", code=1)
    assert done.stderr.count("failed") == 1, done.stderr


def test_a_dry_run_shows_the_command_as_a_shell_takes_it(new_desk: MakeDesk) -> None:
    desk = new_desk({"list": ["python3", "-c", "print('x  y')"], "text": "echo 'a  b' > f"})
    for job, told in (
        ("list", """python3 -c 'print('"'"'x  y'"'"')'"""),
        ("text", """sh -c 'echo '"'"'a  b'"'"' > f'"""),
    ):
        assert f"command  {told}\n" in desk.orch("submit", job, "--dry-run").stdout


@pytest.mark.parametrize(
    "command", [["submit", "train"], ["check", "train"], ["reconcile"]], ids=lambda c: c[0]
)
def test_an_empty_host_is_no_default(command: list[str], desk: Desk) -> None:
    assert_clear(desk.orch(*command, "--host", "", code=2), "empty", "--host")
    assert desk.rows() == []


def test_texts_of_several_lines_are_one_line_in_a_list(new_desk: MakeDesk) -> None:
    desk = new_desk()
    desk.spec("two", "description: |\n  two\n  lines\ncommand: |\n  echo a\n  echo b\n")
    (desk.project / "jobs" / "q.yml").write_text("command: x")
    listed = desk.orch("jobs")
    assert "two lines" in listed.stdout
    assert "jobs/q.yml is no job" in listed.stderr
    assert "q.yml is no job" in desk.orch("jobs", "--json").stderr
    assert "sh -c 'echo a echo b'\n" in desk.orch("submit", "two", "--dry-run").stdout


# --- where to go next -----------------------------------------------------------------------------


def test_verdicts_of_several_runs_are_no_errors(new_desk: MakeDesk) -> None:
    desk = new_desk({"one": "echo 1", "two": "echo 2"})
    ids = [desk.submit("one"), desk.submit("two")]
    said = desk.orch("tail", *ids).stderr
    for run_id in ids:
        assert f"\n{run_id}: succeeded" in f"\n{said}"


def test_a_tag_is_advised_as_its_command_takes_it(desk: Desk) -> None:
    desk.orch("submit", "train", "-f")
    said = desk.orch("tag", "train", "a", code=2).stderr
    assert "write key=value" in said
    assert "--tag" not in said


def test_init_elsewhere_goes_there_first(desk: Desk) -> None:
    assert "`cd '../p 7'`, then `orch submit hello" in desk.orch("init", "../p 7").stderr
    assert "cd" not in desk.orch("init").stderr.splitlines()[-1]


def test_a_project_that_was_moved_is_told_where_its_runs_are(desk: Desk) -> None:
    assert desk.orch("ls").stderr == ""
    desk.orch("submit", "train", "-f")
    moved = desk.project.with_name("moved")
    desk.project.rename(moved)
    desk.project = moved
    done = desk.orch("ls")
    assert "orch ls --all" in done.stderr
    assert "1 of other folders" in done.stderr
    assert "other folders" not in desk.orch("ls", "--job", "nosuch").stderr


def test_results_of_a_project_that_was_moved_come_to_where_it_is_now(desk: Desk) -> None:
    run_id = desk.submit("train")
    desk.orch("wait")
    moved = desk.project.with_name("moved")
    desk.project.rename(moved)
    desk.project = moved.with_name("another")
    desk.project.mkdir()
    (desk.project / "orch.yaml").write_text("name: another\n")
    done = desk.orch("fetch-results", run_id, code=3)
    assert_clear(done, "is not there any more", f"orch fetch-results {run_id}", "jobs/train.yaml")
    assert not (desk.project / "results").exists()

    desk.project = moved
    mine = desk.results("train", run_id) / "metrics.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    done = desk.orch("fetch-results", run_id, code=10)
    assert str(moved) in done.stderr
    assert mine.read_text() == "mine"
    mine.unlink()
    desk.orch("fetch-results", run_id)
    assert json.loads(mine.read_text())["accuracy"] == 0.9
    known = desk.show(run_id)
    assert (known["results_path"], known["fetched"]) == (str(mine.parent), "complete")
    assert str(mine.parent.parent) in desk.orch("report", run_id).stdout


@pytest.mark.parametrize("banner", [0.1, 60.0], ids=["its banner is late", "its login is late"])
def test_a_host_that_takes_the_connection_and_is_mute_is_not_said_to_hang_up(
    banner: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ssh_route, "CONNECT_TIMEOUT", 1.0)
    monkeypatch.setattr(ssh_route, "BANNER_TIMEOUT", banner)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        host = Host("mute", ssh=f"me@127.0.0.1:{mute.getsockname()[1]}")
        with pytest.raises(errors.ConnectFailed) as failed:
            ssh.SshTransport.open(host, tmp_path / "config", tmp_path / "pinned", tmp_path)
    assert "did not answer" in failed.value.message
    assert "MaxStartups" not in str(failed.value.hint)


COMPLETED = {
    "submit tra": ["train"],
    "submit train --profile s": ["small"],
    "submit --host box train --profile ": ["small", "big"],
    "submit train --set r": ["right="],
    "submit train --profile big --set dee": ["deep.er="],
    "submit nosuch --profile ": [],
    "check train --set l": ["lr="],
    "ls --job t": ["train"],
    "ls --state run": ["running"],
    "ls --outcome b": ["below_target"],
    "ls --sort ra": ["ran"],
    "ledger export --format ": ["csv", "json", "mlflow"],
    "submit Bad": [],
}


def completed(desk: Desk, line: str) -> list[str]:
    """What a shell offers behind `orch LINE`."""
    at = str(line.count(" ") + 1)
    asked = {"_ORCH_COMPLETE": "complete_bash", "COMP_WORDS": f"orch {line}", "COMP_CWORD": at}
    program = "import sys; sys.argv = ['orch']; from orchestrator.cli import main; main()"
    argv = [sys.executable, "-c", program]
    env = orch_env(desk.home, asked)
    done = subprocess.run(
        argv, cwd=desk.project, env=env, capture_output=True, text=True, timeout=60
    )
    assert_exit(done, 0)
    return done.stdout.split()


def test_a_shell_completes_what_the_project_and_the_ledger_can_tell(new_desk: MakeDesk) -> None:
    over = {"small": {"config": {"right": 1}}, "big": {"config": {"deep": {"er": 1}}}}
    config = {**TRAIN["config"], "deep": {"er": 0}}
    desk = new_desk({"train": {**TRAIN, "config": config, "profiles": over}})
    (desk.project / "jobs" / "Bad name.yaml").write_text("command: x")
    assert {line: completed(desk, line) for line in COMPLETED} == COMPLETED


def test_the_version_is_told(desk: Desk) -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version is not None
    assert desk.orch("--version").stdout == f"orch {version[1]}\n"
