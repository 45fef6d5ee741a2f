"""A short form of the corpus (`make corpus` runs all of it): a mistake of each kind, for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.corpus.desk import look
from tests.corpus.healthy import HEALTHY
from tests.corpus.mistakes import MISTAKES

CASES = {case.name: case for case in (*MISTAKES, *HEALTHY)}
SHORT = {
    "warmup key missing": "check",
    "ema longer than the run, waived": "check",
    "checkpoint saved with the prefix model.": "check",
    "argmin for argmax": "canary",
    "loss NaN at step 150": "during",
    "collapses to one class at step 90": "during",
    "result never written, exit code 0": "after",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_seeded_mistake_is_caught_when_it_can_be(name: str, tmp_path: Path) -> None:
    assert look(tmp_path, CASES[name]).when == SHORT[name]


@pytest.mark.slow
def test_a_healthy_run_gives_no_alarm(tmp_path: Path) -> None:
    seen = look(tmp_path, CASES["as it is, seed 1"])
    assert (seen.when, seen.warnings) == ("", ())


def test_the_corpus_is_as_large_as_is_said_of_it() -> None:
    assert len(MISTAKES) >= 40
    assert len(HEALTHY) >= 20
    assert len(CASES) == len(MISTAKES) + len(HEALTHY)
