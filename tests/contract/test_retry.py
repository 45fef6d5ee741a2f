"""`orch retry`: a new run of the job as it is today, and what is said of the difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, assert_clear
from tests.helpers.project import make_project


def test_retry_says_what_of_the_config_has_changed_since(new_desk: MakeDesk) -> None:
    desk = new_desk()
    desk.orch("submit", "train", "--set", "right=46", "-f")
    (first,) = [run["run_id"] for run in desk.runs()]
    assert "has changed" not in desk.orch("retry", first, "--dry-run").stderr
    desk.spec("train", {**TRAIN, "config": {"right": 45, "lr": 2.0e-4, "new": 1}})
    dry = desk.orch("retry", first, "--dry-run", "--json")
    document = json.loads(dry.stdout)
    assert (document["started"], document["host"]) == (False, "box")
    told = [f"the config has changed since {first}:", "  lr: 0.0001 -> 0.0002"]
    told.append("  new: (absent) -> 1")
    assert dry.stderr.splitlines() == told
    again = desk.orch("retry", first, "-f")
    assert again.stderr.startswith("\n".join(told))
    assert_clear(desk.orch("retry", first, "--json", code=2), "--dry-run")


def test_an_override_that_fits_no_more_is_called_the_old_runs(new_desk: MakeDesk) -> None:
    desk = new_desk()
    desk.orch("submit", "train", "--set", "lr=0.5", "-f")
    desk.spec("train", {**TRAIN, "config": {"right": 45}})
    done = desk.orch("retry", "train", code=2)
    assert_clear(done, "the old run's override lr=0.5", "no key `lr`", "orch submit train")
    assert "--set:" not in done.stderr


def test_retry_stays_on_the_old_runs_host_and_its_help_says_so(new_desk: MakeDesk) -> None:
    desk = new_desk()
    told = " ".join(desk.orch("retry", "--help").stdout.split())
    assert "default: where it was" in told
    assert "ORCH_HOST" not in told


def test_what_was_forced_stays_forced_and_what_is_new_refuses(new_desk: MakeDesk) -> None:
    ruled = {**TRAIN, "rules": ["right < 10"]}
    desk = new_desk({"train": ruled})
    desk.orch("submit", "train", code=5)
    first = desk.submit("train", "--force", "--tag", "sweep=a", "--note", "diverged, do not use")
    done = desk.orch("retry", first)
    assert f"was forced for {first} too" in done.stderr
    again = desk.show(done.stdout.strip())
    assert (again["forced"], again["tags"], again["note"]) == (True, {"sweep": "a"}, None)
    desk.spec("train", {**ruled, "rules": ["right < 10", "lr > 1"]})
    known = len(desk.runs())
    assert "forced for" not in desk.orch("retry", first, "--dry-run", code=5).stderr
    refused = desk.orch("retry", first, code=5)
    assert_clear(refused, "1 finding refuses", "--force")
    assert len(desk.runs()) == known
    assert desk.show(desk.orch("retry", first, "--force").stdout.strip())["forced"] is True


def test_a_retry_of_a_run_that_was_not_forced_is_refused_like_a_submit(new_desk: MakeDesk) -> None:
    desk = new_desk()
    first = desk.submit("train")
    desk.spec("train", {**TRAIN, "rules": ["right < 10"]})
    desk.orch("retry", first, code=5)


@pytest.fixture
def elsewhere(desk: Desk, tmp_path: Path) -> Desk:
    """Another project of the same user, with another job of the same name."""
    other = make_project(tmp_path / "other", {"train": "echo THE OTHER PROJECT"}, git=False)
    return Desk(desk.home, other)


def test_a_retry_from_another_project_starts_the_runs_own_job(desk: Desk, elsewhere: Desk) -> None:
    first = desk.submit("train", "--set", "right=46")
    desk.orch("wait", first)
    done = elsewhere.orch("retry", first, "-f")
    assert f"{first} is a run of the project {desk.project}" in done.stderr
    assert "first byte of the job" in done.stdout
    assert "has changed" not in done.stderr
    again = desk.show(done.stdout.splitlines()[0])
    assert (again["supersedes"], again["config"]["right"], again["host"]) == (first, 46, "box")
    assert elsewhere.runs() == []
    assert "a run of the project" not in desk.orch("retry", first, "--dry-run").stderr


def test_a_retry_of_a_run_whose_project_is_not_here_is_refused(
    desk: Desk, elsewhere: Desk, tmp_path: Path
) -> None:
    first = desk.submit("train", "--set", "right=46")
    desk.orch("wait", first)
    moved = desk.project.rename(tmp_path / "moved")
    gone = elsewhere.orch("retry", first, code=2)
    again = "orch submit train --set right=46 --host box"
    assert_clear(gone, str(desk.project), str(elsewhere.project), again)
    moved.rename(desk.project)
    for path in (desk.home / "state" / "orch").glob("ledger.db*"):
        path.unlink()
    (elsewhere.project / "orch.yaml").write_text((desk.project / "orch.yaml").read_text())
    elsewhere.orch("ledger", "rebuild")
    told = elsewhere.orch("retry", first, code=2)
    assert_clear(told, "only that host says", str(elsewhere.project), f"cd {desk.project}")
    assert len(desk.rows()) == 1
    desk.orch("retry", first, "-f")
