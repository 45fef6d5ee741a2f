"""A config against its reference: what is missing, what differs, what was waived."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.checks import reference
from orchestrator.domain import Finding, Severity
from orchestrator.errors import SpecError
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


# --- files ----------------------------------------------------------------------------------------


def tree(project: Path, *files: ReferenceFile) -> dict[str, Any]:
    return reference.reference_tree(project, Reference(files))


def test_files_are_joined_and_placed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("training: {ema: 0.9999}\n")
    (tmp_path / "b.yml").write_text("num_warmup_steps: 2500\n")
    (tmp_path / "c.json").write_text('{"training": {"eps": 1e-3, "ema": 0.9999}}')
    got = tree(
        tmp_path,
        ReferenceFile("a.yaml"),
        ReferenceFile("b.yml", at="optim.sched"),
        ReferenceFile("c.json"),
    )
    assert got == {
        "training": {"ema": 0.9999, "eps": 0.001},
        "optim": {"sched": {"num_warmup_steps": 2500}},
    }
    spec = Reference((ReferenceFile("a.yaml"),), only=("training",))
    assert short(reference.check({}, spec, tmp_path)) == [("error", "missing", "training.ema")]
    assert reference.check({}, None, tmp_path) == []


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("r.yaml", "a: 1\nb: {c: '${a}'}\n", "r.yaml:2:5: the interpolation '${a}' is not"),
        ("r.yaml", "defaults:\n  - model: small\n", "r.yaml:1:1: a Hydra `defaults:` list"),
        ("r.yaml", "- 1\n", "must hold a map"),
        ("r.yaml", "a: no\n", "write false"),
        ("r.json", '{"a": 1, "a": 2}', "given twice"),
        ("r.json", '{"a": NaN}', "NaN"),
        ("r.json", '{"a": "${b}"}', "interpolation"),
        ("r.py", "a = 1", "must be a .yaml"),
    ],
)  # fmt: skip
def test_reference_that_cannot_be_used_is_a_spec_error(
    tmp_path: Path, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError) as caught:
        tree(tmp_path, ReferenceFile(name))
    assert told in caught.value.message


def test_missing_file_and_disagreeing_files_are_spec_errors(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist"):
        tree(tmp_path, ReferenceFile("none.yaml"))
    (tmp_path / "a.yaml").write_text("x: {y: 1}\n")
    (tmp_path / "b.yaml").write_text("x: {y: 2}\n")
    with pytest.raises(SpecError, match="`x.y` is 2 here and 1"):
        tree(tmp_path, ReferenceFile("a.yaml"), ReferenceFile("b.yaml"))
