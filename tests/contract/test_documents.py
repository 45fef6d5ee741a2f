"""Documents for programs: what a submit would do, what a report was written of."""

from __future__ import annotations

import json

from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, assert_clear


def test_a_dry_run_is_one_document_and_starts_nothing(desk: Desk) -> None:
    told = json.loads(desk.orch("submit", "train", "--dry-run", "--json").stdout)
    assert (told["job"], told["ok"], told["host"], told["started"]) == ("train", True, "box", False)
    assert told["config_hash"].startswith("c1:")
    assert told["code"]["tree"].startswith("s1:")
    assert told["code"]["files"] > 0
    assert told["stages"][0]["argv"][-1] == "python3 work.py"
    assert desk.rows() == []
    assert_clear(desk.orch("submit", "train", "--json", code=2), "--dry-run")


def test_a_dry_run_that_is_refused_says_so_in_its_document(new_desk: MakeDesk) -> None:
    desk = new_desk({"broken": {"command": "true", "config": {"lr": 1}, "rules": ["lr > 2"]}})
    told = json.loads(desk.orch("submit", "broken", "--dry-run", "--json", code=5).stdout)
    assert told["ok"] is False


def test_a_report_tells_its_files_and_the_outcome(desk: Desk) -> None:
    run_id = desk.submit("train")
    desk.orch("wait", run_id)
    told = json.loads(desk.orch("report", "--json", "-o", "r.md").stdout)
    assert told["paths"] == [str(desk.project / "r.md")]
    assert (told["run_id"], told["outcome"], told["accuracy"]) == (run_id, "ok", 0.9)
    assert (desk.project / "r.md").is_file()


def test_a_results_folder_that_holds_code_is_refused(new_desk: MakeDesk) -> None:
    desk = new_desk(
        {
            "whole": {"command": "true", "results": {"dir": "jobs"}},
            "part": {"command": "true", "results": {"dir": "lib"}},
        },
        files={"lib/deep/x.py": "pass"},
    )
    assert_clear(desk.orch("check", "whole", code=2), "results.dir", "whole.yaml:", "code")
    refused = desk.orch("check", "part", code=5).stdout
    assert "lib/deep/x.py" in refused
    assert_clear(desk.orch("submit", "part", code=5), "results-dir")
