"""Odd places to be called from: folders, locales, closed and full streams, several hosts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, WORK_LOG, Desk, assert_clear
from tests.helpers.cli import TRACEBACK, orch_argv, orch_env


@pytest.fixture
def done(desk: Desk) -> Desk:
    """A desk with one run that is over."""
    desk.orch("submit", "train", "-f")
    return desk


def test_before_the_first_run_lists_are_empty_and_lawful(desk: Desk) -> None:
    assert json.loads(desk.orch("ls", "--json").stdout) == []
    assert json.loads(desk.orch("ledger", "export", "--json").stdout) == []
    assert [job["name"] for job in json.loads(desk.orch("jobs", "--json").stdout)] == ["train"]
    names = [host["name"] for host in json.loads(desk.orch("host", "ls", "--json").stdout)]
    assert {"local", "box"} <= set(names)
    assert not (desk.home / "state" / "orch" / "ledger.db").exists()


@pytest.mark.parametrize("name", ["with space", "ünïcode", "new\nline", "-dash", "quo'te\"$x"])
def test_f64_a_project_may_lie_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    from tests.contract.desk import end_all, make_desk

    folder = tmp_path / name
    folder.mkdir()
    desk = make_desk(folder)
    try:
        run_id = desk.submit("train")
        desk.orch("wait")
        desk.orch("fetch-results")
        assert (desk.results("train", run_id) / "metrics.json").exists()
        assert desk.show()["results_path"] == str(desk.results("train", run_id))
    finally:
        end_all(desk.home)


def test_it_works_from_below_the_project_and_from_outside_by_its_name(done: Desk) -> None:
    below = done.project / "jobs"
    for place, env in ((below, {}), (Path("/"), {"ORCH_PROJECT": str(done.project)})):
        other = Desk(done.home, place, env)
        assert other.show()["job"] == "train"
        assert len(other.runs()) == 1
    outside = Desk(done.home, Path("/"))
    assert len(json.loads(outside.orch("ls", "--json", "--all").stdout)) == 1
    assert outside.orch("tail", "--raw").stdout.encode() == WORK_LOG


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_any_locale_will_do(locale: str, new_desk: MakeDesk) -> None:
    says = "echo h\u00e9llo \u4e16; mkdir results/\u4e16; touch results/\u4e16/\u754c.txt"
    desk = new_desk({"says": {**TRAIN, "command": says, "expect": {}}})
    desk.env |= {"LANG": locale, "LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    desk.submit("says", "--note", "n\u00f6te")
    desk.orch("wait", code=None)
    assert "llo" in desk.orch("tail", "--no-follow").stdout
    assert desk.show()["note"] == "n\u00f6te"
    for command in (["show"], ["ls"], ["jobs"], ["ledger", "export"]):
        desk.orch(*command)
    for came in ("1 file (0 B) fetched", "1 was here already"):
        assert came in desk.orch("fetch-results", code=7).stderr
    assert desk.orch("ledger", "verify").returncode == 0
    assert (Path(desk.show()["results_path"]) / "\u4e16" / "\u754c.txt").is_file()


STREAMS = {
    "full stdout": ("stdout", "/dev/full"),
    "full stderr": ("stderr", "/dev/full"),
    "closed stdout": ("stdout", None),
    "closed stderr": ("stderr", None),
}


LATIN = "de_DE.ISO-8859-1"


@pytest.mark.skipif(shutil.which("localedef") is None, reason="no localedef here")
def test_f64_a_login_with_an_old_locale_changes_no_name_argument_or_variable(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    made = ["localedef", "--no-archive", "-i", "de_DE", "-f", "ISO-8859-1", str(tmp_path / LATIN)]
    if subprocess.run(made, capture_output=True).returncode != 0:
        pytest.skip("the sources of the locale are not installed")
    python = tmp_path / "python"
    login = f"LOCPATH={tmp_path} LC_ALL={LATIN}; export LOCPATH LC_ALL"
    python.write_text(f'#!/bin/sh\n{login}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    job = {
        "command": ["sh", "-c", 'cat n€.txt; echo "$1 $NAME"; echo > results/n€; env', "sh", "ä€"],
        "env": {"NAME": "é€"},
    }
    host = {"transport": "local", "session": "plain", "python": str(python)}
    desk = new_desk({"job": job}, host=host, files={"n€.txt": "data €\n"})
    run_id = desk.submit("job")
    desk.orch("wait", run_id)
    told = desk.orch("tail", run_id, "--no-follow").stdout
    assert told.startswith("data €\nä€ é€\n")
    assert f"LC_ALL={LATIN}" in told and "PYTHONUTF8" not in told, "the login's own, as it is"
    desk.orch("fetch-results", run_id)
    assert (desk.results("job", run_id) / "n€").exists()


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("command", [["show"], ["ls", "--json"], ["tail"], ["show", "nosuch"]])
def test_a_stream_that_takes_nothing_is_no_traceback(
    kind: str, command: list[str], done: Desk, tmp_path: Path
) -> None:
    stream, path = STREAMS[kind]
    said = tmp_path / "said"
    code = (
        "import os, sys\n"
        f"for name, fd in (('stdout', 1), ('stderr', 2)):\n"
        f" if name != {stream!r}: os.dup2(os.open({str(said)!r}, 1025 | os.O_CREAT), fd)\n"
        f" elif {path!r} is None: os.close(fd)\n"
        f" else: os.dup2(os.open({path!r}, os.O_WRONLY), fd)\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    argv = [sys.executable, "-c", code, *orch_argv(command)]
    ended = subprocess.run(argv, cwd=done.project, env=orch_env(done.home), timeout=30)
    assert TRACEBACK not in said.read_text()
    assert ended.returncode in ((3,) if "nosuch" in command else (0, 1, 120, 141))
    if kind == "full stdout" and "nosuch" not in command:
        assert ended.returncode != 0, "lost output was called a success"


@pytest.mark.skipif(os.geteuid() != 0, reason="a read-only mount needs root")
@pytest.mark.root
def test_a_home_that_may_not_be_written_starts_nothing(desk: Desk) -> None:
    state = desk.home / "state"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", state], check=True)
    try:
        done = desk.orch("submit", "train", code=11)
        assert_clear(done, str(state))
        assert not (desk.home / ".orch").exists()
        assert json.loads(desk.orch("ls", "--json").stdout) == []
        desk.orch("check", "train")
    finally:
        subprocess.run(["umount", state], check=True)


def test_a_silent_host_hides_no_other_and_changes_nothing(new_desk: MakeDesk) -> None:
    desk = new_desk({"sleep": "sleep 600", "train": TRAIN})
    run_id = desk.submit("sleep")
    desk.orch("submit", "train", "-f")
    described = {"hosts": {"box": {"ssh": "me@127.0.0.1:9"}}, "default_host": "local"}
    good = (desk.project / "orch.yaml").read_text()
    (desk.project / "orch.yaml").write_text(json.dumps(described))
    listed = desk.orch("ls", "--json")
    assert "box" in listed.stderr
    states = {run["run_id"]: run["state"] for run in json.loads(listed.stdout)}
    assert states[run_id] == "running"
    table = desk.orch("ls")
    assert "running" in table.stdout
    assert desk.orch("show", run_id).stdout.count("unreachable") >= 1
    (desk.project / "orch.yaml").write_text(good)
    desk.orch("cancel", run_id)


def test_another_results_folder_and_metrics_file(new_desk: MakeDesk) -> None:
    spec = {
        **TRAIN,
        "command": "mkdir -p out/eval && cp good.json out/eval/final.json",
        "results": {"dir": "out"},
        "metrics": {"file": "out/eval/final.json", "primary": "acc"},
        "expect": {"acc": {"min": 0.5}},
    }
    desk = new_desk({"other": spec}, files={"good.json": '{"acc": 0.75, "accuracy": 0.1}'})
    desk.orch("submit", "other", "-f")
    desk.orch("fetch-results")
    shown = desk.show()
    assert (shown["outcome"], shown["metrics"]["acc"]) == ("ok", 0.75)
    assert (desk.results("other", shown["run_id"]) / "eval" / "final.json").exists()


def test_init_keeps_what_is_there_and_the_example_runs(tmp_path: Path) -> None:
    from tests.contract.desk import end_all

    folder, home = tmp_path / "new", tmp_path / "home"
    folder.mkdir()
    (folder / ".gitignore").write_text("mine\n")
    desk = Desk(home, folder)
    said = desk.orch("init").stderr
    desk.orch("init")
    assert (folder / ".gitignore").read_text() == "mine\n"
    assert "add the line `results/`" in said
    try:
        desk.orch("submit", "hello", "-f", "--profile", "quick")
        assert desk.show()["outcome"] == "ok"
    finally:
        end_all(home)
