"""The bad day, replayed from its config and matrix: refused before, stopped during, named after."""

from __future__ import annotations

import json
from typing import Any

from tests.contract.conftest import MakeDesk
from tests.contract.desk import Desk, assert_clear, until

REFERENCE = """
training: {ema: 0.9999, sampling_eps_min: 1.0e-3, sampling_eps_max: 1.0}
lr_scheduler: {name: constant_warmup, num_warmup_steps: 2500}
optim: {lr: 3.0e-4}
"""
# What was trained with: two keys missing, 500 for 2500.
CONFIG = {
    "training": {"ema": 0.9999, "max_steps": 4000},
    "lr_scheduler": {"name": "constant_warmup", "num_warmup_steps": 500},
    "optim": {"lr": 3e-4},
}
RESULT = {"accuracy": 0.578, "confusion_matrix": [[578, 0], [422, 0]],
          "labels": ["negative", "positive"], "n": 1000}  # fmt: skip
NINE_HOURS = f"""
import json, pathlib, time
result = {RESULT!r}
out = pathlib.Path("results")
(out / "metrics.json").write_text(json.dumps(result))
with (out / "metrics.jsonl").open("w") as series:
    series.write(json.dumps({{"step": 500, "loss": 5.1}}) + "\\n")
    evaluated = {{"confusion_matrix": result["confusion_matrix"], "labels": result["labels"]}}
    series.write(json.dumps({{"step": 1000, **evaluated}}) + "\\n")
print("evaluated", flush=True)
if not pathlib.Path("short").exists():
    time.sleep(9 * 3600)
"""
SPEC: dict[str, Any] = {
    "command": "exec python3 finetune.py",
    "config": CONFIG,
    "reference": {"config": "mdlm.yaml", "only": ["training", "lr_scheduler", "optim"]},
    "expect": {"accuracy": {"min": 0.8}, "predictions": "not-degenerate"},
    "guards": [{"predictions": "not-degenerate", "from": 1000, "action": "stop"}],
}


def the_desk(new_desk: MakeDesk) -> Desk:
    return new_desk({"mdlm": SPEC}, files={"mdlm.yaml": REFERENCE, "finetune.py": NINE_HOURS})


def test_before_the_config_is_refused_with_each_key(new_desk: MakeDesk) -> None:
    done = the_desk(new_desk).orch("submit", "mdlm", code=5)
    assert_clear(
        done,
        "missing: training.sampling_eps_min",
        "missing: training.sampling_eps_max",
        "lr_scheduler.num_warmup_steps is 500, the reference has 2500",
    )


def test_during_it_is_stopped_at_the_first_evaluation(new_desk: MakeDesk) -> None:
    desk = the_desk(new_desk)
    run_id = desk.submit("mdlm", "--force")
    until((desk.home / ".orch" / "runs" / run_id / "exit.json").exists, 60)
    desk.orch("wait", code=1)
    shown = desk.show()
    assert shown["verdict"] == "killed"
    assert shown["outcome_reasons"][-1] == (
        "a guard ended it (stop): class `positive` is never predicted at step 1000: 0 of 422"
    )


def test_after_it_is_named_and_told_the_next_time(new_desk: MakeDesk) -> None:
    desk = the_desk(new_desk)
    (desk.project / "short").touch()
    done = desk.orch("submit", "mdlm", "-f", "--force", code=7)
    assert "class `positive` was never predicted: 0 of 422" in done.stderr
    assert "57.8 % is what always answering `negative` gives; p = 0.51" in done.stderr
    shown = desk.show()
    assert (shown["outcome"], shown["accuracy"]) == ("degenerate", 0.578)
    assert shown["confusion_matrix"] == [[578, 0], [422, 0]]
    desk.orch("fetch-results", code=7)
    desk.orch("report", "-o", "incident.md", code=None)
    account = (desk.project / "incident.md").read_text()
    for words in (
        "degenerate",
        "class `positive` was never predicted: 0 of 422",
        "57.8 % is what always answering `negative` gives; p = 0.51",
        "| `training.sampling_eps_min` | `(absent)` | `0.001` | missing |",
        "| `training.sampling_eps_max` | `(absent)` | `1.0` | missing |",
        "| `lr_scheduler.num_warmup_steps` | `500` | `2500` | differs |",
        "| negative | 578 | 0 |",
        "| positive | 422 | 0 |",
    ):
        assert words in account, words
    report = json.loads(desk.orch("check", "mdlm", "--json", code=5).stdout)
    (told,) = [each for each in report["findings"] if each["rule"] == "history"]
    assert "57.8 %, degenerate" in told["message"]
