"""Documents for programs: what a submit would do, what a report was written of."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

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


def test_a_dry_run_names_the_canary_that_would_run_first(new_desk: MakeDesk) -> None:
    canary = {"command": "echo small", "time": "2m"}
    desk = new_desk({"train": {"command": "echo large", "canary": canary}})
    dry = ["submit", "train", "--dry-run"]
    said = desk.orch(*dry).stdout
    assert "canary   sh -c 'echo small' (first, 2 min at most)\ncommand  sh -c 'echo large'" in said
    told = json.loads(desk.orch(*dry, "--json").stdout)
    assert told["canary"]["argv"][-1] == "echo small" and told["canary"]["time"] == 120
    assert "canary" not in desk.orch(*dry, "--no-canary").stdout
    assert json.loads(desk.orch(*dry, "--no-canary", "--json").stdout)["canary"] is None


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


CALLS = {
    "check": ["check", "train"],
    "submit --dry-run": ["submit", "train", "--dry-run"],
    "retry --dry-run": ["retry", "train", "--dry-run"],
    "report": ["report"],
    "compare": ["compare", "train~1", "train"],
    "gpus": ["gpus", "box"],
    "top": ["top"],
    "jobs": ["jobs"],
    "host ls": ["host", "ls"],
    "doctor": ["doctor", "box"],
    "reconcile": ["reconcile", "--host", "box"],
    "ledger rebuild": ["ledger", "rebuild"],
    "ledger verify": ["ledger", "verify"],
    "ledger import": ["ledger", "import", "other.db"],
    "tag": ["tag", "train"],
    "note": ["note", "train"],
}


def told_of(text: str) -> dict[str, list[str]]:
    """Command -> the keys of its document, or of each of its list, as docs/json.md has them."""
    found = {}
    for line in text.splitlines():
        if line.startswith("| `orch ") and (shape := re.search(r"`{(.*?)}`", line)):
            outer = shape[1]
            while outer != (outer := re.sub(r"(: )?(\[[^][{}]*\]|{[^{}]*})", "", outer)):
                pass
            for name in re.findall(r"`([^`]+)`", line.split("|")[1]):
                found[name.removeprefix("orch ")] = [key.strip() for key in outer.split(",")]
    return found


def test_documents_have_the_keys_that_are_told_of_them(desk: Desk) -> None:
    told = told_of((Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8"))
    assert told.keys() == CALLS.keys()
    for _ in range(2):
        desk.orch("wait", desk.submit("train"))
    ledger = desk.home / "state" / "orch" / "ledger.db"
    (desk.project / "other.db").write_bytes(ledger.read_bytes())
    for name, args in CALLS.items():
        document = json.loads(desk.orch(*args, "--json", code=None).stdout)
        first = document[0] if isinstance(document, list) else document
        assert list(first) == told[name], name


@pytest.mark.parametrize("command", ["ls", "ledger export", "fetch-results"])
def test_lists_of_runs_have_the_keys_of_a_run(desk: Desk, command: str) -> None:
    desk.orch("wait", desk.submit("train"))
    (run,) = json.loads(desk.orch(*command.split(), "--json").stdout)
    assert list(run) == [key for key in desk.show() if key != "events"]


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
