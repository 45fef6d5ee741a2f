"""What is said of a run whose host does not answer, or has nothing of it any more."""

from __future__ import annotations

import json

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, Desk, assert_clear, job_of, take_away

SILENT = {"ssh": "nobody@127.0.0.1:1"}


def move(desk: Desk, host: dict[str, str]) -> None:
    """The host of the desk's runs is this one from now on."""
    described = {"hosts": {"box": host}, "default_host": "box"}
    (desk.project / "orch.yaml").write_text(json.dumps(described))


@pytest.fixture
def silent(new_desk: MakeDesk) -> Desk:
    """A desk with a running run, on a host that takes no connection any more."""
    desk = new_desk({"long": "sleep 600"})
    job_of(desk.submit("long"))
    desk.orch("reconcile")
    move(desk, SILENT)
    return desk


@pytest.mark.parametrize(
    ("command", "undone"),
    [
        (["cancel"], "it was not cancelled"),
        (["wait"], "how it ends was not learnt"),
        (["wait", "--timeout", "5"], "how it ends was not learnt"),
        (["tail"], "its log was not read"),
        (["tail", "--no-follow"], "its log was not read"),
        (["resume"], "it was not resumed"),
        (["fetch-results"], "nothing was fetched"),
    ],
    ids=" ".join,
)
def test_an_error_of_a_silent_host_names_the_run_and_what_is_true_of_it(
    command: list[str], undone: str, silent: Desk
) -> None:
    ((run_id, state, _),) = silent.rows()
    done = silent.orch(*command, run_id, code=6)
    heard = f"{run_id} was running when last heard of"
    assert_clear(done, "cannot connect", undone, heard, "orch doctor box")
    assert silent.rows() == [(run_id, state, None)]


def test_of_many_runs_of_a_silent_host_each_is_named_and_the_host_told_once(
    silent: Desk,
) -> None:
    move(silent, {"transport": "local"})
    silent.submit("long")
    move(silent, SILENT)
    ids = [row[0] for row in silent.rows()]
    said = silent.orch("fetch-results", *ids, code=6).stderr
    assert said.count("cannot connect") == said.count("orch doctor box") == 1
    for run_id in ids:
        assert said.count(f"nothing was fetched; {run_id} was") == 1
    said = silent.orch("tail", *ids, code=6).stderr
    assert f"not read to the end: {', '.join(ids)}" in said


def test_a_run_that_never_was_on_its_host_is_told_of_without_asking_it(
    new_desk: MakeDesk,
) -> None:
    desk = new_desk({"far": {**TRAIN, "data": {"x": {"at": "/no/such/data"}}}})
    desk.orch("submit", "far", code=5)
    ((run_id, _, verdict),) = desk.rows()
    assert verdict == "never_started"
    move(desk, SILENT)
    assert f"{run_id}: never_started" in desk.orch("tail", run_id, code=1).stderr
    assert desk.orch("tail", run_id, "--no-follow").stdout == ""
    assert_clear(desk.orch("attach", run_id, code=3), run_id, "never started", "orch show")
    assert_clear(desk.orch("resume", run_id, code=5), run_id, "never started", "orch retry")


@pytest.fixture
def ended(new_desk: MakeDesk) -> tuple[Desk, str]:
    desk = new_desk({"bad": 'rm -rf "$ORCH_RESULTS_DIR"; exit 3'})
    run_id = desk.submit("bad")
    desk.orch("wait", run_id, code=1)
    return desk, run_id


def test_results_that_the_job_deleted_are_told_of_with_run_and_host(
    ended: tuple[Desk, str],
) -> None:
    desk, run_id = ended
    done = desk.orch("fetch-results", run_id, code=3)
    assert_clear(done, run_id, "box", "nothing was fetched", f"orch retry {run_id}")


def test_a_run_whose_folder_is_gone_is_named_in_what_can_be_done(ended: tuple[Desk, str]) -> None:
    desk, run_id = ended
    take_away(desk.home / ".orch" / "runs" / run_id)
    done = desk.orch("resume", run_id, code=5)
    assert_clear(done, f"{run_id} was not resumed", "no such run", f"orch retry {run_id}")
    assert_clear(desk.orch("attach", run_id, code=3), run_id, "no such run", f"orch show {run_id}")
