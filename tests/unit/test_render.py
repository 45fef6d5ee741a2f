from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from orchestrator import render, tables
from orchestrator.columns import columns_table
from orchestrator.domain import (
    Event,
    Fetched,
    Finding,
    Host,
    Outcome,
    Run,
    RunState,
    Session,
    Severity,
    Verdict,
)
from orchestrator.progress import FollowProgress, bar_line
from orchestrator.runtext import accuracy_words, status_words, wilson
from orchestrator.tables import Cell, Column, Style, clip, layout, style_of, width_of
from tests.helpers.runs import HASH, a_run, an_id

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 23, 9, 34, tzinfo=timezone.utc)
COLOUR = Style(colour=True)
ATTACK = "\x1b]52;c;x\x07\x1b[2J\x9b31m\u202e\r\n[red]"

FAILED = a_run(
    state=RunState.FINISHED,
    verdict=Verdict.SUCCEEDED,
    exit_code=0,
    outcome=Outcome.DEGENERATE,
    outcome_reasons=("class 1 is never predicted",),
    accuracy=0.578,
    metrics={"n": 1000, "bayes_accuracy": 0.901},
    confusion_matrix=((578, 0), (422, 0)),
    labels=("negative", "positive"),
    snapshot="s1:code",
    git_commit="abc123",
    git_dirty=True,
    session=Session("tmux", "orch-1"),
    started_at="2026-11-23T06:10:00.000000Z",
    ended_at="2026-11-23T09:30:00.000000Z",
    last_seen_at="2026-11-23T09:30:01.000000Z",
    results_path="results/train/x",
    fetched=Fetched.COMPLETE,
    supersedes=an_id(1),
    tags={"try": "2"},
    note="the second try",
    profile="cpu",
)
RUNNING = a_run(
    state=RunState.RUNNING,
    started_at="2026-11-23T09:19:30.000000Z",
    last_seen_at="2026-11-23T09:20:00.000000Z",
)


# --- the words for a run --------------------------------------------------------------------------


def test_wilsons_interval_is_the_published_one() -> None:
    low, high = wilson(0.5, 10)  # 0.2366 to 0.7634: Wilson 1927, worked in many textbooks
    assert (round(low, 4), round(high, 4)) == (0.2366, 0.7634)
    assert wilson(0.0, 20)[0] == 0.0
    assert wilson(1.0, 20)[1] == 1.0


def test_an_accuracy_has_its_interval_and_the_best_possible_beside_it() -> None:
    words = accuracy_words(FAILED)
    assert words.startswith("57.8 % (95 % interval 54.7 to 60.8 %, n = 1000;")
    assert "best possible 90.1 %" in words


def test_the_number_of_examples_is_read_from_the_matrix_when_not_told() -> None:
    run = a_run(accuracy=0.5, confusion_matrix=((5, 5), (5, 5)))
    assert "n = 20" in accuracy_words(run)
    assert accuracy_words(a_run(accuracy=0.5)) == "50.0 %"
    assert accuracy_words(a_run()) == "none"
    assert accuracy_words(a_run(accuracy=12.5, metrics={"n": 3})) == "12.5"


@pytest.mark.parametrize(
    ("run", "unreachable", "words"),
    [
        (RUNNING, False, "running (last seen 14 min ago)"),
        (RUNNING, True, "running (last seen 14 min ago, host unreachable)"),
        (a_run(), True, "intent (host unreachable)"),
        (a_run(state=RunState.RUNNING, last_seen_at="2026-11-23T09:33:59Z"), False, "running"),
        (FAILED, True, "succeeded"),
        (
            a_run(state=RunState.FINISHED, verdict=Verdict.FAILED, exit_code=3),
            False,
            "failed (exit 3)",
        ),
        (
            a_run(state=RunState.FINISHED, verdict=Verdict.OOM, signal=9, exit_code=137),
            False,
            "oom (signal 9)",
        ),
    ],
)
def test_the_status_is_said_with_the_age_of_what_is_known(
    run: Run, unreachable: bool, words: str
) -> None:
    assert status_words(run, NOW, unreachable=unreachable) == words


def test_show_tells_everything_the_ledger_ties_together() -> None:
    at = "2026-11-23T09:20:00.000000Z"
    text = render.show_text(FAILED, [Event(FAILED.run_id, 1, at, "intent", {"host": "n"})], NOW)
    for part in [
        FAILED.run_id,
        "train (cpu)",
        "succeeded",
        "degenerate",
        "- class 1 is never predicted",
        "57.8 %",
        HASH,
        "s1:code",
        "abc123 + changes",
        "tmux orch-1",
        "2026-11-23 06:10:00 UTC (3 h 24 min ago)",
        "ran for     3 h 20 min",
        "results/train/x (complete)",
        an_id(1),
        "try=2",
        "the second try",
        "training.ema: 0.9999",
        "training.steps: [1, 2]",
        "intent        host n",
    ]:
        assert part in text, part


def test_the_timeline_is_short_and_says_in_words_where_a_run_was_started() -> None:
    at = "2026-11-23T09:20:00.000000Z"
    told: list[tuple[str, dict[str, object]]] = [
        ("synced", {"snapshot": "s1:" + "a" * 64, "data": {}}),
        ("started", {"state": "running", "session": ["tmux", f"orch-{FAILED.run_id}"],
                     "started_at": at, "place": ["vm", "/home/ada/.orch", "0035969ec53f"]}),
        ("environment", {"cpus": 2, "python": {"packages": {"torch": "2"}}, "gpus": [{"a": 1}]}),
        ("finished", {"verdict": "succeeded", "outcome_reasons": ["one", "two"]}),
        ("fetched", {"fetched": "complete", "results_path": "/home/ada/lab/results/train/x"}),
        ("guard", {"action": "kill", "acted": True, "message": "loss is NaN " * 9}),
    ]  # fmt: skip
    events = [Event(FAILED.run_id, i, at, kind, data) for i, (kind, data) in enumerate(told)]
    shown = render.show_text(FAILED, events, NOW).partition("timeline (UTC)\n")[2]
    assert [line[23:].rstrip() for line in shown.splitlines()] == [
        "synced        snapshot s1:aaaaaaaaaaaa",
        "started       state running, session tmux, on vm under /home/ada/.orch",
        "environment   cpus 2",
        "finished      verdict succeeded, outcome reasons one, two",
        "fetched       complete",
        "guard         kill: " + ("loss is NaN " * 9).rstrip(),
    ]


def test_the_confusion_matrix_is_aligned_under_its_labels() -> None:
    lines = render.show_text(FAILED, [], NOW).splitlines()
    at = lines.index("confusion matrix")
    assert [line.rstrip() for line in lines[at + 1 : at + 4]] == [
        "  true \\ predicted  negative  positive",
        "  negative               578         0",
        "  positive               422         0",
    ]


def test_a_matrix_that_is_not_square_or_has_no_labels_is_still_shown() -> None:
    run = a_run(confusion_matrix=((1, 2, 3), (4,)), labels=("a",))
    assert "true \\ predicted  a  1  2" in render.show_text(run, [], NOW)


def test_the_time_of_a_later_attempt_is_told_as_its_own() -> None:
    assert "ran for     3 h 20 min\n" in render.show_text(FAILED, [], NOW)
    again = render.show_text(replace(FAILED, attempt=2), [], NOW)
    assert "ran for     3 h 20 min (attempt 2; the timeline has those before)\n" in again


def test_the_ledger_row_is_short_and_has_hash_accuracy_and_outcome() -> None:
    text = render.ledger_row(FAILED)
    assert len(text.splitlines()) <= 10
    for part in (FAILED.run_id, HASH, "57.8 %", "degenerate", "class 1 is never", an_id(1)):
        assert part in text


# --- tables ---------------------------------------------------------------------------------------


def test_runs_are_a_table_with_one_line_each() -> None:
    text = render.ls_table([FAILED, RUNNING], NOW)
    head, first, second = text.splitlines()
    assert head.split()[:5] == ["RUN", "JOB", "STATUS", "OUTCOME", "ACCURACY"]
    assert first.startswith(FAILED.run_id + " *")
    assert "57.8 %" in first
    assert "running (last seen 14 min ago)" in second
    assert head.index("STATUS") == first.index("succeeded") == second.index("running")


@pytest.mark.parametrize("width", [40, 50, 60, 80, 100, 140, 200])
def test_a_table_fits_the_terminal_and_keeps_the_run_ids(width: int) -> None:
    runs = [a_run(FAILED.run_id, job="a-job-with-a-very-long-name", note="n" * 300), FAILED]
    lines = render.ls_table(runs, NOW, Style(width=width)).splitlines()
    assert max(map(width_of, lines)) <= width
    assert all(FAILED.run_id in line for line in lines[1:])
    assert ("ACCURACY" in lines[0]) is (width >= 60)
    assert ("degenerate" in lines[2]) is (width >= 50)
    assert width >= 50 or lines[2].split()[2:] == ["succ…", "dege…"]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_columns_that_were_asked_for_are_cut_and_the_run_ids_are_not(width: int) -> None:
    run = a_run(job="j" * 30, note="n" * 30, supersedes=None)
    lines = columns_table([run], ["job", "run", "note"], NOW, Style(width=width)).splitlines()
    assert max(map(width_of, lines)) <= width
    assert run.run_id in lines[1] and "…" in lines[1]


@pytest.mark.parametrize("width", [60, 80])
def test_jobs_with_long_names_fit_the_terminal(width: int) -> None:
    jobs = [render.JobLine("j" * 58, "d" * 100, ("cpu", "cpu-hour", "gpu"), FAILED)]
    lines = render.jobs_table(jobs, NOW, Style(width=width)).splitlines()
    assert max(map(width_of, lines)) <= width
    assert "57.8 %" in lines[1]


def test_wide_signs_take_two_columns_and_combining_ones_none() -> None:
    assert width_of("日本") == 4
    assert width_of("e\u0301") == 1
    assert clip("日本語", 5) == "日本…"
    table = layout((Column("A"), Column("B")), [["日本", "x"], ["ab", "y"]], tables.PLAIN)
    assert table == "A     B\n日本  x\nab    y\n"


def test_a_column_without_a_value_is_left_out() -> None:
    assert "NOTE" not in render.ls_table([RUNNING], NOW)
    assert "NOTE" in render.ls_table([a_run(note="x")], NOW)


def test_jobs_hosts_findings_and_checks_have_their_tables() -> None:
    jobs = [
        render.JobLine("train", "trains", ("cpu", "gpu"), FAILED),
        render.JobLine("broken", error="jobs/broken.yaml:3: unknown key"),
    ]
    text = render.jobs_table(jobs, NOW)
    assert "succeeded, degenerate, 14 min ago" in text
    assert "never run" in text
    assert "jobs/broken.yaml:3: unknown key" in text
    hosts = [render.HostLine(Host("nigel", ssh="v@n:22"), "orch.yaml", default=True, trusted=False)]
    assert "nigel (default)  ssh v@n:22  unknown: orch host trust" in render.hosts_table(hosts)
    found = [
        Finding(Severity.ERROR, "differs", "ours 1", "a.c", 1, 2, waived="short run"),
        Finding(Severity.INFO, "extra", "only ours", "a.d"),
        Finding(Severity.ERROR, "missing", "they have it", "a.b"),
    ]
    lines = render.findings(found).splitlines()
    assert lines[0] == "error   missing: a.b: they have it"
    assert lines[1:3] == ["waived  differs: a.c: ours 1", "        reason: short run"]
    report = render.doctor_report([("ok", "ssh", "fine"), ("fail", "disk", "full\nreally")])
    assert "FAIL  disk   full; really\n" in report
    assert report.endswith("1 ok, 0 warn, 1 fail\n")


# --- nothing from elsewhere reaches the terminal as it is -----------------------------------------


def hostile() -> Run:
    return a_run(
        job=ATTACK,
        host=ATTACK,
        note=ATTACK,
        tags={ATTACK: ATTACK},
        labels=(ATTACK, "b"),
        confusion_matrix=((1, 2), (3, 4)),
        config={ATTACK: {ATTACK: ATTACK}},
        metrics={ATTACK: [ATTACK]},
        outcome_reasons=(ATTACK,),
        results_path=ATTACK,
        session=Session("tmux", ATTACK),
        snapshot=ATTACK,
        git_commit=ATTACK,
        profile=ATTACK,
        project=ATTACK,
        started_at=ATTACK,
        findings=({"severity": ATTACK, "rule": ATTACK, "message": ATTACK},),
        data={ATTACK: ATTACK},
        overrides={ATTACK: ATTACK},
    )


@pytest.mark.parametrize("style", [Style(), Style(width=100), COLOUR], ids=["plain", "100", "ansi"])
def test_no_hostile_text_survives_in_anything_shown(style: Style) -> None:
    run = hostile()
    shown = [
        render.show_text(run, [Event(ATTACK, 1, ATTACK, ATTACK, {ATTACK: ATTACK})], NOW, style),
        render.ls_table([run], NOW, style),
        render.ledger_row(run, style),
        render.jobs_table([render.JobLine(ATTACK, ATTACK, (ATTACK,), run, None)], NOW, style),
        render.jobs_table([render.JobLine(ATTACK, error=ATTACK)], NOW, style),
        render.hosts_table([render.HostLine(Host(ATTACK, ssh=ATTACK), ATTACK)], style),
        render.findings([Finding(Severity.ERROR, ATTACK, ATTACK, ATTACK, waived=ATTACK)], style),
        render.doctor_report([("warn", ATTACK, ATTACK)], style),
        bar_line(0.5, ATTACK, 3.0, Style(width=80)),
    ]
    for text in shown:
        for code in ("\x1b[1m", "\x1b[2m", *(f"\x1b[3{n}m" for n in (1, 2, 3, 4, 6)), "\x1b[0m"):
            text = text.replace(code, "") if style.colour else text
        assert "\x1b" not in text
        assert text.replace("\n", "").isprintable()


def test_prose_is_made_safe_and_goes_to_the_stream() -> None:
    out = io.StringIO()
    render.say("on \x1b[31mhost", out)
    assert out.getvalue() == "on \\x1b[31mhost\n"


def test_a_terminal_that_knows_ascii_only_gets_escapes_and_no_error() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    render.emit("größe …\n", stream)
    assert raw.getvalue() == b"gr\\xf6\\xdfe \\u2026\n"


# --- colours --------------------------------------------------------------------------------------


def test_a_pipe_gets_neither_colours_nor_a_width() -> None:
    assert style_of(io.StringIO(), {}) == Style(colour=False, width=None)


IN_A_TERMINAL = """
import os, sys
from orchestrator.tables import style_of
style = style_of(sys.stdout, os.environ)
print(style.colour, style.width, *["dumb"] * (not style.redraws))
"""


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"TERM": "xterm"}, "True 77"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "False 77"),
        ({"TERM": "xterm", "NO_COLOR": ""}, "True 77"),
        ({"TERM": "dumb"}, "False 77 dumb"),
        ({"TERM": "unknown"}, "False 77 dumb"),
    ],
)
def test_a_real_terminal_gets_colours_unless_told_not_to(
    environ: dict[str, str], told: str
) -> None:
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 77, 0, 0))
    done = subprocess.run(
        [sys.executable, "-c", IN_A_TERMINAL],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environ},
        stdout=child,
        timeout=30,
        check=False,
    )
    os.close(child)
    assert done.returncode == 0
    assert os.read(parent, 1000).decode().strip() == told
    os.close(parent)


def test_colours_do_not_move_the_columns() -> None:
    painted = render.ls_table([FAILED, RUNNING], NOW, COLOUR)
    for code in ("1", "2", "31", "32", "33", "36", "0"):
        painted = painted.replace(f"\x1b[{code}m", "")
    assert painted == render.ls_table([FAILED, RUNNING], NOW)
    assert layout((Column("A"),), [[Cell("x", ("red",))]], COLOUR).count("\x1b[31m") == 1


def test_listing_and_showing_runs_loads_no_drawing_library() -> None:
    code = "import sys; from orchestrator import render; print('rich' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


# --- progress -------------------------------------------------------------------------------------


class Ticks:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def screen(text: str) -> str:
    """What stands on the lines once the erasing has been done."""
    lines = text.replace("\r\x1b[K", "\x00").split("\n")
    return "\n".join(line.rpartition("\x00")[2] for line in lines)


def test_on_a_terminal_the_log_stands_above_the_bar_and_is_whole() -> None:
    both, ticks = io.StringIO(), Ticks()
    with FollowProgress(both, both, Style(width=60), ticks) as follow:
        follow.log("first\nsec")
        follow.log("ond\n")
        for step in range(5):
            ticks.now += 1.0
            follow.update(step / 10, "train", 60.0)
            follow.log(f"step {step}\nhalf ")
            follow.log("line\n")
        assert "train, 40 %, 1 min left" in screen(both.getvalue()).splitlines()[-1]
        follow.log("no end")
    expected = "first\nsecond\n" + "".join(f"step {s}\nhalf line\n" for s in range(5)) + "no end"
    assert screen(both.getvalue()) == expected


def test_a_bar_is_redrawn_at_most_eight_times_a_second() -> None:
    both, ticks = io.StringIO(), Ticks()
    with FollowProgress(both, both, Style(width=60), ticks) as follow:
        for step in range(1000):
            ticks.now += 0.001
            follow.update(step / 1000, "train")
    assert both.getvalue().count("train") <= 10


@pytest.mark.parametrize("style", [Style(), Style(width=60, dumb=True)], ids=["pipe", "dumb"])
def test_elsewhere_progress_is_a_plain_line_now_and_then_and_the_log_untouched(
    style: Style,
) -> None:
    out, told, ticks = io.StringIO(), io.StringIO(), Ticks()
    with FollowProgress(out, told, style, ticks) as follow:
        for step in range(61):
            ticks.now += 1.0
            follow.update(step / 61, "train", 61.0 - step)
            follow.log(f"step {step}\rbar")
    assert out.getvalue() == "".join(f"step {step}\rbar" for step in range(61))
    assert told.getvalue().splitlines() == [
        "train, 0 %, 1 min left",
        "train, 49 %, 31 s left",
        "train, 98 %, 1 s left",
    ]


def test_a_line_without_end_is_not_kept_back_for_ever() -> None:
    both, ticks = io.StringIO(), Ticks()
    with FollowProgress(both, both, Style(width=60), ticks) as follow:
        follow.update(0.5, "train")
        for _ in range(10):
            follow.log("x" * 10_000)
        assert both.getvalue().count("x") >= 30_000
    assert both.getvalue().count("x") == 100_000


@pytest.mark.parametrize("width", [10, 20, 40, 80, 300])
@pytest.mark.parametrize("fraction", [None, -1.0, 0.0, 0.5, 1.0, 7.0, float("nan")])
@pytest.mark.parametrize("phase", ["a rather long phase of the job", "訓練" * 10 + " step 6"])
def test_a_bar_leaves_room_for_an_interrupt_on_its_line(
    width: int, fraction: float | None, phase: str
) -> None:
    line = bar_line(fraction, phase, 1e9, Style(width=width))
    assert width_of(line + "^C") < width
    assert "\n" not in line
