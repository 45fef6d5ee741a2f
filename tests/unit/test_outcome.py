"""What a result file is worth, whatever its bytes are."""

from __future__ import annotations

import json
import math
import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.checks.binomial import EXACT_UP_TO, difference, upper_tail
from orchestrator.checks.outcome import judge
from orchestrator.domain import Judged, Outcome
from orchestrator.jobspec import Baseline, Bound, Expect

AT_LEAST_85 = Expect({"accuracy": Bound(min=0.85)}, "not-degenerate")
GOOD = {
    "accuracy": 0.9,
    "confusion_matrix": [[45, 5], [5, 45]],
    "labels": ["negative", "positive"],
    "n": 100,
}


def judged(content: Any, expect: Expect = AT_LEAST_85, **given: Any) -> Judged:
    raw = content if isinstance(content, bytes | None) else json.dumps(content).encode()
    options = {"metrics_declared": True, "primary": "accuracy", "succeeded": True, **given}
    return judge(raw, expect=expect, **options)


def test_the_incident_is_degenerate_with_its_numbers() -> None:
    result = judged(
        {
            "accuracy": 0.578,
            "confusion_matrix": [[578, 0], [422, 0]],
            "labels": ["negative", "positive"],
            "n": 1000,
        }
    )
    assert result.outcome is Outcome.DEGENERATE
    assert result.reasons == (
        "class `positive` was never predicted: 0 of 422",
        "57.8 % is what always answering `negative` gives; p = 0.51",
    )
    assert result.accuracy == 0.578
    assert result.confusion_matrix == ((578, 0), (422, 0))


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"accuracy": 0.578, "majority": 0.578, "n": 1000},
         "57.8 % is what always answering the majority class gives; p = 0.51"),
        ({"accuracy": 0.578, "majority_accuracy": 0.578, "n": 1000}, "p = 0.51"),
        ({"accuracy": 0.59, "majority": 0.578, "n": 1000},
         "59.0 % is no better than the 57.8 % of always answering the majority class; p = 0.23"),
        ({"accuracy": 0.578, "majority": 0.578}, "gives; `n` is not told"),
        ({"accuracy": 0.5, "majority": 0.578}, "no better than the 57.8 %"),
        ({"accuracy": 1.0, "majority": 1.0, "n": 50}, "nothing can be told apart"),
    ],
)  # fmt: skip
def test_a_majority_told_without_a_matrix_is_held_against_the_accuracy(
    metrics: dict[str, Any], told: str
) -> None:
    for expect in (Expect({"accuracy": Bound(min=0.1)}), Expect()):
        result = judged(metrics, expect)
        assert result.outcome is Outcome.DEGENERATE
        assert told in result.reasons[0]
    assert judged(metrics, Expect(predictions="any")).outcome is Outcome.UNVERIFIED
    uncounted = judged(metrics, Expect(), succeeded=False)
    assert uncounted.outcome is Outcome.UNVERIFIED


@pytest.mark.parametrize(
    "metrics",
    [
        {"accuracy": 0.65, "majority": 0.578, "n": 1000},
        {"accuracy": 0.58, "majority": 0.578},
        {"accuracy": 0.5, "majority": "negative", "n": 100},
        {"accuracy": 0.5, "majority": 57.8, "n": 100},
        {"accuracy": 0.5, "majority": True},
        {"majority": 0.5, "n": 100},
        {**GOOD, "majority": 0.95},  # the matrix says what the share is
    ],
)
def test_a_majority_that_the_accuracy_beats_or_that_is_none_changes_nothing(
    metrics: dict[str, Any],
) -> None:
    assert judged(metrics, Expect()).outcome is Outcome.UNVERIFIED


def test_good_result_is_ok_and_whole() -> None:
    result = judged(GOOD)
    assert result == Judged(
        Outcome.OK,
        (),
        0.9,
        GOOD,
        ((45, 5), (5, 45)),
        ("negative", "positive"),
    )


def test_nothing_expected_is_unverified() -> None:
    assert judged(GOOD, Expect()).outcome is Outcome.UNVERIFIED
    assert judged(GOOD, Expect(predictions="any")).outcome is Outcome.UNVERIFIED
    assert judged({"loss": 2.5}, Expect()).outcome is Outcome.UNVERIFIED


BIG = "9" * 5000


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b'{"accuracy": 0.9', "not JSON: line 1"),
        (b'{"accuracy": 0.9}}', "not JSON"),
        (b"\xff\xfe", "not UTF-8: byte 0"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"accuracy": NaN}', "holds NaN"),
        (b'{"accuracy": 0.9, "x": {"y": [1, Infinity]}}', "holds Infinity"),
        (b'{"accuracy": 0.9, "x": -Infinity}', "holds -Infinity"),
        (b'{"accuracy": 1e999}', "too large"),
        (b'{"accuracy": 0.9, "accuracy": 0.8}', "`accuracy` is given twice"),
        (b'{"accuracy": 0.9, "x": {"y": 1, "y": 1}}', "`y` is given twice"),
        (f'{{"accuracy": 0.9, "n": {BIG}}}'.encode(), "integer of 5000 digits"),
        (b'{"accuracy": 0.9, "x": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b"[" * 100_000, "deeper"),
        (b'{"x": ' + b"[" * 40 + b"]" * 40 + b"}", "deeper than 32"),
        (b'{"x": "' + b"y" * (4 << 20) + b'"}', "at most 4194304"),
        ([0.9], "not an object"),
        (0.9, "not an object"),
        (b"null", "not an object"),
        ({"accuracy": "0.9"}, "accuracy is '0.9', which is not a number"),
        ({"accuracy": True}, "accuracy is true, which is not a number"),
        ({"accuracy": None}, "accuracy is null, which is not a number"),
        ({"accuracy": [0.9]}, "not a number"),
        ({"accuracy": 97}, "accuracy is 97, outside [0, 1]; if it is a percentage, write 0.97"),
        ({"accuracy": -1}, "accuracy is -1, outside [0, 1]"),
        ({"accuracy": 1.0000001}, "accuracy is 1.0000001, outside [0, 1]"),
        ({**GOOD, "accuracy": 0.89}, "accuracy is 0.89, confusion_matrix gives 0.9 (90 of 100)"),
        ({**GOOD, "accuracy": 0.95}, "accuracy is 0.95, confusion_matrix gives 0.9 (90 of 100)"),
        ({**GOOD, "n": 99}, "n is 99, confusion_matrix counts 100 examples"),
        ({**GOOD, "n": 0}, "n is 0"),
        ({**GOOD, "n": True}, "n is true"),
        ({**GOOD, "n": 100.5}, "n is 100.5"),
        ({**GOOD, "n": -0.0}, "n is -0.0"),
        ({**GOOD, "labels": ["a"]}, "labels has 1 name, confusion_matrix has 2 classes"),
        ({**GOOD, "labels": ["a", "a"]}, "names a class twice"),
        ({**GOOD, "labels": "ab"}, "not a list of names"),
        ({**GOOD, "labels": ["a", None]}, "not a list of names"),
        ({**GOOD, "confusion_matrix": [[1, 2], [3]]}, "row 1 has 1 column"),
        ({**GOOD, "confusion_matrix": [[1, 2, 3], [4, 5, 6]]}, "not square"),
        ({**GOOD, "confusion_matrix": [[45, -5], [5, 45]]}, "row 0 holds -5"),
        ({**GOOD, "confusion_matrix": [[45.5, 5], [5, 45]]}, "row 0 holds 45.5"),
        ({**GOOD, "confusion_matrix": [[-45.0, 5], [5, 45]]}, "row 0 holds -45.0"),
        ({**GOOD, "confusion_matrix": [[1e300, 5], [5, 45]]}, "row 0 holds 1e+300"),
        ({**GOOD, "confusion_matrix": [[45, True], [5, 45]]}, "row 0 holds true"),
        ({**GOOD, "confusion_matrix": [[0, 0], [0, 0]]}, "counts no example"),
        ({**GOOD, "confusion_matrix": [[100]]}, "two classes or more"),
        ({**GOOD, "confusion_matrix": []}, "two classes or more"),
        ({**GOOD, "confusion_matrix": {"a": 1}}, "not a list of rows"),
        ({**GOOD, "confusion_matrix": "x"}, "not a list of rows"),
    ],
    ids=lambda value: repr(value)[:40] if not isinstance(value, str) else "",
)
def test_f84_result_that_cannot_be_true_is_invalid_with_its_reason(content: Any, told: str) -> None:
    for expect in (AT_LEAST_85, Expect()):
        result = judged(content, expect)
        assert result.outcome is Outcome.INVALID_RESULT
        assert result.accuracy is None
        assert told in result.reasons[0]
        assert result.reasons[0].isprintable()
        assert len(result.reasons[0]) < 300


def test_f85_missing_file_is_invalid_when_it_was_promised() -> None:
    assert judged(None).outcome is Outcome.INVALID_RESULT
    assert "missing" in judged(None).reasons[0]
    assert judged(None, Expect(), metrics_declared=True).outcome is Outcome.INVALID_RESULT
    assert judged(None, Expect(), metrics_declared=False) == Judged(Outcome.UNVERIFIED)
    assert judged(None, AT_LEAST_85, metrics_declared=False).outcome is Outcome.INVALID_RESULT


def test_f85_accuracy_of_a_run_that_did_not_succeed_is_not_counted() -> None:
    result = judged(GOOD, succeeded=False)
    assert (result.outcome, result.accuracy) == (Outcome.UNVERIFIED, None)
    assert result.metrics == GOOD
    assert result.reasons == ("the run did not succeed: metrics kept, accuracy not counted",)
    assert judged(None, succeeded=False) == Judged(Outcome.UNVERIFIED)
    torn = judged(b"{", succeeded=False)
    assert (torn.outcome, torn.accuracy) == (Outcome.UNVERIFIED, None)


@pytest.mark.parametrize(
    ("right", "written", "agrees"),
    [
        (900, (0.9, 0.8999, 0.9004, 0.90), True),
        (900, (0.8994, 0.9006, 0.89, 0.91), False),
        (873, (0.873, 0.87, 0.8729), True),
        (873, (0.9, 0.88, 0.874, 0.8723), False),
        (895, (0.89, 0.9), True),  # a half may be rounded either way
        (996, (0.996, 1.0), True),
        (994, (1.0, 1), False),
    ],
)
def test_an_accuracy_may_be_rounded_to_two_digits_or_three(
    right: int, written: tuple[float, ...], agrees: bool
) -> None:
    matrix = [[right - 400, 1000 - right], [0, 400]]
    for accuracy in written:
        result = judged({"accuracy": accuracy, "confusion_matrix": matrix}, Expect())
        told = Outcome.UNVERIFIED if agrees else Outcome.INVALID_RESULT
        assert result.outcome is told, accuracy


def test_whole_numbers_written_as_floats_are_counts_and_no_labels_are_none() -> None:
    metrics = {**GOOD, "confusion_matrix": [[45.0, 5.0], [5.0, 45.0]], "n": 100.0, "labels": []}
    result = judged(metrics)
    assert (result.outcome, result.labels) == (Outcome.OK, ())
    assert result.confusion_matrix == ((45, 5), (5, 45))
    assert all(type(count) is int for row in result.confusion_matrix for count in row)


# --- a primary accuracy that is nested -----------------------------------------------------------

PRIMARY = "eval.accuracy"
ONE_SIDED = {"accuracy": 0.578, "confusion_matrix": [[578, 0], [422, 0]], "n": 1000}


def flat(metrics: dict[str, Any]) -> dict[str, Any]:
    return {f"eval.{name}": value for name, value in metrics.items()}


@pytest.mark.parametrize("lay", [flat, lambda metrics: {"eval": metrics}], ids=["flat", "map"])
@pytest.mark.parametrize(
    ("beside", "outcome", "told"),
    [
        (GOOD, Outcome.OK, ""),
        (ONE_SIDED, Outcome.DEGENERATE, "in `eval`: class `1` was never predicted: 0 of 422"),
        ({"accuracy": 0.578, "majority": 0.578, "n": 99}, Outcome.DEGENERATE, "in `eval`: 57.8 %"),
        ({"accuracy": 0.4}, Outcome.BELOW_TARGET, "eval.accuracy is 0.4"),
        ({"accuracy": 12.0}, Outcome.INVALID_RESULT, "in `eval`: accuracy is 12.0, outside [0, 1]"),
        ({"accuracy": 1.5}, Outcome.INVALID_RESULT, "outside [0, 1]"),
        ({**GOOD, "accuracy": 0.95}, Outcome.INVALID_RESULT, "confusion_matrix gives 0.9"),
        ({**GOOD, "n": 99}, Outcome.INVALID_RESULT, "n is 99"),
        ({**GOOD, "labels": ["a"]}, Outcome.INVALID_RESULT, "in `eval`: labels has 1 name"),
        ({}, Outcome.INVALID_RESULT, "primary metric `eval.accuracy` is missing"),
    ],
)  # fmt: skip
def test_a_nested_primary_accuracy_is_judged_with_what_lies_beside_it(
    lay: Any, beside: dict[str, Any], outcome: Outcome, told: str
) -> None:
    expect = Expect({PRIMARY: Bound(min=0.5)})
    result = judged(lay(beside), expect, primary=PRIMARY)
    assert result.outcome is outcome
    assert told in "; ".join(result.reasons)
    is_true = outcome is not Outcome.INVALID_RESULT
    assert result.accuracy == (beside["accuracy"] if is_true else None)
    if outcome is Outcome.OK:
        assert result.confusion_matrix == ((45, 5), (5, 45))
        assert result.labels == ("negative", "positive")
    unasked = judged(lay(beside), Expect(), primary=PRIMARY)
    assert (unasked.outcome is outcome) is (outcome in (Outcome.DEGENERATE, Outcome.INVALID_RESULT))


def test_beside_a_nested_primary_the_top_level_is_checked_and_not_taken() -> None:
    both = {**ONE_SIDED, "labels": ["a", "b"], "eval": GOOD}
    result = judged(both, Expect(), primary=PRIMARY)
    assert (result.outcome, result.accuracy) == (Outcome.UNVERIFIED, 0.9)
    assert result.labels == ("negative", "positive")
    false = judged({"accuracy": 97, "eval": GOOD}, Expect(), primary=PRIMARY)
    assert (false.outcome, false.accuracy) == (Outcome.INVALID_RESULT, None)
    bare = judged({**ONE_SIDED, "eval": {"accuracy": 0.9}}, Expect(), primary=PRIMARY)
    assert (bare.outcome, bare.accuracy) == (Outcome.DEGENERATE, 0.9)
    assert bare.confusion_matrix == ((578, 0), (422, 0))


def test_a_nested_accuracy_that_is_expected_is_checked_as_well() -> None:
    expect = Expect({PRIMARY: Bound(min=0.5)})
    assert judged({**GOOD, "eval": {"accuracy": 12}}, expect).outcome is Outcome.INVALID_RESULT
    one_sided = judged({**GOOD, "eval": ONE_SIDED}, expect)
    assert (one_sided.outcome, one_sided.accuracy) == (Outcome.DEGENERATE, 0.9)
    assert judged({**GOOD, "eval": {"accuracy": 0.6}}, expect).outcome is Outcome.OK


@pytest.mark.parametrize(
    ("metrics", "bound", "told"),
    [
        ({"accuracy": 0.8499}, Bound(min=0.85), "is 0.8499, below the expected minimum 0.85"),
        ({"accuracy": 0.8499999}, Bound(min=0.85), "is 0.8499999, below the expected minimum 0.85"),
        ({"accuracy": 0.9}, Bound(max=0.5), "accuracy is 0.9, above the expected maximum 0.5"),
        ({"loss": 1}, Bound(min=0.85), "accuracy is missing; expected at least 0.85"),
        ({}, Bound(0.1, 0.2), "expected at least 0.1 and at most 0.2"),
    ],
)  # fmt: skip
def test_missed_bound_is_below_target_with_both_numbers(
    metrics: dict[str, Any], bound: Bound, told: str
) -> None:
    result = judged(metrics, Expect({"accuracy": bound}))
    assert result.outcome is Outcome.BELOW_TARGET
    assert told in result.reasons[0]
    assert result.accuracy == metrics.get("accuracy")


def test_bound_itself_is_met() -> None:
    expect = Expect({"accuracy": Bound(0.85, 0.85)})
    assert judged({"accuracy": 0.85}, expect).outcome is Outcome.OK


def test_every_missed_bound_is_told_and_nested_metrics_are_found() -> None:
    expect = Expect({"dev.f1": Bound(min=0.5), "loss": Bound(max=1), "steps": Bound(min=1)})
    result = judged({"dev": {"f1": 0.4}, "loss": "low", "steps": 2}, expect)
    assert result.outcome is Outcome.BELOW_TARGET
    assert len(result.reasons) == 2
    assert "loss is 'low', which is not a number" in result.reasons[1]


def test_expected_look_at_predictions_needs_a_matrix() -> None:
    result = judged({"accuracy": 0.9})
    assert result.outcome is Outcome.BELOW_TARGET
    assert "no confusion_matrix" in result.reasons[0]


def test_chosen_primary_metric_is_owed() -> None:
    assert "primary metric `f1` is missing" in judged({"accuracy": 0.9}, primary="f1").reasons[0]
    assert judged({"f1": 0.5}, Expect({"f1": Bound(0.4)}), primary="f1").outcome is Outcome.OK
    assert judged({"f1": "x"}, primary="f1").outcome is Outcome.INVALID_RESULT


@pytest.mark.parametrize(
    ("matrix", "told"),
    [
        ([[578, 0], [422, 0]], ["never predicted: 0 of 422", "p = 0.51"]),
        ([[0, 578], [0, 422]], ["class `0` was never predicted: 0 of 578", "no better"]),
        ([[570, 8], [412, 10]], ["class `1` was predicted only 18 times: 10 of 422"]),
        ([[300, 200], [200, 300]], None),
        ([[260, 240], [240, 260]], ["52.0 % is no better than the 50.0 % of always answering"]),
        ([[2, 0], [0, 2]], ["no better than the 50.0 %"]),
        ([[50, 0], [0, 0]], ["all 50 examples are of class `0`"]),
        ([[900, 0, 0], [0, 50, 0], [50, 0, 0]], ["class `2` was never predicted: 0 of 50"]),
        ([[90, 5, 0], [5, 90, 0], [0, 0, 0]], None),
        ([[0, 500], [500, 0]], ["0.0 % is no better"]),
    ],
)
def test_degenerate_is_a_class_unseen_or_no_gain_over_the_majority(
    matrix: list[list[int]], told: list[str] | None
) -> None:
    right = sum(row[at] for at, row in enumerate(matrix))
    metrics = {"accuracy": right / sum(map(sum, matrix)), "confusion_matrix": matrix}
    result = judged(metrics, Expect())
    if told is None:
        assert result.outcome is Outcome.UNVERIFIED
        return
    assert result.outcome is Outcome.DEGENERATE
    for text in told:
        assert any(text in reason for reason in result.reasons), result.reasons
    wanted = judged(metrics, Expect(predictions="any"))
    assert wanted.outcome is Outcome.UNVERIFIED


def test_degenerate_goes_before_below_target_and_invalid_before_both() -> None:
    one_sided = {"accuracy": 0.5, "confusion_matrix": [[50, 0], [50, 0]]}
    assert judged(one_sided).outcome is Outcome.DEGENERATE
    assert judged({**one_sided, "accuracy": 0.9}).outcome is Outcome.INVALID_RESULT


def test_label_from_the_host_cannot_steer_the_terminal() -> None:
    metrics = {**GOOD, "confusion_matrix": [[90, 0], [10, 0]], "labels": ["a", "\x1b[31m\u202e"]}
    result = judged(metrics)
    assert result.outcome is Outcome.DEGENERATE
    assert all(reason.isprintable() and reason.isascii() for reason in result.reasons)


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,0.1aeN-\\ ', max_size=60).map(str.encode))
@settings(max_examples=400)
def test_f84_any_bytes_are_judged(raw: bytes) -> None:
    result = judged(raw)
    assert result.accuracy is None or math.isfinite(result.accuracy)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys((*GOOD, "f1"), JSON)))
@settings(max_examples=400)
def test_f84_any_values_under_the_known_names_are_judged(metrics: dict[str, Any]) -> None:
    result = judged(metrics, primary="f1")
    nested = judged({"f1": metrics, **metrics}, primary="f1.accuracy")
    assert nested.accuracy is None or 0 <= nested.accuracy <= 1
    if result.accuracy is not None:
        assert 0 <= result.accuracy <= 1
    json.dumps(dict(result.metrics), allow_nan=False)


def test_f84_judging_a_large_file_ends_soon() -> None:
    started = time.process_time()
    judged(b'{"x": [' + b"[]," * 1_300_000 + b"[]]}")
    judged(json.dumps({"confusion_matrix": [[9] * 1000] * 1000}).encode())
    assert time.process_time() - started < 5.0


@given(st.integers(1, 60), st.integers(-1, 62), st.integers(1, 99))
def test_tail_is_the_exact_binomial_sum(trials: int, hits: int, percent: int) -> None:
    p = Fraction(percent, 100)
    exact = sum(
        math.comb(trials, k) * p**k * (1 - p) ** (trials - k)
        for k in range(max(hits, 0), trials + 1)
    )
    assert upper_tail(hits, trials, percent / 100) == pytest.approx(
        float(exact), rel=1e-9, abs=1e-14
    )


def test_tail_is_smooth_where_the_normal_curve_takes_over() -> None:
    for trials in (EXACT_UP_TO, EXACT_UP_TO + 1, 10**15):
        half = trials // 2
        assert upper_tail(half, trials, 0.5) == pytest.approx(0.5, abs=1e-3)
        beyond = half + round(2.326 * math.sqrt(trials) / 2)
        assert upper_tail(beyond, trials, 0.5) == pytest.approx(0.01, abs=1e-4)
    assert upper_tail(10, 10, 1.0) == 1.0
    assert upper_tail(1, 10, 0.0) == 0.0


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # Newcombe (1998), table II, 56/70 against 48/80 by method 10.
    assert difference(56 / 70, 70, 48 / 80, 80) == pytest.approx((0.0524, 0.3339), abs=5e-5)


@pytest.mark.parametrize(
    ("base", "tolerance", "outcome"),
    [
        (Baseline("run-1", 0.95, 100), 0.01, Outcome.OK),  # within chance
        (Baseline("run-1", 0.97, 5000), 0.01, Outcome.BELOW_TARGET),
        (Baseline("run-1", 0.97, 5000), 0.08, Outcome.OK),  # tolerated
        (Baseline("run-1", 0.95), 0.01, Outcome.BELOW_TARGET),  # no n to excuse it
        (Baseline("run-1", 0.85, 5000), 0.0, Outcome.OK),
    ],
)
def test_a_regression_is_more_than_tolerated_and_more_than_chance(
    base: Baseline, tolerance: float, outcome: Outcome
) -> None:
    assert judged(GOOD, Expect(tolerance=tolerance, baseline=base)).outcome is outcome
