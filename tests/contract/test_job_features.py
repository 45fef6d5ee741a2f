"""What a job may rely on: frozen code, its data, its stages, its folders, and being left alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import TRAIN, Desk, assert_clear, of_run, supervisor_of, until
from tests.contract.terminal import attached
from tests.helpers import processes
from tests.helpers.sshd import PrivateSshd


def log_of(desk: Desk, *args: str, code: int = 0) -> str:
    """Submit and follow; the log."""
    return desk.orch("submit", *args, "-f", code=code).stdout.partition("\n")[2]


def test_code_edited_after_the_submit_is_not_what_runs(new_desk: MakeDesk) -> None:
    wait = "until test -e ../go; do sleep 0.02; done; cat word.txt; ls"
    desk = new_desk({"late": wait}, files={"word.txt": "old\n"})
    run_id = desk.submit("late")
    (desk.project / "word.txt").write_text("new\n")
    (desk.project / "extra.txt").write_text("x")
    (desk.home / ".orch" / "runs" / run_id / "go").touch()
    desk.orch("wait")
    log = desk.orch("tail").stdout
    assert log.startswith("old\n")
    assert "extra.txt" not in log


def by_way_of(where: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A desk's options: its host is this machine, or an sshd's."""
    if where == "local":
        return {}
    server: PrivateSshd = request.getfixturevalue("sshd")
    return {"host": box(server), "ssh_config": server.client_config}


@pytest.mark.parametrize("where", ["local", pytest.param("ssh", marks=pytest.mark.ssh)])
def test_each_run_sees_its_own_snapshot_however_the_tree_changes(
    where: str, new_desk: MakeDesk, request: pytest.FixtureRequest
) -> None:
    options = by_way_of(where, request)
    desk = new_desk(
        {"sum": "find . -type f ! -name '*.pyc' | sort; cat a 2>/dev/null || true"}, **options
    )
    (desk.project / "a").write_text("1\n")
    first = log_of(desk, "sum")
    assert "./a\n" in first
    assert first.endswith("1\n")
    (desk.project / "a").unlink()
    (desk.project / "a").mkdir()
    (desk.project / "a" / "b").write_text("2\n")
    second = log_of(desk, "sum")
    assert "./a/b\n" in second
    assert "./a\n" not in second
    (desk.project / "a" / "b").unlink()
    (desk.project / "a").rmdir()
    third = log_of(desk, "sum")
    assert "./a" not in third
    (desk.project / "a").write_text("1\n")
    assert log_of(desk, "sum") == first
    shots = [run["snapshot"] for run in desk.runs()]
    assert shots[0] == shots[3]
    assert len(set(shots)) == 3


def test_stages_run_in_the_order_of_their_needs_and_stop_at_the_first_failure(
    new_desk: MakeDesk,
) -> None:
    stages = {
        "eval": {"command": "echo three", "needs": ["train"]},
        "prepare": {"command": ["echo", "one; not a shell"]},
        "train": {"command": "echo two; exit $(cat code)", "needs": ["prepare"]},
    }
    desk = new_desk({"three": {"stages": stages}}, files={"code": "0"})
    log = log_of(desk, "three")
    assert log.index("one; not a shell") < log.index("two") < log.index("three")
    (desk.project / "code").write_text("4")
    log = log_of(desk, "three", code=1)
    assert "two" in log
    assert "\nthree" not in log
    assert desk.show()["exit_code"] == 4


@pytest.mark.parametrize("where", ["local", pytest.param("ssh", marks=pytest.mark.ssh)])
def test_data_is_found_under_its_name_sent_once_and_its_hash_recorded(
    where: str, new_desk: MakeDesk, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    options = by_way_of(where, request)
    (tmp_path / "data" / "sst2" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "sst2" / "deep" / "train.tsv").write_text("good\t1\n")
    (tmp_path / "data" / "sst2" / "id_rsa").write_text("data, whatever its name\n")
    spec = {
        "command": "cat $ORCH_DATA/sst2/deep/train.tsv $ORCH_DATA/sst2/id_rsa; ls $ORCH_DATA/tmp",
        "data": {"sst2": {"from": "$ORCH_DATA/sst2"}, "tmp": {"at": "/usr/share"}},
    }
    desk = new_desk({"reader": spec}, **options)
    desk.env["ORCH_DATA"] = str(tmp_path / "data")
    assert log_of(desk, "reader").startswith("good\t1\ndata, whatever its name\n")
    first = desk.show()["data"]["sst2"]
    (tmp_path / "data" / "sst2" / "deep" / "train.tsv").write_text("bad\t0\n")
    assert log_of(desk, "reader").startswith("bad\t0\n")
    assert desk.show()["data"]["sst2"] != first


def test_a_relative_path_in_a_variable_is_meant_from_where_orch_is_called(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    (tmp_path / "data" / "d").mkdir(parents=True)
    (tmp_path / "data" / "d" / "f").write_text("from the caller's folder\n")
    spec = {"command": "cat $ORCH_DATA/d/f", "data": {"d": {"from": "$ORCH_DATA/d"}}}
    desk = new_desk({"reader": spec})
    project = os.path.relpath(desk.project, tmp_path)
    elsewhere = Desk(desk.home, tmp_path, {"ORCH_PROJECT": project, "ORCH_DATA": "data"})
    assert "from the caller's folder\n" in elsewhere.orch("submit", "reader", "-f").stdout


@pytest.mark.parametrize("where", ["local", pytest.param("ssh", marks=pytest.mark.ssh)])
def test_data_that_is_one_file_is_that_file_under_its_name(
    where: str, new_desk: MakeDesk, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    options = by_way_of(where, request)
    (tmp_path / "one, \xe4.txt").write_text("rows\n")
    (tmp_path / "linked").symlink_to("one, \xe4.txt")
    names = {"f": "one, \xe4.txt", "g": "linked"}
    data = {name: {"from": str(tmp_path / file)} for name, file in names.items()}
    command = "cat $ORCH_DATA/f $ORCH_DATA/g; test $ORCH_ATTEMPT = 2"
    desk = new_desk({"reader": {"command": command, "data": data}}, **options)
    assert log_of(desk, "reader", code=1).startswith("rows\nrows\n")
    desk.orch("resume", "reader")
    desk.orch("wait")
    assert desk.orch("tail", "--no-follow").stdout.count("rows\n") == 4


def test_data_behind_links_reaches_the_job_and_what_does_not_is_said_alike_everywhere(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1234").write_text("rows\n")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "train").symlink_to("../blobs/1234")
    (tmp_path / "snapshot" / "dev").symlink_to("../blobs/5678")
    data = {"sst2": {"from": str(tmp_path / "snapshot")}}
    desk = new_desk({"reader": {"command": "cat $ORCH_DATA/sst2/*", "data": data}})
    told = "data sst2: dev (a link that leads nowhere)"
    assert f"left out: {told}\n" in desk.orch("check", "reader").stderr
    assert f"left out {told}\n" in desk.orch("submit", "reader", "--dry-run").stdout
    document = json.loads(desk.orch("submit", "reader", "--dry-run", "--json").stdout)
    why = "a link that leads nowhere"
    assert document["left_out"] == [{"path": "data sst2: dev", "why": why}]
    done = desk.orch("submit", "reader", "-f")
    assert f"left out: {told}\n" in done.stderr
    assert done.stdout.endswith("\nrows\n")


def test_a_data_set_without_a_file_is_refused_before_there_is_a_run(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    (tmp_path / "empty" / "gone").symlink_to("../nowhere")
    data = {"sst2": {"from": str(tmp_path / "empty")}}
    desk = new_desk({"reader": {"command": "true", "data": data}})
    said = set()
    for command in (["check"], ["submit", "--dry-run"], ["submit"]):
        done = desk.orch(*command, "reader", code=3)
        assert_clear(done, "sst2", str(tmp_path / "empty"), "gone (a link that leads nowhere)")
        said.add(done.stderr)
    assert len(said) == 1
    assert desk.rows() == []


def test_where_git_refuses_nothing_is_sent_and_there_is_no_run(new_desk: MakeDesk) -> None:
    desk = new_desk({"go": "true"}, git=True)
    (desk.project / ".git" / "HEAD").write_text("")
    for command in (["check"], ["submit", "--dry-run"], ["submit"]):
        assert_clear(desk.orch(*command, "go", code=2), "git", "not a git repository", ".git away")
    assert desk.rows() == []


@pytest.mark.parametrize("spoil", ["chmod 700 train; echo evil >train", "echo leak >train-2"])
def test_data_that_a_job_changed_on_the_host_is_whole_again_for_the_next_and_it_is_said(
    spoil: str, new_desk: MakeDesk, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").write_text("good")
    data = {"set": {"from": str(tmp_path / "data")}}
    command = f"cd -P $ORCH_DATA/set; ls; cat train; chmod 700 .; {spoil}; exit 3"
    spec = {"command": command, "data": data}
    desk = new_desk({"spoil": spec})
    assert "good" in log_of(desk, "spoil", code=1)
    if "evil" in spoil:
        refused = desk.orch("resume", "spoil", code=5)
        assert_clear(refused, "data 'set' was changed", "orch retry")
    done = desk.orch("submit", "spoil", "-f", code=1)
    assert "data set had been changed on box and is whole again there" in done.stderr
    assert "train\ngood" in done.stdout
    assert "train-2" not in done.stdout


def test_f24_processes_left_behind_are_ended_and_named(new_desk: MakeDesk) -> None:
    left = "nohup sleep 4343 >/dev/null & setsid sleep 4344 & echo begun"
    stages = {"a": {"command": left}, "b": {"command": "echo second", "needs": ["a"]}}
    desk = new_desk({"left": {"stages": stages}, "tidy": "sleep 0 & wait"})
    log = log_of(desk, "left")
    ((run_id, _, verdict),) = desk.rows()
    assert verdict == "succeeded"
    assert of_run(run_id) == []
    (event,) = [each for each in desk.show(run_id)["events"] if each["kind"] == "leftover"]
    assert event["data"]["message"].count("sleep (pid ") == 2
    said = "[orch] " + event["data"]["message"]
    assert log.index("begun") < log.index(said) < log.index("second")
    assert event["data"]["message"] in desk.orch("show", run_id).stdout
    assert "[orch]" not in log_of(desk, "tidy")
    assert "leftover" not in [each["kind"] for each in desk.show()["events"]]


def test_f65_secrets_and_variables_reach_the_job_byte_for_byte(new_desk: MakeDesk) -> None:
    odd = "a'b\"c$HOME`id`\\n\u00e9\ttab"
    spec = {
        "command": ["python3", "-c", "import os, json; print(json.dumps([os.environ['ODD'],"
                    "os.environ['TOKEN'], os.environ.get('OTHER')]))"],
        "env": {"ODD": odd}, "secrets": ["TOKEN"],
    }  # fmt: skip
    desk = new_desk({"env": spec})
    desk.env |= {"TOKEN": "s3'cr\"et\nline", "OTHER": "the submitting shell's"}
    assert json.loads(log_of(desk, "env")) == [odd, "s3'cr\"et\nline", None]
    for path in (desk.home / ".orch").rglob("*"):
        if path.is_file() and not path.is_symlink() and path.name != "log":
            assert b"s3'cr" not in path.read_bytes(), path


def test_f80_results_may_be_made_anew_excluded_and_hold_anything(new_desk: MakeDesk) -> None:
    make = (
        "rm -rf results; mkdir -p results/checkpoints results/deep/er; touch results/empty; "
        "echo m > results/checkpoints/m.pt; echo x > 'results/sp ace'; ln -s /etc/passwd "
        "results/link; mkfifo results/pipe; echo d > results/deep/er/d; cp good.json "
        "results/metrics.json"
    )
    spec = {**TRAIN, "command": make, "results": {"dir": "results", "exclude": ["checkpoints/**"]}}
    good = '{"accuracy": 0.9, "confusion_matrix": [[45, 5], [5, 45]]}'
    desk = new_desk({"make": spec}, files={"good.json": good})
    run_id = desk.submit("make")
    desk.orch("wait")
    done = desk.orch("fetch-results")
    folder = desk.results("make", run_id)
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}
    assert {n for n in found if not n.startswith(".")} == {
        "empty", "sp ace", "deep/er/d", "metrics.json",
    }  # fmt: skip
    assert "link" in done.stderr
    assert "pipe" in done.stderr
    assert desk.show()["accuracy"] == 0.9


def test_f83_results_of_a_run_that_goes_on_are_partial_and_then_complete(
    new_desk: MakeDesk,
) -> None:
    job = "echo 1 > results/a; until test -e ../go; do sleep 0.02; done; "
    job += "echo 2 > results/a; echo 3 > results/b"
    desk = new_desk({"grows": job})
    run_id = desk.submit("grows")
    until((desk.home / ".orch" / "runs" / run_id / "results" / "a").exists)
    desk.orch("fetch-results")
    shown = desk.show()
    assert (shown["fetched"], shown["accuracy"], shown["state"]) == ("partial", None, "running")
    assert (desk.results("grows", run_id) / "a").read_text() == "1\n"
    (desk.home / ".orch" / "runs" / run_id / "go").touch()
    desk.orch("wait")
    desk.orch("fetch-results")
    assert desk.show()["fetched"] == "complete"
    assert (desk.results("grows", run_id) / "a").read_text() == "2\n"
    assert (desk.results("grows", run_id) / "b").read_text() == "3\n"


def test_a_fetched_file_edited_here_is_kept_and_named(new_desk: MakeDesk) -> None:
    desk = new_desk()
    run_id = desk.submit("train")
    desk.orch("wait")
    desk.orch("fetch-results")
    mine = desk.results("train", run_id) / "metrics.json"
    time.sleep(0.02)
    mine.write_text("edited by hand")
    done = desk.orch("fetch-results", code=10)
    assert "metrics.json" in done.stderr
    assert mine.read_text() == "edited by hand"
    mine.rename(mine.with_suffix(".mine"))
    desk.orch("fetch-results")
    assert json.loads(mine.read_text())["accuracy"] == 0.9


@pytest.mark.parametrize("what", ["submit", "fetch-results"])
def test_many_at_once_do_not_disturb_each_other(what: str, new_desk: MakeDesk) -> None:
    desk = new_desk()
    if what == "fetch-results":
        desk.submit("train")
        desk.orch("wait")
    started = [desk.start(what, *(["train"] if what == "submit" else [])) for _ in range(4)]
    told = [each.communicate(timeout=60) for each in started]
    assert [each.returncode for each in started] == [0] * 4, told
    if what == "submit":
        ids = [out.strip() for out, _ in told]
        for run_id in ids:
            desk.orch("wait", run_id)
        assert sorted(row[0] for row in desk.rows()) == sorted(ids)
        assert {run["accuracy"] for run in desk.runs()} == {0.9}
    else:
        folder = desk.results("train", desk.show()["run_id"])
        assert json.loads((folder / "metrics.json").read_text())["accuracy"] == 0.9


def test_f12_a_tree_that_changes_all_the_time_is_refused_or_sent_as_it_was(
    new_desk: MakeDesk,
) -> None:
    blob = os.urandom(400_000)
    desk = new_desk({"sum": "sha256sum $(ls w*) | wc -l"}, files={f"w{n}": blob for n in range(8)})
    stop = threading.Event()

    def writer() -> None:
        while not stop.is_set():
            for number in range(8):
                (desk.project / f"w{number}").write_bytes(os.urandom(400_000))

    thread = threading.Thread(target=writer)
    thread.start()
    try:
        for _ in range(3):
            done = desk.orch("submit", "sum", code=None)
            assert done.returncode in (0, 10), done.stderr
            if done.returncode == 10:
                assert "changed" in done.stderr
    finally:
        stop.set()
        thread.join()
    states = {row[1:] for row in desk.rows()}
    assert states <= {("finished", "never_started"), ("running", None), ("finished", "succeeded"),
                      ("queued", None)}  # fmt: skip
    desk.orch("submit", "sum", "-f")


def test_f77_the_end_of_a_huge_log_is_shown_at_once(new_desk: MakeDesk) -> None:
    job = "python3 -c \"import os; os.truncate('../log', 1 << 40)\"; echo; echo the end"
    desk = new_desk({"huge": job})
    desk.submit("huge")
    desk.orch("wait")
    # A terabyte, nearly all of it a hole: reading it takes many minutes.
    done = desk.orch("tail", "-n", "1", timeout=60)
    assert done.stdout == "the end\n"


@pytest.mark.parametrize("session", ["plain", pytest.param("tmux", marks=pytest.mark.sessions)])
def test_attach_on_this_machine_shows_the_log(session: str, new_desk: MakeDesk) -> None:
    desk = new_desk(
        {"sleep": "echo visible; sleep 600"}, host={"transport": "local", "session": session}
    )
    run_id = desk.submit("sleep")
    assert "visible" in attached(desk, "visible")
    assert desk.show()["state"] == "running"
    desk.orch("cancel", run_id)


@pytest.mark.parametrize(
    "session",
    ["plain", *(pytest.param(kind, marks=pytest.mark.sessions) for kind in ("tmux", "screen"))],
)
def test_attach_needs_no_tail_on_the_host(session: str, new_desk: MakeDesk, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "sleep", "touch", "test", session):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    desk = new_desk(
        {"sleep": "echo visible; until test -e ../go; do sleep 0.05; done; echo after"},
        host={"transport": "local", "session": session},
    )
    desk.env["PATH"] = str(tools)
    run_id = desk.submit("sleep")
    assert "visible" in attached(desk, "visible")
    (desk.home / ".orch" / "runs" / run_id / "go").touch()
    desk.orch("wait")
    assert desk.orch("attach").stdout == "visible\nafter\n"
    (desk.home / ".orch" / "runs" / run_id / "log").unlink()
    assert "could not show it" in desk.orch("attach", code=2).stderr


@pytest.mark.sessions
@pytest.mark.parametrize("session", ["tmux", "screen"])
def test_attach_finds_a_local_session_wherever_the_callers_own_are(
    session: str, new_desk: MakeDesk, tmp_path: Path
) -> None:
    desk = new_desk(
        {"sleep": "echo visible; sleep 600"}, host={"transport": "local", "session": session}
    )
    (tmp_path / "mine").mkdir(mode=0o700)
    mine = str(tmp_path / "mine")
    run_id = desk.submit("sleep")
    assert "visible" in attached(desk, "visible", TMUX_TMPDIR=mine, SCREENDIR=mine)
    desk.orch("cancel", run_id)


@pytest.mark.sessions
def test_attach_from_inside_tmux_switches_to_the_session_or_says_what_to_do(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    desk = new_desk({"sleep": "echo visible; sleep 600"}, host={"transport": "local"})
    run_id = desk.submit("sleep")
    name = f"orch-{run_id}"
    until(lambda: subprocess.run(["tmux", "has-session", "-t", name], capture_output=True))
    tell = ("tmux", "display-message", "-p", "-t", name, "#{socket_path},#{pid},0")
    inside = subprocess.run(tell, capture_output=True, text=True, check=True).stdout.strip()
    said = attached(desk, "lead back", TMUX=inside)
    assert "its prefix key and L lead back" in said
    said = attached(desk, "follows it here", TMUX=f"{tmp_path}/other,1,0")
    assert "attach from a terminal outside tmux" in said
    desk.orch("cancel", run_id)


def test_attach_that_cannot_show_the_run_is_no_bad_end(new_desk: MakeDesk) -> None:
    desk = new_desk({"short": "echo visible"})
    desk.orch("submit", "short", "-f")
    (desk.home / ".orch" / "runs" / desk.show()["run_id"] / "log").unlink()
    assert "could not show it" in desk.orch("attach", "short", code=2).stderr


def test_attach_to_an_ended_run_shows_its_log_and_ends(new_desk: MakeDesk) -> None:
    desk = new_desk({"short": "echo visible"})
    desk.orch("submit", "short", "-f")
    done = desk.orch("attach", "short", timeout=30)
    assert done.stdout == "visible\n"
    assert "has ended" in done.stderr


@pytest.mark.sessions
def test_no_session_outlives_a_run_that_ends_while_it_is_being_opened(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    slow, opened = tmp_path / "bin" / "tmux", tmp_path / "opened"
    slow.parent.mkdir()
    real = shutil.which("tmux")
    slow.write_text(
        f'#!/bin/sh\ntest "$1" = new-session || exec {real} "$@"\n'
        f'sleep 1\n{real} "$@"\ntouch {opened}\n'
    )
    slow.chmod(0o755)
    desk = new_desk({"short": "true"}, host={"transport": "local", "session": "tmux"})
    desk.env["PATH"] = f"{slow.parent}:{os.environ['PATH']}"
    run_id = desk.submit("short")
    desk.orch("wait", run_id)
    supervisor = supervisor_of(desk.home / ".orch" / "runs" / run_id)
    until(opened.exists)
    until(lambda: not processes.is_alive(supervisor))
    name = f"=orch-{run_id}"
    asked = subprocess.run(["tmux", "has-session", "-t", name], capture_output=True)
    assert asked.returncode != 0
