"""Rules over a config: what holds, what does not, and what is no rule at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.checks import relations
from orchestrator.domain import Severity
from orchestrator.expressions import BadExpression
from orchestrator.jobspec import Rule

CONFIG: dict[str, Any] = {
    "training": {"max_steps": 1000, "eps_min": 1e-3, "eps_max": 1.0, "ema": None},
    "lr_scheduler": {"num_warmup_steps": 2500, "name": "constant"},
    "optim": {"betas": [0.9, 0.999], "lr-max": 3e-4},
    "flag": True,
    "true_name": "x",
}


def holds(text: str, config: dict[str, Any] = CONFIG) -> bool:
    return not relations.check(config, [Rule(text)])


@pytest.mark.parametrize(
    "text",
    [
        "training.eps_min < training.eps_max",
        "0 < training.eps_min < training.eps_max <= 1",
        "lr_scheduler.num_warmup_steps > training.max_steps",
        "lr_scheduler.num_warmup_steps / 2 == 1250",
        "training.max_steps % 100 == 0 and training.max_steps // 3 == 333",
        "2 ** 10 == 1024 and -2 + 3 == +1",
        "not flag or training.max_steps > 1",
        "flag and true and not false",
        "training.ema == null",
        'lr_scheduler.name in ["constant", "cosine"]',
        'lr_scheduler.name not in ["linear"]',
        "min(optim.betas) < max(optim.betas)",
        "optim.betas[0] < optim.betas[1]",
        "abs(-1) == 1 and len(optim.betas) == 2 and sum(optim.betas) < 2",
        'key("optim.lr-max") <= 1e-3',
        "round(sqrt(16)) == 4 and ceil(0.1) == 1 and floor(log(3)) == 1",
    ],
)
def test_rule_that_holds_gives_no_finding(text: str) -> None:
    assert holds(text)
    assert not holds(f"not ({text})")


def test_a_broken_rule_tells_the_values_and_the_reason() -> None:
    rule = Rule("lr_scheduler.num_warmup_steps < training.max_steps", "it would never warm up")
    (finding,) = relations.check(CONFIG, [rule])
    assert (finding.severity, finding.rule, finding.refuses) == (Severity.ERROR, "relation", True)
    assert finding.key == "lr_scheduler.num_warmup_steps"
    assert finding.ours == {"lr_scheduler.num_warmup_steps": 2500, "training.max_steps": 1000}
    assert finding.message == (
        "`lr_scheduler.num_warmup_steps < training.max_steps` does not hold: "
        "lr_scheduler.num_warmup_steps is 2500, training.max_steps is 1000 (it would never warm up)"
    )


def test_a_waived_rule_is_kept_with_its_reason_and_does_not_refuse() -> None:
    (finding,) = relations.check(CONFIG, [Rule("flag == false", waive="a short run")])
    assert finding.waived == "a short run"
    assert not finding.refuses


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("training.ema < 1", "not supported"),
        ("lr_scheduler.name < 3", "not supported"),
        ("training.max_steps / 0 > 1", "zero"),
        ("lr_scheduler.name * 1000000000 == 1", "is no number"),
        ("9 ** 9 ** 9 > 1", "out of range"),
        ("optim.betas[7] > 1", "index"),
        ("1e308 * 10 ** 60 * 0 > 1 or log(0) > 1", ""),
    ],
)
def test_values_that_do_not_fit_refuse_in_words(text: str, told: str) -> None:
    (finding,) = relations.check(CONFIG, [Rule(text)])
    assert finding.refuses
    assert told in finding.message


@pytest.mark.parametrize(
    ("text", "position", "told"),
    [
        ("training.max_step > 1", 1, "did you mean `training.max_steps`?"),
        ("1 < training.max_steps and warmup > 1", 28, "no key `warmup`"),
        ("1 < ", 5, "no expression"),
        ("a = 1", 3, "no expression"),
        ("(1", 1, "no expression"),
        ("__import__('os').system('true')", 1, "can be called"),
        ("().__class__", 1, "not allowed"),
        ("open('/etc/passwd')", 1, "can be called"),
        ("min(open)", 5, "no key `open`"),
        ("min(key=1)", 1, "named arguments"),
        ("[x for x in [1]]", 1, "not allowed"),
        ("(lambda: 1)()", 1, "can be called"),
        ("f'{flag}'", 1, "not allowed"),
        ("1 if flag else 2", 1, "not allowed"),
        ("flag is true", 1, "write =="),
        ("b'x' == 1", 1, "not allowed"),
        ("1j > 0", 1, "not allowed"),
        ("optim.betas[0:1]", 1, "not allowed"),
        ("1 + " * 200 + "1", 1, "more than 200 parts"),
        ("(" * 600 + "1" + ")" * 600, 1, "longer than"),
        ("-" * 900 + "1", 1, ""),
        ("'é' == 'é' and wrong", 16, "no key `wrong`"),
    ],
)
def test_what_is_no_rule_is_refused_at_its_place(text: str, position: int, told: str) -> None:
    with pytest.raises(BadExpression) as caught:
        relations.parse(text, CONFIG)
    assert told in str(caught.value)
    if told not in ("", "longer than", "no expression"):  # where python points, by version
        assert caught.value.position == position


@given(st.text(alphabet="ab.()[]<>=!+-*/%,'\"01e \n\\\0flagtruenot", max_size=60))
def test_any_text_is_a_rule_or_is_refused(text: str) -> None:
    try:
        relations.check({"a": 1, "b": [2], "flag": True}, [Rule(text)])
    except BadExpression as error:
        assert error.position >= 0
