"""What an earlier fetch brought and the result has not: beside the run's folder, nothing lost."""

from __future__ import annotations

import json
from pathlib import Path

from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, until

AGAIN = """
if [ $ORCH_ATTEMPT = 1 ]; then
  mkdir results/sub; echo '{"accuracy": 0.99}' > results/metrics.json; echo old > results/sub/preds
  exit 1
fi
rm -r results/*; echo new > results/final.txt
"""
SWAPPING = """
mkdir results/in; echo x > results/in/f; echo x > results/out; echo there
until test -e {go}; do sleep 0.05; done
rm -r results/*; echo y > results/in; mkdir results/out; echo y > results/out/f
"""


def files_of(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("[!.]*") if p.is_file()}


def checked(desk: Desk, code: int = 0) -> tuple[str, str]:
    told = json.loads(desk.orch("ledger", "verify", "--json", code=code).stdout)["checks"]
    (result,) = [check for check in told if check["check"] == "results"]
    return result["level"], result["text"]


def test_what_only_an_earlier_attempt_left_is_no_part_of_the_result(new_desk: MakeDesk) -> None:
    desk = new_desk({"stale": {"command": AGAIN}})
    run_id = desk.submit("stale")
    desk.orch("wait", code=1)
    desk.orch("fetch-results")
    here = desk.results("stale", run_id)
    assert files_of(here) == {"metrics.json", "sub/preds"}
    desk.orch("resume", run_id)
    desk.orch("wait")
    said = desk.orch("fetch-results").stderr
    earlier = here.parent / "earlier" / run_id
    assert "2 files (metrics.json, sub/preds) of an earlier fetch are no part of its" in said
    assert f"moved to {earlier}" in said
    assert files_of(here) == {"final.txt"}
    assert files_of(earlier) == {"metrics.json", "sub/preds"}
    assert desk.show()["fetched"] == "complete"
    assert checked(desk) == ("ok", "1 file")
    assert "moved to" not in desk.orch("fetch-results").stderr


def test_a_folder_that_became_a_file_and_a_file_a_folder_are_fetched_and_verified(
    new_desk: MakeDesk, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    desk = new_desk({"swap": {"command": SWAPPING.format(go=go)}})
    run_id = desk.submit("swap")
    until(lambda: "there" in desk.orch("tail", "--no-follow").stdout)
    desk.orch("fetch-results")
    here = desk.results("swap", run_id)
    assert files_of(here) == {"in/f", "out"}
    go.touch()
    desk.orch("wait")
    desk.orch("fetch-results")
    assert files_of(here) == {"in", "out/f"}
    assert files_of(here.parent / "earlier" / run_id) == {"in/f", "out"}
    assert checked(desk) == ("ok", "2 files")


def test_a_result_that_was_here_whole_stays_when_the_host_loses_it(new_desk: MakeDesk) -> None:
    desk = new_desk({"made": {"command": "echo a > results/a; echo b > results/b"}})
    run_id = desk.submit("made")
    desk.orch("wait")
    desk.orch("fetch-results")
    there = desk.home / ".orch" / "runs" / run_id / "results"
    (there / "a").unlink()
    said = desk.orch("fetch-results").stderr
    assert "1 file (a) of its results is not on box any more" in said
    assert files_of(desk.results("made", run_id)) == {"a", "b"}
    assert checked(desk) == ("ok", "2 files")


def test_an_orch_yaml_among_earlier_results_makes_no_project(new_desk: MakeDesk) -> None:
    make = 'test $ORCH_ATTEMPT = 2 && rm results/* || { echo "{}" > results/orch.yaml; exit 1; }'
    desk = new_desk({"foreign": {"command": make}})
    run_id = desk.submit("foreign")
    desk.orch("wait", code=1)
    desk.orch("fetch-results")
    desk.orch("resume", run_id)
    desk.orch("wait")
    desk.orch("fetch-results")
    earlier = desk.project / "results" / "foreign" / "earlier" / run_id
    assert files_of(earlier) == {"orch.yaml"}
    within = Desk(desk.home, earlier, desk.env)
    assert run_id in within.orch("ls").stdout
