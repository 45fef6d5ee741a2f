from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TextIO

import pytest

from jobs.textdiff import files
from jobs.textdiff.metrics import Console, Phase, Reporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_changing_line_on_a_terminal_and_lines_in_a_log() -> None:
    log, screen = io.StringIO(), Terminal()
    for stream in (log, screen):
        console = Console(stream)
        console.show("10 %")
        console.show("20 %")
        console.say("done")
    assert log.getvalue() == "10 %\n20 %\ndone\n"
    assert screen.getvalue().count("\n") == 1
    assert screen.getvalue().endswith("\r\x1b[Kdone\n")
    Console(silent := io.StringIO(), silent=True).say("x")
    assert silent.getvalue() == ""


class Deaf(io.StringIO):
    """As a pipe whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("stream", [Deaf(), io.TextIOWrapper(io.BytesIO())])
def test_a_console_that_fails_is_no_reason_to_stop(stream: TextIO) -> None:
    console = Console(stream)
    stream.close()
    console.say("a")
    console.show("b")


def test_what_a_stream_has_no_code_for_is_escaped() -> None:
    stream = io.TextIOWrapper(raw := io.BytesIO(), encoding="ascii")
    Console(stream).say("d\xe9j\xe0 \ud800")
    assert raw.getvalue() == b"d\\xe9j\\xe0 \\ud800\n"


def test_points_have_progress_and_an_honest_eta(tmp_path: Path) -> None:
    now = [0.0]
    reporter = Reporter(tmp_path, clock=lambda: now[0], show=lambda line: None)
    reporter.plan([Phase("a", 1.0), Phase("b", 3.0)])
    report = reporter.phase("b")
    for done in (0.0, 0.5, 1.0):
        report(done, loss=1.0, tokens=30)
        now[0] += 10.0
    reporter.close()
    points = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [point["progress"] for point in points] == [0.25, 0.625, 1.0]
    # A resume begins in the middle: what was done before says nothing of the pace.
    assert [point["eta_s"] for point in points] == [None, 10.0, 0.0]
    assert reporter.rates("tokens") == {"b": 4.5}


def test_a_reporter_goes_on_after_the_last_whole_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 41, "phase": "a", "elapsed_s": 1}\n{"step": 4'
    )
    reporter = Reporter(tmp_path, clock=lambda: 0.0, show=lambda line: None)
    reporter.plan([Phase("a", 1.0)])
    reporter.phase("a")(1.0)
    reporter.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [41, 42]


NO_POINTS = [
    '{"step": 1e400, "phase": "b", "elapsed_s": 1}',
    '{"step": 9, "phase": "b", "elapsed_s": NaN}',
    '{"step": 9, "phase": "b", "elapsed_s": 1e400}',
]


def test_the_seconds_of_earlier_attempts_count_and_what_is_no_point_does_not(
    tmp_path: Path,
) -> None:
    points = [("a", 10.0), ("a", 30.0), ("b", 35.0), ("b", 5.0), ("b", 25.0)]  # started twice
    lines = [
        json.dumps({"step": step, "phase": phase, "elapsed_s": elapsed})
        for step, (phase, elapsed) in enumerate(points)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, "[1]", "{torn}", *NO_POINTS]) + "\n")
    now = iter([0.0, 100.0, 107.0, 107.0])
    reporter = Reporter(tmp_path, clock=lambda: next(now), show=lambda line: None)
    reporter.plan([Phase("a", 1.0), Phase("b", 1.0)])
    reporter.phase("b")(0.5, tokens=14)
    reporter.close()
    assert reporter.earlier == 60.0
    assert reporter.seconds == {"a": 30.0, "b": 37.0}
    assert reporter.rates("tokens") == {"b": 2.0}


def test_a_long_start_after_a_short_attempt_does_not_hide_the_short_one(tmp_path: Path) -> None:
    for spent in (5.0, 31.0):
        now = iter([0.0, 0.0, spent, spent])
        reporter = Reporter(tmp_path, clock=lambda now=now: next(now), show=lambda line: None)
        reporter.plan([Phase("a", 1.0)])
        reporter.phase("a")(1.0)
        reporter.close()
    again = Reporter(tmp_path, clock=lambda: 0.0, show=lambda line: None)
    assert (again.earlier, again.seconds) == (36.0, {"a": 36.0})


def test_a_result_has_a_line_for_each_entry_and_row_of_a_matrix(tmp_path: Path) -> None:
    value = {
        "n": 2,
        "matrix": [[1, 0], [0, 1]],
        "none": {},
        "rows": [{"a": "x\n"}],
        "pair": (1, None),
    }
    files.write_json(tmp_path / "metrics.json", value)
    text = (tmp_path / "metrics.json").read_text()
    assert json.loads(text) == {**value, "pair": [1, None]}
    assert text.splitlines()[2:5] == ['  "matrix": [', "    [1, 0],", "    [0, 1]"]
    assert text.splitlines()[-2:] == ['  "pair": [1, null]', "}"]


def test_a_result_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    files.write_json(tmp_path / "metrics.json", {"accuracy": 0.5})
    with pytest.raises(ValueError):
        files.write_json(tmp_path / "metrics.json", {"accuracy": float("nan")})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"accuracy": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
