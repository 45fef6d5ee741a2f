from __future__ import annotations

import html.parser
import math
import re
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.compare import CodeChange, CodeFile, FileChange, compare
from orchestrator.domain import Event, Outcome, Run, RunState, Verdict
from orchestrator.report.content import Account, report_of
from orchestrator.report.curves import Curves, Series
from orchestrator.report.figures import spark
from orchestrator.report.html import to_html
from orchestrator.report.mark import is_report, is_untouched, sealed
from orchestrator.report.markdown import to_markdown
from orchestrator.report.svg import (
    Axis,
    Drawn,
    binned,
    line_chart,
    matrix_picture,
    number,
    ticks,
)
from tests.helpers.runs import AT, a_run, an_id

NOW = datetime(2026, 11, 24, tzinfo=timezone.utc)
HOSTILE = "<script>alert(1)</script>\x1b[31m`|\n# \u202e<b>"


def incident(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "state": RunState.FINISHED,
        "verdict": Verdict.SUCCEEDED,
        "exit_code": 0,
        "outcome": Outcome.DEGENERATE,
        "outcome_reasons": ("class 'positive' was never predicted: 0 of 422",),
        "accuracy": 0.578,
        "confusion_matrix": ((578, 0), (422, 0)),
        "labels": ("negative", "positive"),
        "metrics": {"accuracy": 0.578, "n": 1000, "loss": 1.5},
        "started_at": AT,
        "ended_at": "2026-11-23T18:19:29.123456Z",
        "findings": (
            {"severity": "error", "rule": "differs", "key": "lr_scheduler.num_warmup_steps",
             "ours": 500, "reference": 2500, "message": "differs", "waived": None},
            {"severity": "error", "rule": "missing", "key": "training.sampling_eps_max",
             "ours": None, "reference": 1.0, "message": "missing", "waived": "as the paper"},
        ),
    }  # fmt: skip
    return a_run(an_id(2), **{**values, **changes})


def account(run: Run, **more: Any) -> Account:
    events = [Event(run.run_id, 1, AT, "intent", {"host": run.host})]
    return Account(run=run, events=events, now=NOW, **more)


def visible(text: str) -> str:
    """What a browser shows of it, in one line; fails on markup that is not balanced."""
    shown: list[str] = []
    open_: list[str] = []
    void = {"meta", "br", "rect", "line", "circle", "polyline", "polygon"}

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in void:
                open_.append(tag)

        def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            pass

        def handle_endtag(self, tag: str) -> None:
            assert open_.pop() == tag

        def handle_data(self, data: str) -> None:
            if open_ and open_[-1] != "style":
                shown.append(data)

    Reader().feed(text)
    assert open_ == []
    return re.sub(r"\s+", " ", " ".join(shown))


def outside_code(markdown: str) -> str:
    """Without fenced blocks and without spans in backticks, as CommonMark reads them."""
    kept, fence = [], ""
    for line in markdown.splitlines():
        begun = re.match("`{3,}", line)
        if fence:
            fence = "" if line == fence else fence
        elif begun:
            fence = begun[0]
        else:
            kept.append(re.sub(r"(?<!`)(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", line))
    assert fence == ""
    return "\n".join(kept)


def test_the_outcome_and_its_reasons_come_first_in_both_forms() -> None:
    made = report_of(account(incident()))
    for text in (visible(to_html(made)), to_markdown(made)):
        reason = text.index("was never predicted: 0 of 422")
        assert text.index("degenerate") < reason < text.index("What was run")
        assert "57.8 %" in text and "would give 57.8 %" in text
        assert "orch submit train" in text
    shown = visible(to_html(made))
    assert "lr_scheduler.num_warmup_steps 500 2500 differs" in shown
    assert "training.sampling_eps_max (absent) 1.0 waived: as the paper" in shown
    assert "Never predicted: positive." in shown


def test_nothing_a_host_says_becomes_markup_or_steers_a_terminal() -> None:
    run = incident(
        outcome_reasons=(HOSTILE,), labels=(HOSTILE, "b"), note=HOSTILE, job="train",
        config={HOSTILE: HOSTILE}, metrics={HOSTILE: HOSTILE}, tags={"k": HOSTILE},
        findings=({"severity": "error", "rule": "differs", "key": HOSTILE, "ours": HOSTILE},),
    )  # fmt: skip
    curves = Curves()
    curves.series[(HOSTILE, HOSTILE)] = Series(HOSTILE, HOSTILE)
    curves.series[(HOSTILE, HOSTILE)].add(1, 1)
    change = FileChange(HOSTILE, "changed", CodeFile(1, "f", 1, "a"), None, (HOSTILE,))
    other = a_run(an_id(1))
    env = {"python": {"version": HOSTILE, "packages": {HOSTILE: HOSTILE}}, "gpus": [HOSTILE]}
    found = compare([other, run], [env, {}], [CodeChange(run.run_id, False, (change,))], [HOSTILE])
    made = report_of(
        account(run, curves=curves, log=HOSTILE, environment=env, other=other, comparison=found)
    )
    page = to_html(made)
    visible(page)
    tags = {tag.lower() for tag in re.findall(r"<([a-zA-Z]+)", page)}
    assert not tags & {"script", "b>", "img", "iframe", "link", "object"}
    assert "<b>alert" not in page and "<script" not in page
    for text in (page, to_markdown(made)):
        assert "\x1b" not in text and "\u202e" not in text
    assert not re.search(r"(?<!\\)<(script|b)", outside_code(to_markdown(made)))


def test_the_page_needs_no_network_and_no_script() -> None:
    page = to_html(report_of(account(incident())))
    assert "default-src 'none'" in page
    assert not re.search(r"""(src|href|url)\s*[=(]""", page)


def test_a_report_of_the_least_that_can_be_known_is_still_a_report() -> None:
    made = report_of(account(a_run()))
    assert "no accuracy" in visible(to_html(made))
    assert "How to do it again" in to_markdown(made)


@pytest.mark.parametrize(("size", "cells"), [(1, 1), (2, 4), (12, 144), (40, 1600), (64, 4096)])
def test_the_matrix_is_drawn_cell_by_cell_up_to_64_classes(size: int, cells: int) -> None:
    matrix = [[at + other + 1 for other in range(size)] for at in range(size)]
    picture = ET.fromstring(matrix_picture(matrix, [f"class {at}" for at in range(size)]))
    assert len(picture.findall("rect[@fill-opacity]")) == cells


def test_thousands_of_classes_are_a_small_picture_in_which_nothing_is_lost() -> None:
    size = 4_000
    blank = [0] * size
    matrix = [blank] * size
    matrix[17] = [0] * (size - 1) + [3]
    matrix[-1] = [7] + [0] * (size - 1)
    cells, spans = binned(matrix)
    assert (len(cells), len(spans), spans[-1].stop) == (64, 64, size)
    assert (cells[0][63], cells[63][0], sum(map(sum, cells))) == (3, 7, 10)
    run = incident(confusion_matrix=matrix, labels=())
    page = to_html(report_of(account(run)))
    assert len(page) < 200_000
    assert "17 3999 3" in visible(page) and "3999 0 7" in visible(page)


def test_a_class_that_has_no_example_is_no_division_by_zero() -> None:
    made = report_of(account(incident(confusion_matrix=((0, 0), (0, 0)))))
    assert "none" in visible(to_html(made))


@pytest.mark.parametrize(
    "axis", [Axis(0, 1), Axis(-3, 12_000), Axis(1e-6, 3, True), Axis(5, 5.001)]
)
def test_ticks_are_few_and_within_the_axis(axis: Axis) -> None:
    found = ticks(axis)
    assert 2 <= len(found) <= 8
    room = (axis.high - axis.low) * 1e-6
    assert all(axis.low - room <= each <= axis.high + room for each in found)
    assert len({number(each) for each in found}) > 1


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=9), st.booleans())
@example([1e308, -1e308, 1e308], False)
@example([1.7e308, 1.7e308], True)
@example([5e-324, 1.7e308], False)
@example([5e-324, 1e-322], True)
def test_any_values_and_steps_can_be_drawn(values: list[float], across: bool) -> None:
    series = Series("loss", "")
    for at, value in enumerate(values):
        series.add(value if across and math.isfinite(value) else at, value)
    while len(series.buckets) > 2:
        series.buckets[:2] = [series.buckets[0].merged(series.buckets[1])]
    drawn = line_chart([Drawn(series, "c0")], "loss")
    assert "nan" not in drawn.replace('class="nan"', "") and "inf" not in drawn
    assert not series.buckets or len(spark(series)) == len(series.buckets)


def test_the_example_in_the_docs_is_a_page_of_this_kind() -> None:
    data = (Path(__file__).parents[2] / "docs" / "example-report.html").read_bytes()
    page = data.decode("utf-8")
    assert is_untouched(data) and len(data) < 200_000
    assert "default-src 'none'" in page and "mdlm-pretrained" in visible(page)


@pytest.mark.parametrize("write", [to_html, to_markdown])
def test_a_changed_report_is_told_from_one_as_it_was_written(write: Any) -> None:
    text = write(report_of(account(incident(note="größe \ud800"))))
    data = sealed(text)
    assert is_untouched(data) and is_report(data)
    assert b"gr\xc3\xb6\xc3\x9fe" in data
    for changed in (data + b"\n", data.replace(b"57.8", b"97.8"), data[:-1], data[:900]):
        assert is_report(changed) and not is_untouched(changed)
    earlier = text.encode("utf-8", "backslashreplace")  # its mark has no digest
    assert is_report(earlier) and not is_untouched(earlier)
    assert not is_report(b"notes") and not is_untouched(b"notes")
