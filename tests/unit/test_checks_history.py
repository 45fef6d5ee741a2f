"""A config that ran before is told with what became of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.checks import history
from orchestrator.confighash import config_hash
from orchestrator.domain import Outcome, Run, RunState, Severity, Verdict


def run(number: int, **given: Any) -> Run:
    values: dict[str, Any] = {
        "state": RunState.FINISHED,
        "config_hash": "c1:a",
        "verdict": Verdict.SUCCEEDED,
        "outcome": Outcome.OK,
        "created_at": f"2026-11-23T09:00:{number:02d}Z",
        **given,
    }
    values.setdefault("project", "/p")
    return Run(run_id=f"run-{number}", job="j", config={}, host="nigel", **values)


def test_the_incident_would_have_been_told() -> None:
    earlier = run(1, outcome=Outcome.DEGENERATE, accuracy=0.578)
    findings = history.check("c1:a", [earlier, run(2, config_hash="c1:b")], "/p")
    assert [f.message for f in findings] == [
        "this exact config already ran: run-1, 57.8 %, degenerate"
    ]
    assert findings[0].severity is Severity.WARNING
    assert not findings[0].refuses


@pytest.mark.parametrize(
    ("given", "severity", "told"),
    [
        ({"accuracy": 0.9}, Severity.INFO, "ran: run-1, 90.0 %, ok"),
        ({"outcome": Outcome.UNVERIFIED}, Severity.INFO, "ran: run-1, unverified"),
        ({"outcome": Outcome.BELOW_TARGET}, Severity.WARNING, "below_target"),
        ({"outcome": Outcome.INVALID_RESULT}, Severity.WARNING, "invalid_result"),
        ({"verdict": Verdict.FAILED, "outcome": None}, Severity.WARNING, "run-1, failed"),
        ({"verdict": Verdict.OOM, "outcome": Outcome.UNVERIFIED}, Severity.WARNING, "run-1, oom"),
        ({"verdict": Verdict.CANCELLED, "outcome": None}, Severity.INFO, "run-1, cancelled"),
        (
            {"state": RunState.RUNNING, "verdict": None, "outcome": None},
            Severity.INFO,
            "has an open run: run-1 on nigel, running",
        ),
    ],
)
def test_each_end_has_its_weight(given: dict[str, Any], severity: Severity, told: str) -> None:
    (finding,) = history.check("c1:a", [run(1, **given)], "/p")
    assert finding.severity is severity
    assert told in finding.message


def test_latest_come_first_and_the_rest_are_counted() -> None:
    runs = [run(n) for n in range(9)] + [run(0, outcome=Outcome.DEGENERATE)]
    findings = history.check("c1:a", runs, "/p")
    assert [f.message.split()[5] for f in findings[:5]] == [f"run-{n}," for n in (8, 7, 6, 5, 4)]
    assert findings[5].message == "and 5 earlier runs of this config"
    assert findings[5].severity is Severity.WARNING
    assert history.check("c1:none", runs, "/p") == []


def test_a_run_of_another_project_counts_with_its_name_unless_the_config_is_empty() -> None:
    (finding,) = history.check("c1:a", [run(1, project="/other")], "/p")
    assert finding.message == "this exact config already ran: run-1, ok (in /other)"
    empty = config_hash({})
    runs = [run(1, project="/other", config_hash=empty), run(2, config_hash=empty)]
    (finding,) = history.check(empty, runs, "/p")
    assert finding.message == "this exact config already ran: run-2, ok"


def test_one_run_beyond_those_shown_is_one_run() -> None:
    findings = history.check("c1:a", [run(n) for n in range(6)], "/p")
    assert findings[-1].message == "and 1 earlier run of this config"


def test_the_difference_from_the_best_run_is_told_key_by_key() -> None:
    theirs = {"training": {"lr": 1e-3, "steps": 10, "seed": 1}, "ema": 0.9}
    best = replace(run(1, accuracy=0.945), config=theirs)
    ours = {"training": {"lr": 0.001, "steps": 20, "seed": 2}, "new": True}
    (finding,) = history.against_best(ours, best, volatile=["training.seed"])
    assert finding.message == (
        "differs from the best run only in training.steps (10 -> 20), ema (0.9 -> not there), "
        "new (not there -> true): run-1, 94.5 %, ok"
    )
    assert not finding.refuses
    assert history.against_best(theirs, best) == []
    assert history.against_best(ours, None) == []
    many = {f"k{n}": n for n in range(9)}
    (finding,) = history.against_best(many, replace(best, config={}))
    assert "differs from the best run in k0" in finding.message
    assert "and 4 more" in finding.message
