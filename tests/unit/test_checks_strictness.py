"""What a spec leaves open is told, and refuses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.checks import strictness
from orchestrator.domain import Severity
from orchestrator.jobspec import Bound, Expect, JobSpec, Reference, ReferenceFile, Stage

TIGHT: dict[str, Any] = {
    "name": "j",
    "path": Path("jobs/j.yaml"),
    "stages": (Stage("main", ("x",)),),
    "config": {"a": 1},
    "reference": Reference((ReferenceFile("r.yaml"),)),
    "expect": Expect({"accuracy": Bound(0.8)}, "not-degenerate"),
    "metrics_declared": True,
}


def test_tight_spec_gives_nothing() -> None:
    assert strictness.check(JobSpec(**TIGHT)) == []


@pytest.mark.parametrize(
    ("change", "rule", "key"),
    [
        ({"expect": Expect()}, "no-expect", "expect"),
        ({"expect": Expect(predictions="any")}, "any-predictions", "expect.predictions"),
        ({"metrics_declared": False}, "no-metrics", "metrics"),
        ({"reference": None}, "no-reference", "reference"),
    ],
)
def test_each_gap_is_one_piece_of_information(change: dict[str, Any], rule: str, key: str) -> None:
    (finding,) = strictness.check(JobSpec(**{**TIGHT, **change}))
    assert (finding.severity, finding.rule, finding.key) == (Severity.INFO, rule, key)
    assert not finding.refuses
