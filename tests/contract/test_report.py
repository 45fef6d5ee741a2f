"""`orch report`: of real runs, with their host there and gone, never over a file of someone's."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk
from tests.contract.desk import TRAIN, WORK, Desk, assert_clear, take_away

CURVES = """
with open(os.path.join(out, "metrics.jsonl"), "w") as file:
    for step in range(50):
        file.write(json.dumps({"step": step, "loss": 1 / (step + 1)}) + "\\n")
    file.write('{"step": 50, "lo')
print("<b>bold</b> \\x1b[31mred", flush=True)
"""


def run_of(desk: Desk, *args: str) -> str:
    run = desk.submit("train", *args)
    desk.orch("wait", code=None)
    desk.orch("fetch-results", code=None)
    return run


def curving(new_desk: MakeDesk) -> Desk:
    return new_desk({"train": TRAIN}, files={"work.py": WORK + CURVES})


def reported(desk: Desk, *args: str) -> list[str]:
    """The texts of the files that a report names on stdout."""
    return [
        (desk.project / line).read_text() for line in desk.orch("report", *args).stdout.splitlines()
    ]


def test_a_report_tells_outcome_curves_log_and_what_changed(new_desk: MakeDesk) -> None:
    desk = curving(new_desk)
    run_of(desk)
    second = run_of(desk, "--set", "right=25", "--note", "worse")
    page, text = reported(desk)
    for told in (page, text):
        assert second in told and "degenerate" in told and "worse" in told
        assert "50.0 %" in told and "1 of 51 lines was torn" in told
        assert "\x1b" not in told
    assert "<polyline" in page and "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "| `right` | `25` | `45` |" in text
    assert "last line without an end" in text
    assert "orch submit train --set right=25 --host box" in text


def test_what_the_page_could_not_have_stands_in_the_document_too(new_desk: MakeDesk) -> None:
    desk = curving(new_desk)
    run = desk.submit("train")
    desk.orch("wait")
    told = json.loads(desk.orch("report", "--json").stdout)
    again = f"learning curves: the results are not here; `orch fetch-results {run}` brings them"
    assert told["missing"] == [again]
    text = next(Path(path).read_text() for path in told["paths"] if path.endswith(".md"))
    assert text.split("What could not be had")[1].count("\n- ") == 1
    desk.orch("fetch-results")
    assert json.loads(desk.orch("report", "--json").stdout)["missing"] == []


def test_the_other_run_is_the_one_asked_for(new_desk: MakeDesk) -> None:
    desk = curving(new_desk)
    runs = [run_of(desk, "--set", f"right={right}") for right in (45, 44, 43)]
    (text,) = reported(desk, runs[2], "--against", runs[0], "-o", "out.md")
    assert f"{runs[0]} (as asked)" in text.replace("\\", "")
    assert "| `right` | `43` | `45` |" in text
    assert_clear(desk.orch("report", runs[0], "--against", runs[0], code=2), "against itself")


def test_with_the_host_and_the_results_gone_it_says_what_is_missing(desk: Desk) -> None:
    run = desk.submit("train")
    desk.orch("wait")
    take_away(desk.home / ".orch")
    (text,) = reported(desk, run, "-o", "out.md")
    missing = text[text.index("What could not be had") :]
    assert "log:" in missing and "environment:" in missing
    assert f"orch fetch-results {run}" in missing
    assert "90.0 %" in text


def test_only_a_report_is_written_over(desk: Desk) -> None:
    desk.submit("train")
    desk.orch("wait")
    precious = desk.project / "notes.md"
    precious.write_text("precious")
    assert_clear(desk.orch("report", "-o", "notes.md", code=2), "notes.md", "left alone")
    assert precious.read_text() == "precious"
    assert_clear(desk.orch("report", "-o", "out.pdf", code=2), ".html or .md")
    assert_clear(desk.orch("report", "-o", "no/such/out.md", code=2), "no/such")
    desk.orch("report", "-o", "out.md")
    first = (desk.project / "out.md").read_text()
    desk.orch("report", "-o", "out.md")
    assert len((desk.project / "out.md").read_text()) >= len(first)


@pytest.mark.parametrize("change", ["edited", "earlier"])
def test_a_report_that_somebody_may_have_changed_is_kept(desk: Desk, change: str) -> None:
    run = desk.submit("train")
    desk.orch("wait")
    page, text = (Path(line) for line in desk.orch("report").stdout.splitlines())
    if change == "edited":
        theirs = text.read_bytes() + b"hand note\n"
    else:  # a version without a digest in the mark
        theirs = re.sub(rb", sha256:[0-9a-f]{64}", b"", text.read_bytes())
    text.write_bytes(theirs)
    other = text.with_name(f"report-{run}-2.md")
    for _ in range(2):  # the second time the new one is as orch wrote it, and is replaced
        done = desk.orch("report")
        assert done.stdout.splitlines() == [str(page), str(other)]
        assert f"{text} may have been changed" in done.stderr and "kept" in done.stderr
        assert text.read_bytes() == theirs
    assert_clear(desk.orch("report", "-o", str(text), code=2), str(text), "left alone")
    assert text.read_bytes() == theirs


def test_reports_against_different_runs_have_names_of_their_own(desk: Desk) -> None:
    runs = [run_of(desk, "--set", f"right={right}") for right in (45, 44, 43)]
    asked = desk.orch("report", "--against", runs[0]).stdout.splitlines()
    plain = desk.orch("report").stdout.splitlines()
    assert [Path(line).stem for line in asked] == [f"report-{runs[2]}-against-{runs[0]}"] * 2
    assert [Path(line).stem for line in plain] == [f"report-{runs[2]}"] * 2
    assert runs[0] in Path(asked[1]).read_text()


def test_a_report_is_read_without_the_terminal_or_the_network(desk: Desk) -> None:
    run = desk.submit("train")
    desk.orch("wait")
    paths = [Path(line) for line in desk.orch("report").stdout.splitlines()]
    assert [path.name for path in paths] == [f"report-{run}.html", f"report-{run}.md"]
    assert all(path.parent == desk.project / "results" / "train" for path in paths)
    assert "http" not in paths[0].read_text().replace("http-equiv", "")
    assert json.loads(desk.orch("show", "--json").stdout)["run_id"] == run


def test_results_that_were_deleted_here_are_told_as_gone(new_desk: MakeDesk) -> None:
    desk = curving(new_desk)
    run_id = run_of(desk)
    assert "(complete)" in desk.orch("show").stdout
    shutil.rmtree(desk.results("train", run_id))
    shown = desk.orch("show").stdout
    assert f"(not there any more: orch fetch-results {run_id})" in shown
    (text,) = reported(desk, "-o", "gone.md")
    told = text.replace("\\", "")
    assert f"the results are not here any more; `orch fetch-results {run_id}`" in told
    assert "hold no metrics.jsonl" not in told
    desk.orch("fetch-results")
    assert "(complete)" in desk.orch("show").stdout
    (text,) = reported(desk, "-o", "back.md")
    assert "any more" not in text
