from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the jobs extra is not installed")

from jobs.textdiff import validation
from jobs.textdiff.evaluate import Scored

pytestmark = pytest.mark.torch


def scored(*costs: float, tokens: int = 2) -> list[Scored]:
    return [Scored(((cost, cost),), tokens) for cost in costs]


def test_pairs_in_order_are_counted_and_ties_are_half() -> None:
    assert validation.auc([3, 2, 1, 0], [True, True, False, False]) == 1.0
    assert validation.auc([0, 1, 2, 3], [True, True, False, False]) == 0.0
    assert validation.auc([1, 1, 1, 0], [True, False, False, True]) == 0.25


def test_a_model_of_one_class_is_judged_by_which_texts_it_has_made_cheaper() -> None:
    before, mine = scored(8, 6, 8, 6), [True, True, False, False]
    # Every text became cheaper, those of the class more so: no threshold could tell, the ranks do.
    now = scored(4, 3, 5, 5)
    assert validation.learnt(now, mine, before) == {
        "val_nelbo": 7 / 4, "val_nelbo_other": 10 / 4, "canary_auc": 3.5 / 4,
    }  # fmt: skip
    others = [not own for own in mine]
    assert validation.learnt(now, others, before)["canary_auc"] == 0.5 / 4
    assert "canary_auc" not in validation.learnt(now, mine)
    assert validation.learnt(now, [True] * 4, before) == {"val_nelbo": 17 / 8}
