"""What somebody deletes on a host to make room: the next submit works as if it were the first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, take_away

FOLDERS = (
    "runs", "locks", "data", "envs", "agent", "store", "store/objects", "store/parts",
    "store/trees", "store/spares",
)  # fmt: skip


@pytest.fixture
def used(new_desk: MakeDesk, tmp_path: Path) -> Desk:
    """A desk whose host has had a run with a dataset, which was fetched."""
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "words").write_text("some data\n")
    given = {"words": {"from": str(tmp_path / "given")}}
    spec: dict[str, Any] = {"command": 'cat "$ORCH_DATA"/words/words; ls work.py', "data": given}
    desk = new_desk({"reads": spec, "train": TRAIN})
    desk.orch("submit", "train", "-f")
    desk.orch("fetch-results", "train")
    desk.orch("submit", "reads", "-f")
    return desk


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_next_submit_makes_and_sends_anew_what_was_deleted(folder: str, used: Desk) -> None:
    take_away(used.home / ".orch" / folder)
    assert "some data\nwork.py\n" in used.orch("submit", "reads", "-f").stdout
    assert used.show()["verdict"] == "succeeded"
    assert (used.home / ".orch" / folder).stat().st_mode & 0o777 == 0o700


def test_of_a_fetched_run_whose_directory_was_deleted_row_and_results_stay(used: Desk) -> None:
    before = used.show("train")
    take_away(used.home / ".orch" / "runs" / before["run_id"])
    used.orch("reconcile")
    assert used.show("train") == before
    used.orch("ledger", "verify", before["run_id"])
    used.orch("report", "train")
    assert json.loads((Path(before["results_path"]) / "metrics.json").read_text())["n"] == 100
    assert "its folder is gone" in used.orch("tail", "train").stderr
