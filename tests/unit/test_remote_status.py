"""What a host tells of a run that has ended: its last attempt's exit record, as it was written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from remote import attempts, files, status
from remote.causes import End
from remote.layout import Layout, RunFiles

RUN_ID = "20261128-091929-123k3x7q"
SUCCEEDED = End("succeeded", exit_code=0)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(str(tmp_path / "root"))
    made.ensure()
    run = made.attempt(RUN_ID, 1)
    os.mkdir(run.path)
    os.mkdir(run.results)
    assert attempts.mark_begun(run)
    return made


def leave_metrics(run: RunFiles, text: str) -> None:
    Path(run.results, "metrics.json").write_text(text, encoding="utf-8")


def test_metrics_as_large_as_they_may_be_are_told_as_they_were_written(layout: Layout) -> None:
    run = layout.attempt(RUN_ID, 1)
    text = json.dumps({"accuracy": 0.9, "said": "слово " * 350_000}, ensure_ascii=False)
    assert 3_800_000 < len(text.encode()) < status.METRICS_MAX
    leave_metrics(run, text)
    status.write_exit(run, SUCCEEDED, status.metrics_of(run))
    assert status.status(layout, RUN_ID)["exit"]["metrics"] == {"text": text}


def test_metrics_that_would_make_the_record_too_large_are_left_out_of_it_and_said_so(
    layout: Layout,
) -> None:
    run = layout.attempt(RUN_ID, 1)
    leave_metrics(run, "\0" * 2_000_000)
    status.write_exit(run, SUCCEEDED, status.metrics_of(run))
    told = status.status(layout, RUN_ID)["exit"]
    assert told["verdict"] == "succeeded"
    assert "more than 8 MiB" in told["metrics"]["error"]


def test_bytes_of_a_path_that_are_no_text_are_in_a_reason_as_they_are_elsewhere(
    layout: Layout,
) -> None:
    reasons = (os.fsdecode(b"caf\xe9: No such file"), 'a "\\udce9" that was typed', "é\u2028")
    status.write_exit(layout.attempt(RUN_ID, 1), End("failed", reasons=reasons), None)
    assert status.status(layout, RUN_ID)["exit"]["reasons"] == list(reasons)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"verdict": "succeeded"', b"\xff{}"])
def test_a_record_that_is_none_any_more_is_told_so(content: bytes, layout: Layout) -> None:
    Path(layout.attempt(RUN_ID, 1).exit).write_bytes(content)
    told = status.status(layout, RUN_ID)
    assert (told["phase"], told["exit"], told["exit_fault"]) == ("finished", None, "it is damaged")


def test_between_two_attempts_a_run_has_not_ended(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks is held up right after a look at which attempt is the latest."""
    first, second = layout.attempt(RUN_ID, 1), layout.attempt(RUN_ID, 2)
    look = status._phase

    def late(asked: Layout, run: RunFiles) -> str:
        if run.attempt == 1:
            attempts.mark_begun(second)
            status.write_exit(first, End("failed", "exit", 75), None)
        return look(asked, run)

    monkeypatch.setattr(status, "_phase", late)
    owner = files.try_lock(layout.lock(RUN_ID + ".lock"))
    assert owner is not None
    told = status.status(layout, RUN_ID)
    os.close(owner)
    assert (told["phase"], told["attempt"]) == ("queued", 2)
