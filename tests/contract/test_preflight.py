"""What is known before a run: rules, references, checkpoints and the host."""

from __future__ import annotations

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, assert_clear
from tests.helpers.project import commit_all, run_git


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


def test_a_reference_in_a_commit_of_a_clone_is_resolved_and_refuses(new_desk: MakeDesk) -> None:
    config = {"right": 45, "lr_scheduler": {"num_warmup_steps": 500}}
    git = {"git": "../theirs@v1:configs/config.yaml"}
    spec = {**TRAIN, "config": config, "reference": {"config": git, "only": ["lr_scheduler"]}}
    desk = new_desk({"short": spec})
    clone = desk.project.parent / "theirs"
    (clone / "configs" / "lr_scheduler").mkdir(parents=True)
    (clone / "configs" / "config.yaml").write_text(
        "defaults: [_self_, lr_scheduler: warmup]\nsteps: 2500\nout: ${cwd:}\n"
    )
    (clone / "configs" / "lr_scheduler" / "warmup.yaml").write_text("num_warmup_steps: ${steps}\n")
    run_git(clone, "init", "-q", "-b", "main")
    commit_all(clone, "published")
    run_git(clone, "tag", "v1")
    done = desk.orch("submit", "short", code=5)
    assert_clear(done, "lr_scheduler.num_warmup_steps is 500, the reference has 2500")
    desk.orch("check", "short", "--set", "lr_scheduler.num_warmup_steps=2500")
    run_git(clone, "tag", "-d", "v1")
    assert_clear(desk.orch("check", "short", code=2), "no commit v1", "clone or fetch")
