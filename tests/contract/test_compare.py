"""`orch compare`: two real runs, their code from the host or from git, their environments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import WORK, Desk, assert_clear, take_away, until
from tests.helpers.project import commit_all


def two_runs(desk: Desk) -> tuple[str, str]:
    """The second has another config and another work.py."""
    ids = []
    for sets in ([], ["--set", "right=40"]):
        ids.append(desk.submit("train", *sets))
        desk.orch("wait", code=None)
        run = desk.home / ".orch" / "runs" / ids[-1]
        until((run / "environment.json").exists)
        with (desk.project / "work.py").open("a") as file:
            file.write("# another line\n")
    return ids[0], ids[1]


def compared(desk: Desk, *runs: str) -> dict[str, Any]:
    return dict(json.loads(desk.orch("compare", *runs, "--json").stdout))


def test_what_differs_is_told_and_what_does_not_is_not(desk: Desk) -> None:
    one, two = two_runs(desk)
    told = compared(desk, one, two)
    assert [row["key"] for row in told["config"]] == ["right"]
    assert told["config"][0]["values"] == {one: 45, two: 40}
    assert told["environment"] == [] and told["missing"] == []
    (change,) = told["code"]
    assert [(each["path"], each["change"]) for each in change["files"]] == [("work.py", "changed")]
    assert change["files"][0]["diff"][-1] == "+# another line"
    assert round(told["accuracy_change"]["difference"], 3) == -0.1
    whole = json.loads(desk.orch("compare", one, two, "--json", "--all").stdout)
    versions = [row for row in whole["environment"] if row["key"] == "python.version"]
    assert versions and versions[0]["values"][one].startswith("3.")
    text = desk.orch("compare", one, two).stdout
    assert "right" in text and "+# another line" in text and "the same: environment" in text


def test_hosts_that_two_projects_call_by_one_name_are_told_apart(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    local = {"transport": "local", "session": "plain"}
    one = new_desk({"job": "echo a"}, host={**local, "root": str(tmp_path / "a")})
    two = new_desk({"job": "echo b"}, host={**local, "root": str(tmp_path / "b")})
    both = [one, Desk(one.home, two.project)]
    runs = [desk.submit("job") for desk in both]
    for desk in both:
        desk.orch("wait")
    (change,) = compared(one, *runs)["code"]
    assert "jobs/job.yaml" in [each["path"] for each in change["files"]]
    assert ", 0 unproven, 0 differs" in one.orch("ledger", "verify", "--all").stdout


def test_pythons_that_are_not_known_are_said_and_neither_alike_nor_different(desk: Desk) -> None:
    runs = two_runs(desk)
    file = desk.home / ".orch" / "runs" / runs[0] / "environment.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "python": {"error": "it did not tell"}}))
    found = compared(desk, *runs)
    assert found["environment"] == []
    assert found["missing"] == [f"python and packages of {runs[0]}: it did not tell"]


def test_with_the_host_gone_what_the_ledger_knows_is_compared(desk: Desk) -> None:
    one, two = two_runs(desk)
    compared(desk, one, two)  # the environments are in the ledger from here on
    take_away(desk.home / ".orch")
    told = compared(desk, one, two)
    assert [row["key"] for row in told["config"]] == ["right"]
    assert told["code"][0]["files"] is None
    assert [words.split(":")[0] for words in told["missing"]] == [
        f"code of {one}",
        f"code of {two}",
    ]


def test_code_of_a_clean_commit_is_read_from_git_when_the_host_lost_it(new_desk: MakeDesk) -> None:
    desk = new_desk(git=True)
    one = desk.submit("train")
    desk.orch("wait")
    (desk.project / "work.py").write_text(WORK + "# another line\n")
    commit_all(desk.project, "another")
    two = desk.submit("train")
    desk.orch("wait")
    take_away(desk.home / ".orch" / "store")
    told = compared(desk, one, two)
    assert [each["path"] for each in told["code"][0]["files"]] == ["work.py"]
    assert told["code"][0]["files"][0]["diff"][-1] == "+# another line"
    assert all("read from git commit" in words for words in told["missing"])
    assert len(told["missing"]) == 2


def test_one_run_is_not_compared_with_itself(desk: Desk) -> None:
    run = desk.submit("train")
    desk.orch("wait")
    assert_clear(desk.orch("compare", run, "train", code=2), "two different runs")
    assert_clear(desk.orch("compare", run, "nothing-like-it", code=3), "nothing-like-it")


@pytest.mark.ssh
def test_accounts_of_runs_on_an_ssh_host_are_those_of_a_local_one(far_desk: Desk) -> None:
    runs = []
    for sets in ([], ["--set", "right=40"]):
        runs.append(far_desk.submit("train", *sets))
        far_desk.orch("wait", code=None)
        far_desk.orch("fetch-results", code=None)
        (far_desk.project / "work.py").write_text(WORK + "# another line\n")
    told = compared(far_desk, *runs)
    assert [row["key"] for row in told["config"]] == ["right"]
    assert told["code"][0]["files"][0]["diff"][-1] == "+# another line"
    page = Path(far_desk.orch("report").stdout.splitlines()[0]).read_text()
    assert "last line without an end" in page and "80.0 %" in page
    checks = json.loads(far_desk.orch("ledger", "verify", "--json").stdout)["checks"]
    assert [check["level"] for check in checks] == ["ok"] * 6
