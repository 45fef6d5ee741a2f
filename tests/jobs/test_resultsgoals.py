from __future__ import annotations

from typing import Any

import pytest

from jobs import resultsgoals
from jobs.resultsgoals import GOALS, Result


def point(phase: str, step: int, nelbo: float, **more: float) -> dict[str, Any]:
    return {"phase": phase, "phase_step": step, "elapsed_s": 6.0 * step, "val_nelbo": nelbo, **more}


CURVE = [point("train", 1, 5.0)]


def test_a_goal_is_met_missed_or_not_measured_and_the_hour_goes_before_the_minutes() -> None:
    text = resultsgoals.section(
        [
            Result("gpt2", "sst2/cpu", 0.90, 5.0, ()),
            Result("gpt2", "sst2/cpu-hour", 0.81, 50.0, CURVE),
            Result("mdlm-conditional", "sst2/cpu-hour", 0.84, 50.0, ()),
            Result("mdlm-pretrained-fixed", "sst2/cpu", 0.85, 5.25, ()),
        ]
    )
    assert "| `gpt2` | >= 84.0 % | 81.00 %, in 50.0 minutes | missed |" in text
    short = "profile `cpu`, in 5.2 minutes | met |"
    assert f"| `mdlm-pretrained-fixed` | >= 80.0 % | 85.00 %, {short}" in text
    assert f"| 85.00 % (`mdlm-pretrained-fixed`), {short}" in text
    assert text.count("not measured") == sum(goal.tag == "imdb/gpu" for goal in GOALS)
    assert text.count("How `gpt2` learnt (sst2, profile `cpu-hour`)") == text.count("learnt") == 1


LATE = Result("mdlm-conditional", "sst2/cpu-hour", 0.84, 61.0, CURVE, "calibrated")
TOLD = "84.00 % (`mdlm-conditional`, calibrated), in 61.0 minutes: over the hour"


@pytest.mark.parametrize(
    ("more", "cells"),
    [
        ([], f"{TOLD} | missed |"),
        (
            [Result("simple-diffusion", "sst2/cpu-hour", 0.82, 60.0, ())],
            f"82.00 % (`simple-diffusion`), in 60.0 minutes; {TOLD} | missed |",
        ),
        (
            [Result("mdlm-conditional", "sst2/cpu", 0.836, 9.0, ())],
            f"83.60 % (`mdlm-conditional`), profile `cpu`, in 9.0 minutes; {TOLD} | met |",
        ),
        (
            [Result("simple-diffusion", "sst2/cpu-hour", 0.85, 60.0, ())],
            "85.00 % (`simple-diffusion`), in 60.0 minutes | met |",
        ),
    ],
)
def test_what_took_more_than_the_hour_meets_no_goal_but_is_told(
    more: list[Result], cells: str
) -> None:
    text = resultsgoals.section([LATE, *more])
    assert f"| best diffusion model | >= 83.5 % | {cells}" in text


def test_on_a_gpu_there_is_no_hour() -> None:
    text = resultsgoals.section([Result("gpt2", "imdb/gpu", 0.9, 70.0, ())])
    assert "| `gpt2` | >= 88.0 % | 90.00 %, in 70.0 minutes | met |" in text


def test_until_a_gpu_has_run_two_cores_stand_in_if_they_took_no_more_than_the_hour() -> None:
    on_two_cores = [
        Result("simple-diffusion", "imdb/cpu-imdb", 0.87, 40.0, ()),
        Result("mdlm-conditional", "imdb/cpu-imdb", 0.89, 61.0, ()),
        Result("gpt2", "imdb/cpu-imdb", 0.95, 40.0, ()),
    ]
    text = resultsgoals.section([Result("gpt2", "imdb/gpu", 0.9, 4.0, ()), *on_two_cores])
    assert "| `gpt2` | >= 88.0 % | 90.00 %, in 4.0 minutes | met |" in text
    stands = "profile `cpu-imdb`, in 40.0 minutes"
    assert f"| `simple-diffusion` | >= 82.0 % | 87.00 %, {stands} | met |" in text
    late = "89.00 % (`mdlm-conditional`), profile `cpu-imdb`, in 61.0 minutes: over the hour"
    cells = f"87.00 % (`simple-diffusion`), {stands}; {late} | missed |"
    assert f"| best diffusion model | >= 90.2 % | {cells}" in text


def test_a_curve_has_the_last_point_of_each_phase_and_says_where_it_turned() -> None:
    falls = [point("pretrain", step, 9 - step / 100) for step in range(1, 101)]
    rises = [
        point("train", step, 5 + abs(step - 10) / 10, canary_accuracy=0.5) for step in (5, 10, 40)
    ]
    text = resultsgoals.section([Result("gpt2", "sst2/cpu", 0.5, 9.0, [*falls, *rises])])
    lines = [line for line in text.splitlines() if line.startswith(("| pretrain", "| train"))]
    assert 5 <= len(lines) <= resultsgoals.POINTS + 1
    assert "| pretrain | 100 | 10 | 8.000 |  |" in lines
    assert lines[-1] == "| train | 40 | 4 | 8.000 | 50 % |"
    assert "- pretrain: the bound still fell at the last step" in text
    assert "- train: the bound was lowest at step 10 and rose by 3.000 until step 40" in text


def test_the_class_likelihood_is_not_said_to_overfit_the_bound_it_does_not_minimise() -> None:
    curve = [point("class-likelihood", step, float(step)) for step in (1, 2)]
    assert list(resultsgoals.turns(curve)) == []


def test_a_rise_that_chance_explains_is_not_called_one() -> None:
    curve = [point("train", step, nelbo) for step, nelbo in ((1, 6.0), (2, 5.0), (3, 5.005))]
    assert list(resultsgoals.turns(curve)) == ["train: the bound had come to a stand at the end."]
