"""The canary: a short run on the real host that stops the submit when it goes badly."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ledger import Ledger
from orchestrator.usecases.cancel import CANCEL_ASKED
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import TRAIN, Desk, assert_clear, of_run, until
from tests.helpers.project import commit_all, run_git
from tests.helpers.sshd import PrivateSshd

GOOD = '{"accuracy": 0.8, "confusion_matrix": [[8, 2], [2, 8]]}'
PASS = "echo small; test $ORCH_CANARY = 1; test $right = 45; cp small.json results/metrics.json"
SPEC: dict[str, Any] = {
    **TRAIN,
    "config": {"right": 45, "steps": 1000},
    "canary": {"command": "right=45; " + PASS, "time": "1m", "scale": "steps / 10"},
    "resources": {"time": "5m"},
}


def with_canary(new_desk: MakeDesk, canary: Any = None, **options: Any) -> Desk:
    spec = {**SPEC, "canary": {**SPEC["canary"], **canary}} if canary else SPEC
    return new_desk({"train": spec}, files={"small.json": GOOD}, **options)


def canary_finding(shown: dict[str, Any]) -> dict[str, Any]:
    return next(each for each in shown["findings"] if each["rule"] == "canary")


@pytest.mark.parametrize("where", ["local", pytest.param("ssh", marks=pytest.mark.ssh)])
def test_a_canary_runs_first_and_is_a_run_of_its_own(
    where: str, new_desk: MakeDesk, request: pytest.FixtureRequest
) -> None:
    options: dict[str, Any] = {}
    if where == "ssh":
        server: PrivateSshd = request.getfixturevalue("sshd")
        options = {"host": box(server), "ssh_config": server.client_config}
    desk = with_canary(new_desk, **options)
    done = desk.orch("submit", "train")
    run_id = done.stdout.strip()
    desk.orch("wait")
    first, main = sorted(desk.runs(), key=lambda run: run["run_id"])
    assert (first["job"], main["job"], main["run_id"]) == ("train.canary", "train", run_id)
    assert (first["verdict"], first["outcome"], first["accuracy"]) == (
        "succeeded", "unverified", 0.8,
    )  # fmt: skip
    assert first["snapshot"] == main["snapshot"]
    assert main["supersedes"] is None
    shown = desk.show()
    assert shown["run_id"] == run_id  # the latest run is no canary
    about = canary_finding(shown)["ours"]
    assert (about["run_id"], about["verdict"], about["accuracy"]) == (
        first["run_id"], "succeeded", 0.8,
    )  # fmt: skip
    assert about["estimate"] == pytest.approx(100 * about["seconds"])
    assert "the canary passed" in done.stderr


def test_the_run_has_the_code_data_and_commit_of_its_canary_whatever_is_edited_meanwhile(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    began, go = tmp_path / "began", tmp_path / "go"
    look = "cat m.txt only_main.txt $ORCH_DATA/texts/a"
    spec = {
        "command": look,
        "canary": {"command": f"{look}; touch {began}; until test -e {go}; do sleep 0.05; done"},
        "data": {"texts": {"from": str(tmp_path / "texts")}},
    }
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a").write_text("old data\n")
    old = {"m.txt": "old code\n", "only_main.txt": "and its file\n"}
    desk = new_desk({"train": spec, "other": {"command": "true"}}, files=old, git=True)
    commit = run_git(desk.project, "rev-parse", "HEAD").strip()
    process = desk.start("submit", "train")
    until(began.exists)
    run_git(desk.project, "checkout", "-q", "-b", "exp")
    (desk.project / "m.txt").write_text("new code\n")
    (desk.project / "only_main.txt").unlink()
    commit_all(desk.project, "an experiment")
    (tmp_path / "texts" / "a").write_text("new data\n")
    desk.submit("other")  # the host's copy of this project is a newer one now
    go.touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    desk.orch("wait", "train")
    assert desk.orch("tail", "train").stdout == "old code\nand its file\nold data\n"
    canary, run = desk.show("train.canary"), desk.show(out.strip())
    for key in ("snapshot", "data", "git_commit", "git_dirty"):
        assert run[key] == canary[key]
    assert (run["git_commit"], run["git_dirty"]) == (commit, False)


@pytest.mark.parametrize(
    ("canary", "words"),
    [
        ({"command": "echo no such thing; exit 3"}, ["failed", "exit code 3", "no such thing"]),
        ({"command": "sleep 60", "time": "1s"}, ["killed", "time limit"]),
        ({"command": "echo '{\"accuracy\": NaN}' > results/metrics.json"}, ["invalid_result"]),
        ({"command": "true", "expect": {"accuracy": {"min": 0.5}}}, ["invalid_result", "missing"]),
        ({"expect": {"accuracy": {"min": 0.9}}}, ["below_target", "0.9"]),
    ],
)
def test_a_failing_canary_stops_the_submit(
    canary: dict[str, Any], words: list[str], new_desk: MakeDesk
) -> None:
    desk = with_canary(new_desk, canary)
    done = desk.orch("submit", "train", code=5)
    assert done.stdout == ""
    assert_clear(done, "canary failed", *words)
    (only,) = desk.runs()
    assert only["job"] == "train.canary"
    assert (
        json.loads(desk.orch("check", "train", "--canary", "--json", code=5).stdout)["ok"] is False
    )
    run_id = desk.submit("train", "--force")
    shown = desk.show(run_id)
    assert shown["forced"] is True
    assert canary_finding(shown)["severity"] == "error"


def test_a_few_examples_of_one_class_do_not_fail_a_canary_unless_it_expects_more(
    new_desk: MakeDesk,
) -> None:
    one = '{"accuracy": 0.5, "confusion_matrix": [[8, 0], [8, 0]]}'
    write = f"echo '{one}' > results/metrics.json"
    desk = with_canary(new_desk, {"command": write})
    desk.orch("check", "train", "--canary")
    expects = {"command": write, "expect": {"predictions": "not-degenerate"}}
    desk.spec("train", {**SPEC, "canary": expects})
    assert "degenerate" in desk.orch("check", "train", "--canary", code=5).stdout


def test_no_canary_starts_at_once_and_a_refused_config_runs_none(new_desk: MakeDesk) -> None:
    desk = with_canary(new_desk, {"command": "false"})
    run_id = desk.submit("train", "--no-canary")
    assert_clear(desk.orch("retry", run_id, code=5), "--no-canary")
    desk.orch("retry", run_id, "--no-canary")
    jobs = sorted(run["job"] for run in desk.runs())
    assert jobs == ["train", "train", "train.canary"]
    desk.spec("train", {**SPEC, "rules": ["steps < 10"]})
    desk.orch("submit", "train", code=5)
    assert sorted(run["job"] for run in desk.runs()) == jobs


def test_a_run_longer_than_its_limit_is_foreseen(new_desk: MakeDesk) -> None:
    desk = with_canary(new_desk, {"command": "sleep 1", "scale": "steps"})
    report = json.loads(desk.orch("check", "train", "--canary", "--json").stdout)
    (warning,) = [each for each in report["findings"] if each["severity"] == "warning"]
    assert "time limit is 5 min" in warning["message"]
    told = '{"estimate": {"seconds": 60, "disk_bytes": 900000000000000}}'
    desk.spec("train", {**SPEC, "canary": {"command": f"echo '{told}' > results/metrics.json"}})
    report = json.loads(desk.orch("check", "train", "--canary", "--json").stdout)
    (warning,) = [each for each in report["findings"] if each["severity"] == "warning"]
    assert "900000.0 GB of results" in warning["message"]


def test_guards_watch_the_canary_too(new_desk: MakeDesk) -> None:
    lines = 'echo \'{"step": 1, "loss": 99}\' > results/metrics.jsonl'
    spec = {**SPEC, "guards": [{"metric": "loss", "max": 9}], "canary": {"command": lines}}
    desk = new_desk({"train": spec})
    assert "in the canary: loss is 99 at step 1" in desk.orch("check", "train", "--canary").stdout


def test_ctrl_c_during_a_canary_starts_nothing_and_names_it(new_desk: MakeDesk) -> None:
    desk = with_canary(new_desk, {"command": "sleep 60"})
    process = desk.start("submit", "train")
    (row,) = until(lambda: [row for row in desk.rows() if row[1] == "running"], 30)
    until(lambda: of_run(row[0]))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert f"orch cancel {row[0]}" in err
    assert len(desk.runs()) == 1
    desk.orch("cancel", row[0])


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_cancel_of_the_job_ends_its_canary_and_starts_nothing(
    earlier: bool, force: list[str], new_desk: MakeDesk
) -> None:
    desk = with_canary(new_desk, {"command": "sleep 60"})
    if earlier:
        desk.submit("train", "--no-canary")
        desk.orch("wait", "train")
    known = len(desk.rows())
    process = desk.start("submit", "train", *force)
    (row,) = until(lambda: [row for row in desk.rows() if row[1] == "running"], 30)
    until(lambda: of_run(row[0]))
    if not earlier:
        assert_clear(desk.orch("tail", "train", code=3), "its canary", row[0])
    done = desk.orch("cancel", "train")
    assert f"{row[0]}, the canary of train, is meant" in done.stderr
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (5, "")
    assert f"its canary {row[0]} was cancelled; nothing else was started" in err
    assert len(desk.rows()) == known + 1
    assert not of_run(row[0])


def test_a_canary_that_passed_before_its_cancel_came_is_followed_by_nothing(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    desk = with_canary(new_desk, {"command": f"until test -e {go}; do sleep 0.05; done; {PASS}"})
    process = desk.start("submit", "train")
    (row,) = until(lambda: [row for row in desk.rows() if row[1] == "running"], 30)
    with Ledger.open(desk.home / "state" / "orch" / "ledger.db") as ledger:
        ledger.event(row[0], "2026-11-27T10:00:00Z", CANCEL_ASKED, {})
    go.touch()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (5, "")
    assert "was cancelled" in err
    assert [row[2] for row in desk.rows()] == ["succeeded"]


def test_a_cancel_means_the_open_run_and_names_the_canary_that_goes_on_too(
    new_desk: MakeDesk,
) -> None:
    desk = with_canary(new_desk, {"command": "sleep 60"})
    desk.spec("train", {**SPEC, "command": "sleep 60", "canary": {"command": "sleep 60"}})
    run_id = desk.submit("train", "--no-canary")
    process = desk.start("submit", "train")
    canary = until(lambda: [row[0] for row in desk.rows() if row[0] != run_id], 30)[0]
    until(lambda: of_run(canary))
    done = desk.orch("cancel", "train")
    assert f"orch cancel {canary}" in done.stderr
    assert desk.show(run_id)["verdict"] == "cancelled"
    desk.orch("cancel", canary)
    process.communicate(timeout=30)
    assert process.returncode == 5
    assert len(desk.rows()) == 2


def test_check_canary_without_one_in_the_spec_is_a_usage_error(new_desk: MakeDesk) -> None:
    desk = new_desk()
    assert "no `canary:`" in desk.orch("check", "train", "--canary", code=2).stderr
