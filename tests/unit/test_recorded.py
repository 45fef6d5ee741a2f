"""What the ledger keeps of a spec: read back whole, and of a host's record only what is data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import recorded
from orchestrator.domain import Host
from orchestrator.jobspec import Baseline, Bound, Expect
from orchestrator.spec import load_job
from orchestrator.usecases.retry import request_for
from tests.helpers.runs import a_run

FULL = Path(__file__).parent.parent / "data" / "full_job.yaml"
OURS = {
    "secrets": ["TOKEN"],
    "retry": {"on": ["lost"], "exit": [], "max": 2},
    "notify": {"by": "controller", "argv": ["sh"], "events": ["end"]},
}


def test_a_recorded_spec_is_read_back_from_json(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "j.yaml").write_text(FULL.read_text(encoding="utf-8"), encoding="utf-8")
    job = load_job(tmp_path, "j")
    record = json.loads(json.dumps(recorded.recorded(job)))
    back = recorded.recorded_of(record)
    assert back.expect == job.expect
    assert (back.metrics_file, back.metrics_primary) == (job.metrics_file, job.metrics_primary)
    assert back.metrics_declared
    assert (back.results_dir, back.results_exclude) == (job.results_dir, job.results_exclude)
    assert back.volatile == job.volatile
    assert back.grace == job.resources.grace == 120.0
    assert recorded.told(record) == (recorded.told(recorded.told(record)[0])[0], [])
    bare = recorded.recorded_of(recorded.recorded(replace(job, metrics_declared=False)))
    assert not bare.metrics_declared


def test_a_record_without_anything_has_the_defaults() -> None:
    assert recorded.recorded_of({}) == recorded.Recorded()
    assert recorded.orders_of({}) == recorded.Orders()
    assert recorded.hearsay_of({}) is None


@pytest.mark.parametrize("grace", [0, -1, 3601, 1e308, float("inf"), True, "120", None])
def test_a_grace_that_no_spec_can_have_is_the_default(grace: object) -> None:
    assert recorded.recorded_of({"grace": grace}).grace == 10.0


def test_a_baseline_comes_back_with_its_tolerance() -> None:
    baseline = Baseline("20261123-100000-000abcde", 0.8, 100)
    record = {"expect": {"tolerance": 0.01, "baseline": {**vars_of(baseline)}}}
    assert recorded.recorded_of(record).expect == Expect(tolerance=0.01, baseline=baseline)


def vars_of(baseline: Baseline) -> dict[str, Any]:
    return {"run_id": baseline.run_id, "accuracy": baseline.accuracy, "n": baseline.n}


def test_orders_are_those_of_a_run_that_was_submitted_from_here() -> None:
    orders = recorded.orders_of(OURS)
    assert (orders.secrets, orders.after_lost) == (("TOKEN",), 2)
    assert orders.notify == OURS["notify"]
    found = recorded.found(OURS, recorded.Hearsay(False, None))
    assert recorded.orders_of(found) == recorded.Orders()


def test_a_host_s_word_forces_no_retry() -> None:
    forced = a_run(forced=True, findings=({"rule": "reference"},))
    assert request_for(forced, None, {}, None, False).forced == forced.findings
    told = replace(forced, spec=recorded.found({}, recorded.Hearsay(False, None)))
    assert request_for(told, None, {}, None, False).forced == ()
    assert request_for(told, None, {}, None, True).force


def test_a_host_s_record_holds_no_orders_and_no_mark() -> None:
    mark = {recorded.FOUND: {"foreign": False, "host": None}}
    kept, odd = recorded.told({**OURS, **mark, "expect": {"metrics": {"f1": {"min": 0.5}}}})
    assert not {*OURS, *mark} & kept.keys()
    assert odd == []
    assert recorded.recorded_of(kept).expect.metrics == {"f1": Bound(0.5, None)}


@pytest.mark.parametrize("host", [None, Host("box", ssh="a@b:22", root="/x", session="tmux")])
def test_the_mark_of_a_found_run_comes_back_from_json(host: Host | None) -> None:
    mark = recorded.Hearsay(True, host)
    assert recorded.hearsay_of(json.loads(json.dumps(recorded.found({}, mark)))) == mark


@pytest.mark.parametrize(
    ("record", "odd"),
    [
        (7, []),
        ({"expect": 7}, ["expect"]),
        ({"expect": {"metrics": {"accuracy": {"min": "x", "max": 1}}}}, ["expect"]),
        ({"expect": {"metrics": {"accuracy": {"min": True}}}}, ["expect"]),
        ({"expect": {"metrics": {"accuracy": {"min": float("nan")}}}}, ["expect"]),
        ({"expect": {"metrics": {"accuracy": {"min": 10**400}}}}, ["expect"]),
        ({"expect": {"predictions": {}}}, ["expect"]),
        ({"expect": {"baseline": {"run_id": "x", "accuracy": 0.5}}}, ["expect"]),
        ({"metrics": {"file": "", "declared": 1}, "results": {"exclude": [1]}},
         ["metrics", "results"]),
        ({"volatile": {"a": 1}}, ["volatile"]),
    ],
)  # fmt: skip
def test_what_is_unlawful_is_absent_and_named(record: Any, odd: list[str]) -> None:
    kept, named = recorded.told(record)
    assert named == odd
    json.dumps(kept, allow_nan=False)
    assert recorded.told(kept) == (kept, [])
