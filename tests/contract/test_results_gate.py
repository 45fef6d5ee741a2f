"""What a result is worth: its file's forms, outcomes, exit codes, and what preflight refuses."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, assert_clear

GOOD = {"accuracy": 0.9, "confusion_matrix": [[45, 5], [5, 45]], "labels": ["a", "b"], "n": 100}


def text(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


# content of metrics.json (None: no file) -> (outcome, exit code of `wait`, accuracy)
RESULTS: dict[str, tuple[str | bytes | None, str, int, float | None]] = {
    "good": (text(), "ok", 0, 0.9),
    "no matrix to see it": ('{"accuracy": 0.9}', "below_target", 7, 0.9),
    "an integer of 1": (text(accuracy=1, confusion_matrix=[[50, 0], [0, 50]]), "ok", 0, 1.0),
    "missing": (None, "invalid_result", 7, None),
    "empty": ("", "invalid_result", 7, None),
    "torn": (text()[:-5], "invalid_result", 7, None),
    "a list": ("[0.9]", "invalid_result", 7, None),
    "nan": ('{"accuracy": NaN}', "invalid_result", 7, None),
    "infinity": ('{"accuracy": 0.9, "loss": -Infinity}', "invalid_result", 7, None),
    "overflow": ('{"accuracy": 1e999}', "invalid_result", 7, None),
    "text": ('{"accuracy": "0.9"}', "invalid_result", 7, None),
    "flag": ('{"accuracy": true}', "invalid_result", 7, None),
    "null": ('{"accuracy": null}', "invalid_result", 7, None),
    "per cent": ('{"accuracy": 97}', "invalid_result", 7, None),
    "negative": ('{"accuracy": -1}', "invalid_result", 7, None),
    "duplicate key": ('{"accuracy": 0.1, "accuracy": 0.9}', "invalid_result", 7, None),
    "endless integer": ('{"accuracy": 0.9, "x": ' + "9" * 5000 + "}", "invalid_result", 7, None),
    "deep": ('{"accuracy": 0.9, "x": ' + "[" * 9000 + "]" * 9000 + "}", "invalid_result", 7, None),
    "not utf-8": (b'{"accuracy": 0.9, "x": "\xff"}', "invalid_result", 7, None),
    "huge": ('{"accuracy": 0.9, "x": "' + "x" * (5 << 20) + '"}', "invalid_result", 7, None),
    "contradicted": (text(accuracy=0.95), "invalid_result", 7, None),
    "ragged matrix": (text(confusion_matrix=[[45, 5], [50]]), "invalid_result", 7, None),
    "negative count": (text(confusion_matrix=[[95, -5], [5, 5]]), "invalid_result", 7, None),
    "below": (text(accuracy=0.8, confusion_matrix=[[40, 10], [10, 40]]), "below_target", 7, 0.8),
    "all of one class": (
        text(accuracy=0.9, confusion_matrix=[[90, 0], [10, 0]]), "degenerate", 7, 0.9,
    ),
    "the story": (text(accuracy=0.578, confusion_matrix=[[578, 0], [422, 0]], n=1000),
                  "degenerate", 7, 0.578),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    from tests.contract.desk import make_desk

    judge = {**TRAIN, "command": "test -e absent || cp given results/metrics.json"}
    return make_desk(tmp_path_factory.mktemp("shared"), {"judge": judge})


@pytest.mark.parametrize("kind", RESULTS)
def test_the_outcome_of_a_result_file(kind: str, shared: Desk) -> None:
    content, outcome, code, accuracy = RESULTS[kind]
    given, absent = shared.project / "given", shared.project / "absent"
    absent.unlink(missing_ok=True)
    if content is None:
        absent.touch()
    else:
        given.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = shared.orch("submit", "judge", "-f", code=code)
    shown = shared.show()
    assert (shown["verdict"], shown["outcome"], shown["accuracy"]) == (
        "succeeded", outcome, accuracy,
    )  # fmt: skip
    assert outcome in done.stderr
    assert bool(shown["outcome_reasons"]) is (outcome != "ok")
    if kind in ("missing", "the story"):
        for command in (["wait"], ["tail"], ["fetch-results"]):
            shared.orch(*command, code=7)


def test_a_nested_primary_is_the_accuracy_of_the_ledger_and_its_matrix_is_judged(
    new_desk: MakeDesk,
) -> None:
    spec = {
        "command": "cp given results/metrics.json",
        "metrics": {"file": "results/metrics.json", "primary": "eval.accuracy"},
        "expect": {"eval.accuracy": {"min": 0.5}},
    }
    story = {"accuracy": 0.578, "confusion_matrix": [[578, 0], [422, 0]], "n": 1000}
    content = {"accuracy": 0.99, "n": 5, "eval": story}
    desk = new_desk({"nested": spec}, files={"given": json.dumps(content)})
    done = desk.orch("submit", "nested", "-f", code=7)
    assert "accuracy 57.8 % (95 % interval 54.7 to 60.8 %, n = 1000)" in done.stderr
    shown = desk.show()
    assert (shown["outcome"], shown["accuracy"]) == ("degenerate", 0.578)
    assert shown["confusion_matrix"] == story["confusion_matrix"]
    desk.orch("ledger", "verify")


def test_f84_a_fifo_in_place_of_the_result_hangs_nobody(new_desk: MakeDesk) -> None:
    desk = new_desk({"pipe": {**TRAIN, "command": "mkfifo results/metrics.json"}})
    desk.orch("submit", "pipe", "-f", code=7, timeout=30)
    done = desk.orch("fetch-results", code=7, timeout=30)
    assert "metrics.json" in done.stderr
    assert desk.show()["outcome"] == "invalid_result"


def test_f85_a_job_that_fails_after_a_good_result_keeps_it_but_counts_no_accuracy(
    new_desk: MakeDesk,
) -> None:
    fails = {**TRAIN, "command": "python3 work.py; exit 9"}
    desk = new_desk({"fails": fails, "dies": {**TRAIN, "command": "kill -SEGV $$"}})
    desk.orch("submit", "fails", "-f", code=1)
    shown = desk.show()
    assert (shown["verdict"], shown["exit_code"], shown["accuracy"]) == ("failed", 9, None)
    run_id = shown["run_id"]
    desk.orch("fetch-results")
    assert (desk.results("fails", run_id) / "metrics.json").exists()
    assert desk.show()["accuracy"] is None
    desk.orch("submit", "dies", "-f", code=1)
    shown = desk.show()
    assert (shown["verdict"], shown["signal"], shown["exit_code"]) == ("killed", 11, None)


@pytest.mark.parametrize(
    ("command", "verdict", "exit_code"),
    [("exit 0", "succeeded", 0), ("exit 1", "failed", 1), ("exit 255", "failed", 255),
     (["/no/such/program"], "failed", 127), ("kill -KILL $$", "killed", None)],
)  # fmt: skip
def test_how_a_process_ended_is_told_exactly(
    command: Any, verdict: str, exit_code: int | None, new_desk: MakeDesk
) -> None:
    desk = new_desk({"ends": {"command": command}})
    desk.orch("submit", "ends", "-f", code=0 if verdict == "succeeded" else 1)
    shown = desk.show()
    assert (shown["verdict"], shown["exit_code"], shown["outcome"]) == (
        verdict, exit_code, "unverified",
    )  # fmt: skip


def test_a_run_over_its_time_is_killed_and_says_so(new_desk: MakeDesk) -> None:
    desk = new_desk({"long": {"command": "sleep 60", "resources": {"time": "1s"}}})
    desk.orch("submit", "long", "-f", code=1)
    shown = desk.show()
    assert (shown["verdict"], shown["cause"]) == ("killed", "time_limit")
    assert (shown["exit_code"], shown["signal"]) == (None, 15)
    assert "killed (time limit)" in desk.orch("show").stdout
    assert any("time" in reason for reason in shown["outcome_reasons"])


def test_results_that_are_not_there_are_not_found(new_desk: MakeDesk) -> None:
    desk = new_desk({"none": "rm -rf results; rm -rf $ORCH_RESULTS_DIR"})
    run_id = desk.submit("none")
    desk.orch("wait")
    done = desk.orch("fetch-results", code=3)
    assert "results" in done.stderr
    assert not desk.results("none", run_id).exists() or not list(
        desk.results("none", run_id).iterdir()
    )


def test_preflight_refuses_names_the_keys_and_force_is_recorded(new_desk: MakeDesk) -> None:
    spec = {**TRAIN, "reference": {"config": "ref.yaml"}, "config": {"right": 45, "warmup": 500}}
    desk = new_desk({"short": spec}, files={"ref.yaml": "right: 45\nwarmup: 2500\nema: 0.9999\n"})
    done = desk.orch("submit", "short", code=5)
    assert_clear(done, "warmup", "ema", "500", "2500")
    assert done.stdout == ""
    assert desk.rows() == []
    report = json.loads(desk.orch("check", "short", "--json", code=5).stdout)
    assert report["ok"] is False
    found = {f["key"]: f for f in report["findings"] if f["severity"] == "error"}
    assert set(found) == {"warmup", "ema"}
    assert (found["warmup"]["ours"], found["warmup"]["reference"]) == (500, 2500)
    assert {"severity", "rule", "key", "ours", "reference", "message", "waived"} <= set(
        found["ema"]
    )
    run_id = desk.submit("short", "--force")
    desk.orch("wait", run_id)
    shown = desk.show(run_id)
    assert shown["forced"] is True
    assert {f["key"] for f in shown["findings"]} >= {"warmup", "ema"}
    waived = {"config": "ref.yaml", "waive": {"warmup": "short run", "ema": "off"}}
    desk.spec("short", {**spec, "reference": waived})
    report = json.loads(desk.orch("check", "short", "--json").stdout)
    assert {f["waived"] for f in report["findings"] if f["key"]} == {"short run", "off"}


def test_f50_a_config_that_ran_before_is_told_with_what_came_of_it(new_desk: MakeDesk) -> None:
    desk = new_desk()
    run_id = desk.submit("train")
    desk.orch("wait")
    said = desk.orch("check", "train").stdout
    assert run_id in said
    assert "90" in said


CORRUPT = {"noise": os.urandom(8192), "empty": b"", "text": b"not a database", "torn": None}


@pytest.mark.parametrize("kind", CORRUPT)
def test_f56_a_damaged_ledger_is_refused_and_kept_as_it_is(kind: str, desk: Desk) -> None:
    path = desk.home / "state" / "orch" / "ledger.db"
    content = CORRUPT[kind]
    if content is None:
        desk.submit("train")
        desk.orch("wait")
        content = path.read_bytes()
        content = content[:4096] + os.urandom(len(content) - 4096)
        for beside in path.parent.glob("ledger.db-*"):
            beside.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    for command in (["submit", "train"], ["ls"], ["show"], ["ledger", "export"]):
        done = desk.orch(*command, code=11)
        assert_clear(done, str(path))
        assert done.stdout == ""
    assert path.read_bytes() == content


def test_a_result_worse_than_the_best_run_is_a_regression_with_its_interval(
    new_desk: MakeDesk,
) -> None:
    def result(right: int) -> str:
        matrix = [[right, 1000 - right], [1000 - right, right]]
        return json.dumps({"accuracy": right / 1000, "confusion_matrix": matrix, "n": 2000})

    spec = {"command": "cp given results/metrics.json", "config": {"lr": 1},
            "expect": {"against": "best", "tolerance": 0.01}}  # fmt: skip
    desk = new_desk({"judge": spec})
    given = desk.project / "given"
    given.write_text(result(850))
    assert "no earlier run" in desk.orch("check", "judge").stdout
    desk.orch("submit", "judge", "-f")
    best = desk.show()["run_id"]
    assert desk.show()["outcome"] == "unverified"  # there was nothing to be held against
    given.write_text(result(835))  # within chance of the best
    desk.orch("submit", "judge", "-f", "--set", "lr=2")
    assert desk.show()["outcome"] == "ok"
    given.write_text(result(790))
    done = desk.orch("submit", "judge", "-f", "--set", "lr=3", code=7)
    shown = desk.show()
    assert (shown["outcome"], shown["accuracy"]) == ("below_target", 0.79)
    told = f"accuracy 79.0 % is 6.0 points below the 85.0 % of {best} (95 % interval of the loss 3."
    assert told in done.stderr
    assert told in shown["outcome_reasons"][0]
    desk.orch("wait", code=7)
    desk.orch("fetch-results", code=7)
    assert desk.show()["outcome"] == "below_target"
    said = desk.orch("check", "judge", "--set", "lr=4").stdout
    assert f"differs from the best run only in lr (1 -> 4): {best}" in said
    desk.spec("judge", {**spec, "expect": {"against": "nothing-like-it"}})
    assert_clear(desk.orch("submit", "judge", code=2), "expect.against", "nothing-like-it")


def test_best_is_sought_among_runs_of_the_same_data_and_the_same_evaluation(
    new_desk: MakeDesk,
) -> None:
    spec = {
        "command": "cp $ORCH_DATA/d/given results/metrics.json",
        "config": {"lr": 1, "eval": {"draws": 8}},
        "data": {"d": {"from": "d"}},
        "expect": {"against": "best", "same": ["eval"]},
    }
    desk = new_desk({"judge": spec}, files={"d/given": '{"accuracy": 0.9, "n": 2000}'})
    first = desk.submit("judge")
    desk.orch("wait")

    def compared(*more: str) -> str:
        told = json.loads(desk.orch("check", "judge", *more, "--json").stdout)["findings"]
        return "; ".join(each["message"] for each in told if each["rule"] == "baseline")

    assert f"compared with {first}, 90.0 %" in compared("--set", "lr=2")
    assert "no earlier run" in compared("--set", "eval.draws=1")
    desk.spec("judge", {**spec, "expect": {"against": first, "same": ["eval"]}})
    assert "no fair comparison: its eval.draws is other" in compared("--set", "eval.draws=1")
    (desk.project / "d" / "given").write_text('{"accuracy": 0.7, "n": 2000}')
    assert f"{first} is no fair comparison: its data `d` is other" in compared()
    profiles = {"small": {"config": {"lr": 3}}}
    desk.spec("judge", {**spec, "profiles": profiles, "expect": {"against": first}})
    assert "its data `d` is other" in compared()
    assert "no fair comparison: it has no profile, its data" in compared("--profile", "small")
    moved = Desk(desk.home, desk.project.rename(desk.project.with_name("moved")), desk.env)
    told = json.loads(moved.orch("check", "judge", "--json").stdout)["findings"]
    (warned,) = [each for each in told if "no fair" in each["message"]]
    assert f"its project is {desk.project}" in warned["message"]
    moved.project.rename(desk.project)
    desk.spec("judge", spec)
    desk.orch("submit", "judge", "-f")
    assert desk.show()["outcome"] == "unverified"  # 70 % on other data is no regression
    desk.spec("judge", {**spec, "expect": {"against": "best", "same": ["evil"]}})
    assert "the config has no key `evil`" in desk.orch("check", "judge", code=2).stderr


def test_a_matrix_of_ten_thousand_classes_is_an_invalid_result_in_words_and_nothing_is_lost(
    new_desk: MakeDesk,
) -> None:
    work = """
row = b"[" + b",".join([b"0"] * 10000) + b"]"
with open("results/metrics.json", "wb") as file:
    file.write(b'{"accuracy": 0.0, "confusion_matrix": [')
    for _ in range(9999):
        file.write(row + b",")
    file.write(row + b"]}")
"""
    desk = new_desk({"wide": ["python3", "wide.py"]}, files={"wide.py": work})
    run_id = desk.submit("wide")
    desk.orch("wait", code=None)
    desk.orch("fetch-results", code=7)
    shown = desk.show()
    assert (shown["verdict"], shown["outcome"]) == ("succeeded", "invalid_result")
    (reason,) = shown["outcome_reasons"]
    assert "is larger than 4 MiB" in reason and "file of its own" in reason
    (fetched,) = desk.results("wide", run_id).glob("**/metrics.json")
    assert fetched.stat().st_size > 200_000_000


def test_each_run_named_is_fetched_once_and_an_error_stops_none(new_desk: MakeDesk) -> None:
    jobs = {"train": TRAIN, "weak": {**TRAIN, "config": {"right": 30}}}
    desk = new_desk(jobs)
    good, weak = desk.submit("train"), desk.submit("weak")
    for run in (good, weak):
        desk.orch("wait", run, code=None)
    done = desk.orch("fetch-results", "nope", weak, good, "train", "also-nope", code=3)
    assert done.stdout.count("accuracy    90.0 %") == 1
    assert done.stdout.count(f"run         {weak}") == 1
    assert done.stderr.count("fetched and verified") == 2
    assert "'nope'" in done.stderr and "'also-nope'" in done.stderr
    assert [desk.show(run)["fetched"] for run in (good, weak)] == ["complete", "complete"]
    listed = desk.orch("fetch-results", "nope", good, "--json", code=3).stdout
    assert [run["run_id"] for run in json.loads(listed)] == [good]
    assert desk.orch("fetch-results", "nope", "--json", code=3).stdout == ""
    desk.orch("fetch-results", good, weak, code=7)


def test_a_run_that_left_no_file_has_a_folder_with_its_journal(new_desk: MakeDesk) -> None:
    desk = new_desk({"fail": "exit 3"})
    run_id = desk.submit("fail")
    desk.orch("wait", run_id, code=1)
    assert "0 files (0 B) fetched and verified" in desk.orch("fetch-results", run_id).stderr
    folder = desk.results("fail", run_id)
    assert [each.name for each in folder.iterdir()] == [".orch-fetched.jsonl"]
    assert (folder.parent / "latest").resolve() == folder
    assert "0 unproven, 0 differs" in desk.orch("ledger", "verify").stdout
    desk.orch("fetch-results", run_id)


def test_without_symbolic_links_results_are_fetched_all_the_same(desk: Desk) -> None:
    """As on exFAT and some network file systems."""
    run_id = desk.submit("train")
    desk.orch("wait")
    refusing = "import os\ndef symlink(*_, **__): raise PermissionError(1, 'not permitted')\n"
    (desk.home / "sitecustomize.py").write_text(refusing + "os.symlink = symlink\n")
    done = desk.orch("fetch-results", PYTHONPATH=str(desk.home))
    assert "latest cannot be made here" in done.stderr
    assert (desk.results("train", run_id) / "metrics.json").is_file()
    assert desk.show()["fetched"] == "complete"


def test_a_folder_called_latest_is_left_alone_in_so_many_words(desk: Desk) -> None:
    run_id = desk.submit("train")
    desk.orch("wait", run_id)
    latest = desk.results("train", "latest")
    latest.mkdir(parents=True)
    said = desk.orch("fetch-results", run_id).stderr
    assert f"{latest} is no link" in said
    assert not latest.is_symlink()
