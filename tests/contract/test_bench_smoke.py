"""The speed table's harness runs from end to end; what it measures is nobody's concern here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.bench import table
from tests.bench.__main__ import ROWS, main, measure
from tests.bench.measure import Compared, Fact, Pair, Row, Way, percentile
from tests.bench.world import TINY

pytestmark = pytest.mark.ssh


@pytest.mark.slow
def test_every_row_yields_pairs_or_a_fact() -> None:
    found = list(measure(ROWS, {Way.LOCAL, Way.LOOPBACK}, TINY, 1))

    compared = [result for result in found if isinstance(result, Compared)]
    facts = [result for result in found if isinstance(result, Fact)]
    assert len(found) == len(compared) + len(facts) >= len(ROWS)
    for result in compared:
        assert result.pairs
        for pair in result.pairs:
            assert pair.ours > 0 and pair.theirs > 0, result.work
        assert math.isfinite(result.ratio)
    assert {fact.unit for fact in facts} == {"MB", "s"}
    assert all(fact.value > 1 for fact in facts if fact.unit == "MB")
    assert not [result.work for result in found if "{" in result.work]


def test_a_chosen_row_is_measured_alone_and_the_page_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "docs" / "benchmarks.md"

    code = main(["help", "--tiny", "--pairs", "1", "--write", str(page)])

    assert code == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2 and "orch --help" in shown[1]
    text = page.read_text()
    assert "| `orch --help` |" in text
    assert "python -m tests.bench help --tiny --pairs 1" in text
    assert "orch submit" not in text


def test_a_missed_goal_says_by_how_much() -> None:
    def never(*_: object) -> list[Compared]:
        raise AssertionError

    row = Row("x", "work", "theirs", {Way.FAR: 0.5}, never)
    missed = row.compared(Way.FAR, [Pair(1.0, 1.0), Pair(6.0, 10.0), Pair(0.1, 1.0)])
    met = row.compared(Way.FAR, [Pair(0.5, 1.0)])

    assert missed.ratio == 0.6, "the median of the ratios, not the ratio of the medians"
    assert table.cells(missed)[-1] == "no, 20% over"
    assert table.cells(met)[-1] == "yes"
    assert table.cells(Fact("idle", 16.0, "MB", 15.0))[-1] == "no, 1 MB over"


def test_the_99th_percentile_leaves_one_in_a_hundred_above_it() -> None:
    values = [float(number) for number in range(1, 1001)]
    assert percentile(values, 0.99) == 990.0
    assert percentile(values, 0.5) == 500.0
    assert percentile([3.0], 0.99) == 3.0
