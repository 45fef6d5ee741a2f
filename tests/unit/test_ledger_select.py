from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.domain import Run, RunState
from orchestrator.errors import NotFound
from orchestrator.ledger import Ledger
from orchestrator.ledger.select import open_instead, resolve

HERE, THERE = "/projects/here", "/projects/there"
FIRST = "20261123-091929-123aaaaa"
SECOND = "20261123-091930-456bbbbb"
THIRD = "20261124-101010-789ccccc"
FOREIGN = "20261125-101010-789ddddd"


def run(run_id: str, job: str, project: str = HERE) -> Run:
    at = "2026-11-23T09:19:29.000000Z"
    return Run(run_id, job, project, RunState.INTENT, "c1:0", {}, "nigel", at)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        opened.intend(run(THIRD, "train"))  # written out of order: the id tells the time
        opened.intend(run(FIRST, "train"))
        opened.intend(run(SECOND, "other"))
        opened.intend(run(FOREIGN, "train", THERE))
        yield opened


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        (None, THIRD),
        (FIRST, FIRST),
        (FOREIGN, FOREIGN),
        ("train", THIRD),
        ("other", SECOND),
        ("train~0", THIRD),
        ("train~1", FIRST),
        ("train~", FIRST),
        ("20261123-091930", SECOND),
        ("20261125", FOREIGN),
        ("bbbbb", SECOND),
        ("ddd", FOREIGN),
        ("20261124", THIRD),
    ],
)
def test_a_run_is_meant_by_id_job_start_or_end(
    ledger: Ledger, selector: str | None, found: str
) -> None:
    assert resolve(ledger, selector, HERE).run_id == found


@pytest.mark.parametrize(
    ("selector", "told"),
    [
        ("train~2", "'train~2': job train has only 2 runs"),
        ("train~99999", "has only 2 runs"),
        ("train~x", "no run and no job's run is called 'train~x'"),
        ("train~-1", "no run and no job's run is called"),
        ("train~9999999999", "no run and no job's run is called"),
        ("trian~1", "no run and no job's run is called"),
        ("~1", "no run and no job's run is called '~1'"),
    ],
)
def test_a_run_further_back_than_there_are_runs_is_not_found(
    ledger: Ledger, selector: str, told: str
) -> None:
    with pytest.raises(NotFound) as raised:
        resolve(ledger, selector, HERE)
    assert told in raised.value.message


def test_without_a_project_nothing_means_the_latest_of_all(ledger: Ledger) -> None:
    assert resolve(ledger, None, None).run_id == FOREIGN


def test_a_piece_of_several_ids_is_refused_with_the_candidates(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="more than one") as refused:
        resolve(ledger, "20261123", HERE)
    assert FIRST in refused.value.message
    assert SECOND in refused.value.message
    assert THIRD not in refused.value.message


def test_at_most_ten_candidates_are_listed(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        for second in range(12):
            ledger.intend(run(f"20261123-0919{second:02d}-123aaaaa", "train"))
        with pytest.raises(NotFound) as refused:
            resolve(ledger, "2026", HERE)
    assert refused.value.message.count("-123aaaaa") == 10
    assert "..." in refused.value.message


def test_the_projects_own_runs_come_before_those_of_others(ledger: Ledger) -> None:
    ledger.intend(run("20261126-101010-789ccccc", "x", THERE))
    assert resolve(ledger, "ccccc", HERE).run_id == THIRD


def test_a_job_of_another_project_is_not_meant(ledger: Ledger) -> None:
    ledger.intend(run("20261126-101010-789eeeee", "theirs", THERE))
    with pytest.raises(NotFound):
        resolve(ledger, "theirs", HERE)
    assert resolve(ledger, "theirs", None).run_id == "20261126-101010-789eeeee"


def test_a_jobs_name_comes_before_the_start_of_an_id(ledger: Ledger) -> None:
    ledger.intend(run("20261127-101010-789eeeee", "20261123"))
    assert resolve(ledger, "20261123", HERE).run_id == "20261127-101010-789eeeee"


@pytest.mark.parametrize("piece", ["ddddd", "20261125"])
def test_to_change_a_run_of_another_project_its_whole_id_is_needed(
    piece: str, ledger: Ledger
) -> None:
    assert resolve(ledger, piece, HERE).run_id == FOREIGN
    with pytest.raises(NotFound) as refused:
        resolve(ledger, piece, HERE, to_change=True)
    assert FOREIGN in refused.value.message and THERE in refused.value.message
    assert "whole id" in (refused.value.hint or "")
    assert resolve(ledger, FOREIGN, HERE, to_change=True).run_id == FOREIGN
    assert resolve(ledger, "ccccc", HERE, to_change=True).run_id == THIRD
    assert resolve(ledger, piece, None, to_change=True).run_id == FOREIGN


def test_a_job_that_has_no_run_yet_is_no_piece_of_an_id(ledger: Ledger, tmp_path: Path) -> None:
    project = str(tmp_path)
    assert resolve(ledger, "ddddd", project).run_id == FOREIGN
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "ddddd.yaml").write_text("not even a job")
    with pytest.raises(NotFound, match="job ddddd has no run yet") as refused:
        resolve(ledger, "ddddd", project)
    assert "orch submit ddddd" in (refused.value.hint or "")
    ledger.intend(run("20261126-101010-789eeeee", "ddddd.canary", project))
    with pytest.raises(NotFound, match="its canary 20261126-101010-789eeeee goes on"):
        resolve(ledger, "ddddd", project)
    ledger.intend(run("20261126-101011-789eeeee", "ddddd", project))
    assert resolve(ledger, "ddddd", project).run_id == "20261126-101011-789eeeee"


@pytest.mark.parametrize("selector", ["", "q", "qq", "nothing", "%", "_____", "\udc80", "2026'--"])
def test_what_matches_nothing_is_not_found_and_says_where_to_look(
    ledger: Ledger, selector: str
) -> None:
    with pytest.raises(NotFound) as refused:
        resolve(ledger, selector, HERE)
    assert refused.value.exit_code == 3
    assert "orch ls" in (refused.value.hint or "")


def test_a_misspelt_job_gets_the_nearest_name(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="did you mean `train`"):
        resolve(ledger, "trian", HERE)


def test_an_empty_ledger_says_how_a_run_is_started(tmp_path: Path) -> None:
    empty = Ledger.open(tmp_path / "none.db", readonly=True)
    with empty, pytest.raises(NotFound) as refused:
        resolve(empty, None, HERE)
    assert "orch submit" in (refused.value.hint or "")
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize(
    ("selector", "instead"),
    [("train", FIRST), (None, SECOND), (THIRD, None), ("train~1", None), ("other", None)],
)
def test_a_run_that_never_started_stands_before_no_open_one(
    selector: str | None, instead: str | None, ledger: Ledger
) -> None:
    at = "2026-11-24T10:10:11.000000Z"
    ledger.never_started(THIRD, at, "refused")
    found = open_instead(ledger, selector, HERE, resolve(ledger, selector, HERE))
    assert (found and found.run_id) == instead


def test_without_an_open_run_the_latest_is_meant_as_it_is(ledger: Ledger) -> None:
    ledger.never_started(SECOND, "2026-11-24T10:10:11.000000Z", "refused")
    assert open_instead(ledger, "other", HERE, resolve(ledger, "other", HERE)) is None
