"""A config against its reference: what is missing, what differs, what was waived."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.checks import reference
from orchestrator.domain import Finding, Severity
from orchestrator.jobspec import Reference, ReferenceFile

THEIRS = {
    "training": {"ema": 0.9999, "sampling_eps_min": 1e-3, "sampling_eps_max": 1.0},
    "lr_scheduler": {"num_warmup_steps": 2500},
    "optim": {"lr": 3e-4, "betas": [0.9, 0.999]},
}
OURS = {
    "training": {"ema": 0.9999},
    "lr_scheduler": {"num_warmup_steps": 500},
    "optim": {"lr": 0.0003, "betas": [0.9, 0.999]},
    "seed": 1,
}


def short(findings: list[Finding]) -> list[tuple[str, str, str | None]]:
    return [(f.severity.value, f.rule, f.key) for f in findings]


def test_the_incident_shows_two_missing_keys_and_the_warmup() -> None:
    findings = reference.compare(OURS, THEIRS)
    assert short(findings) == [
        ("error", "missing", "training.sampling_eps_min"),
        ("error", "missing", "training.sampling_eps_max"),
        ("error", "differs", "lr_scheduler.num_warmup_steps"),
        ("info", "extra", "seed"),
    ]
    assert findings[2].ours == 500
    assert findings[2].reference == 2500
    assert findings[2].message == "lr_scheduler.num_warmup_steps is 500, the reference has 2500"
    assert [finding.refuses for finding in findings] == [True, True, True, False]


@pytest.mark.parametrize(
    ("ours", "theirs", "rule"),
    [
        (1, 1.0, None),
        (1e-3, 0.001, None),
        ([1, 2], [1.0, 2.0], None),
        (-0.0, 0, None),
        (2**53 + 1, float(2**53), "differs"),
        (None, None, None),
        (None, 1, "differs"),
        (1, None, "differs"),
        (1, True, "type"),
        (0, False, "type"),
        ("1", 1, "type"),
        ("a", "b", "differs"),
        ([1], [1, 2], "differs"),
        ([1, True], [1, 1], "differs"),
        ([{"a": 1}], [{"a": 1.0}], None),
        ({"a": 1}, 1, "type"),
        (1, {"a": 1}, "type"),
        ([1], 1, "type"),
    ],
)
def test_values_are_compared_as_numbers_but_types_are_kept(
    ours: Any, theirs: Any, rule: str | None
) -> None:
    found = [finding.rule for finding in reference.compare({"k": ours}, {"k": theirs})]
    assert found == ([rule] if rule else [])


def test_missing_map_is_told_key_by_key() -> None:
    findings = reference.compare({}, {"a": {"b": 1, "c": {"d": 2}}, "e": {}})
    assert [finding.key for finding in findings] == ["a.b", "a.c.d", "e"]


def test_only_and_ignore_cover_what_lies_under_them() -> None:
    only = reference.compare(OURS, THEIRS, only=["training", "optim.lr"])
    assert [f.key for f in only] == ["training.sampling_eps_min", "training.sampling_eps_max"]
    rest = reference.compare(OURS, THEIRS, ignore=["training", "seed"])
    assert [f.key for f in rest] == ["lr_scheduler.num_warmup_steps"]
    assert reference.compare({"ab": 1}, {"ab": 2}, ignore=["a"])  # a name is no prefix of another


def test_waived_finding_is_kept_with_its_reason_and_refuses_no_more() -> None:
    waive = {"lr_scheduler.num_warmup_steps": "short run", "training": "not sampled"}
    findings = reference.compare(OURS, THEIRS, only=["training", "lr_scheduler"], waive=waive)
    assert [f.waived for f in findings] == ["not sampled", "not sampled", "short run"]
    assert not any(f.refuses for f in findings)
    assert all(f.severity is Severity.ERROR for f in findings)


def test_waiver_and_only_that_name_nothing_are_warnings() -> None:
    findings = reference.compare(
        THEIRS, THEIRS, only=["training", "traning"], waive={"training.ema": "x"}
    )
    assert short(findings) == [
        ("warning", "unused-only", "traning"),
        ("warning", "unused-waiver", "training.ema"),
    ]


@pytest.mark.parametrize(
    ("ats", "only", "ignore", "tree", "warned"),
    [
        (["nowhere.at"], ["training"], [], {"nowhere": {"at": {"ema": 1}}}, ["nowhere.at"]),
        (["optim"], [], ["optim"], {"optim": {"lr": 1}}, ["optim"]),
        (["a", "training"], ["training"], [], {"a": 1, "training": {"ema": 1}}, ["a"]),
        (["training"], ["training.ema"], [], {"training": {"ema": 1}}, []),
        (["training"], ["training"], ["training.lr"], {"training": {"ema": 1}}, []),
        ([None], ["training"], [], {"lr": 1}, [None]),
        ([None], [], [], {}, [None]),
        ([None], ["training"], [], {"training": {"ema": 1}, "lr": 1}, []),
    ],
)
def test_a_reference_that_compares_nothing_is_a_warning(
    ats: list[str | None],
    only: list[str],
    ignore: list[str],
    tree: dict[str, Any],
    warned: list[str | None],
) -> None:
    files = tuple(ReferenceFile("r.json", at=at) for at in ats)
    spec = Reference(files, tuple(only), tuple(ignore))
    config = {"training": {"ema": 1, "lr": 1}, "optim": {"lr": 1}}
    found = [f for f in reference.check(config, spec, tree) if f.rule == "unused-reference"]
    assert short(found) == [("warning", "unused-reference", at) for at in warned]


TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda x: st.dictionaries(st.sampled_from("abcd"), x, max_size=3) | st.lists(x, max_size=2),
    max_leaves=6,
)
MAPS = st.dictionaries(st.sampled_from("abcd"), TREES, max_size=4)


@given(MAPS, MAPS)
def test_no_findings_means_equal_and_a_config_agrees_with_itself(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    assert reference.compare(ours, ours) == []
    if json.dumps(ours, sort_keys=True) != json.dumps(theirs, sort_keys=True):
        assert reference.compare(ours, theirs)


def test_a_spec_without_a_reference_gives_no_findings() -> None:
    spec = Reference((ReferenceFile("a.yaml"),), only=("training",))
    findings = reference.check({}, spec, {"training": {"ema": 1}, "other": 1})
    assert short(findings) == [("error", "missing", "training.ema")]
    assert reference.check({"a": 1}, None, {}) == []
