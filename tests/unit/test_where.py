from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.runjson import FIELDS, to_json
from orchestrator.where import Where
from tests.helpers.runs import a_run

RUN = to_json(
    a_run(
        config={"training": {"lr": 3e-4, "steps": [1, 2]}, "a-b": {"c.d": 7}, "name": "größe"},
        accuracy=0.875,
        metrics={"loss": 0.5, "n": 8},
        tags={"kind": "first"},
    )
)


def where(text: str) -> Where:
    return Where(text, frozenset(FIELDS))


@pytest.mark.parametrize(
    "text",
    [
        "accuracy > 0.8 and config.training.lr < 1e-3",
        " accuracy > 0.8",
        "0.8 < accuracy < 0.9",
        "not (accuracy < 0.5 or host == 'other')",
        "job in ['train', 'other'] and job not in ('x',)",
        "loss == 0.5 and metrics.n == 8",
        'tags.kind == "first"',
        'key("config.a-b.c.d") == 7',
        "config.training.lr * 1000 + 0.7 > 0.99 and -accuracy < 0",
        "verdict == null and verdict == None and forced == false",
        "2 in config.training.steps",
        "config.name == 'größe'",
        "1 / config.training.lr > 3000",
        "max(config.training.steps) == 2 and config.training.steps[0] == 1",
        "not (confusion_matrix[0][0] > 1)",
    ],
)
def test_what_holds_matches(text: str) -> None:
    assert where(text)(RUN)


@pytest.mark.parametrize(
    "text",
    [
        "exit_code < 5",  # null is no number
        "config.absent.key > 0",
        "config.absent.key < 0",
        "verdict == unheard_of",  # both are missing
        "config.absent.key == outcome",
        "accuracy > 'text'",
        "unheard_of == 1",
        "1 / (accuracy - accuracy) > 0",
        "host in null",
        "config.name.deeper == 1",
        "config.training.steps[7] == 1",
        "'a' * 9 ** 9 == 1",
        "accuracy + host",
    ],
)
def test_a_run_without_what_is_compared_does_not_match(text: str) -> None:
    assert not where(text)(RUN)


@pytest.mark.parametrize(
    ("text", "position", "word"),
    [
        ("accuracy > > 1", 12, "invalid"),
        ("confg.x > 1", 1, "`config`"),
        ("accuracy > 0.5 and confg.x > 1", 20, "`config`"),
        ("f(1)", 1, "can be called"),
        ('__import__("os").system("true")', 1, "can be called"),
        ("[x for x in y]", 1, "ListComp"),
        ("(lambda: 1)()", 1, "can be called"),
        ("accuracy is null", 1, "`is`"),
        ("1 < ('a' @ 9)", 6, "BinOp"),
        ("f'{accuracy}'", 1, "JoinedStr"),
        ("x[0:1]", 1, "Subscript"),
        ("b'bytes' == 1", 1, "bytes"),
        ("config.größe > 1 and y[0:1]", 22, "Subscript"),
    ],
)
def test_what_is_not_allowed_is_refused_with_its_place(text: str, position: int, word: str) -> None:
    with pytest.raises(UsageError) as refused:
        where(text)
    assert f"position {position}:" in refused.value.message
    assert word in refused.value.message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("state == 'succeeded'", "`state` is never 'succeeded'; did you mean `verdict`?"),
        ("accuracy > 0 and 'ok' != state", "`state` is never 'ok'; did you mean `outcome`?"),
        ("state in ['running', 'failed']", "`state` is never 'failed'; did you mean `verdict`?"),
        ("verdict not in ('lost', 'runing')", "`verdict` is never 'runing'"),
        ("not (verdict == 'running')", "`verdict` is never 'running'; did you mean `state`?"),
        ("outcome == 'degenerated'", "did you mean `degenerate`?"),
        ("key('outcome') == 'none'", "`outcome` is never 'none'"),
    ],
)
def test_a_word_that_a_state_verdict_or_outcome_never_is_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError) as refused:
        where(text)
    assert told in refused.value.message
    assert ("null" in (refused.value.hint or "")) is ("`state`" not in told.partition(";")[0])


@pytest.mark.parametrize(
    "text", ["state != 'finished'", "verdict in ['lost']", "outcome == null", "'fin' in state"]
)
def test_a_word_that_there_is_may_be_compared(text: str) -> None:
    assert where(text)(RUN) in (True, False)


@pytest.mark.parametrize("text", ["", "  ", "(" * 500, "1" * 2000, "+".join("1" * 300), "\0"])
def test_what_is_too_much_or_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        where(text)


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        found: Any = where(text)(RUN)
    except UsageError:
        return
    assert found in (True, False)
