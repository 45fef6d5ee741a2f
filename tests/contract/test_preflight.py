"""What is known before a run: rules, references, checkpoints and the host."""

from __future__ import annotations

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, assert_clear


def test_a_broken_rule_refuses_unless_waived_and_a_bad_rule_names_its_place(
    new_desk: MakeDesk,
) -> None:
    rule = "warmup < steps"
    spec = {**TRAIN, "config": {"right": 45, "warmup": 500, "steps": 200}, "rules": [rule]}
    desk = new_desk({"short": spec})
    assert_clear(desk.orch("submit", "short", code=5), "relation", rule, "warmup is 500")
    assert desk.rows() == []
    desk.orch("check", "short", "--set", "steps=1000")
    desk.spec("short", {**spec, "rules": [{"rule": rule, "waive": "a smoke run"}]})
    run_id = desk.submit("short")
    desk.orch("wait")
    waived = [f["waived"] for f in desk.show(run_id)["findings"] if f["waived"]]
    assert waived == ["a smoke run"]
    desk.spec("short", {**spec, "rules": ["warmup < stepz"]})
    assert_clear(desk.orch("check", "short", code=2), "character 10", "did you mean `steps`?")
