"""What fits on the screen of `orch top`, and what it says of the rest."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.boardtext import board_text
from orchestrator.domain import Host, Outcome, RunState, Verdict
from orchestrator.errors import ConnectFailed
from orchestrator.tables import PLAIN, Style
from orchestrator.usecases.board import Board, Card, Place
from tests.helpers.runs import a_run, an_id

NOW = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)


def board(runs: int, cards: int, ended: int, notes: int = 0) -> Board:
    card = {"name": "X", "memory_used": 1, "memory_total": 2, "utilization": 3, "lease": None}
    made: Any = SimpleNamespace(
        runs=[a_run(an_id(i), state=RunState.RUNNING, job=f"open{i}") for i in range(runs)],
        places=[Place(Host("box"), [cast(Card, a_card(i, **card)) for i in range(cards)])],
        ended=[
            a_run(an_id(30 + i), state=RunState.FINISHED, verdict=Verdict.FAILED, job=f"done{i}")
            for i in range(ended)
        ],
        glimpses={},
        notes={f"silent{i}": "no answer" for i in range(notes)},
    )
    return cast(Board, made)


def test_a_silent_host_is_named_once() -> None:
    why = ConnectFailed("dead (root@127.0.0.1:1): cannot connect: refused")
    shown = board(1, 1, 0)
    shown.places.append(Place(Host("dead"), error=why))
    shown.notes.update(odd="odd: its file is not readable")
    shown.runs.append(a_run(an_id(9), state=RunState.RUNNING, host="dead"))
    lines = board_text(shown, NOW, PLAIN).splitlines()
    told = "root@127.0.0.1:1: cannot connect: refused"
    assert f"dead: {told}; what was last known is shown" in lines
    assert "odd: its file is not readable" in lines
    assert re.search(rf"^dead +{re.escape(told)}$", "\n".join(lines), re.M)


def a_card(index: int, **values: Any) -> Any:
    return SimpleNamespace(index=index, foreign=[], processes=[], **values)


@pytest.mark.parametrize("notes", [0, 9])
@pytest.mark.parametrize("height", [*range(6, 31), 60])
@pytest.mark.parametrize(("runs", "cards", "ended"), [(20, 8, 10), (1, 8, 10), (0, 4, 10)])
def test_it_fits_and_what_is_hidden_of_a_part_is_counted(
    runs: int, cards: int, ended: int, height: int, notes: int
) -> None:
    text = board_text(board(runs, cards, ended, notes), NOW, PLAIN, height)
    lines = text.splitlines()
    assert len(lines) <= height
    shown = {"open": 0, "X": 0, "done": 0, "silent": 0}
    whole = {"open": runs, "X": cards, "done": ended, "silent": notes}
    last = "silent"
    for line in lines:
        found = re.search(r"\b(open|done|silent)\d|\b(X)\b|  \.\.\. (\d+) more", line)
        if found and found[3]:
            assert shown[last] + int(found[3]) == whole[last]
            shown[last] = whole[last]
        elif found:
            last = found[1] or found[2]
            shown[last] += 1
        elif line.startswith("RUN"):
            last = "open" if runs and not shown["open"] else "done"
    assert shown["silent"] == notes
    assert shown["open"] == runs, "open runs are shown or counted"
    assert all(shown[part] in (0, whole[part]) for part in shown)


@pytest.mark.parametrize("width", [40, 50, 60, 80])
def test_on_a_narrow_screen_what_is_cut_is_marked_and_run_ids_are_whole(width: int) -> None:
    lease = SimpleNamespace(run_id=an_id(0), job="j" * 30, known=True, project=None)
    root = SimpleNamespace(user="root", name="python" * 9, pid=7, memory=None)
    shown = cast(Any, board(1, 0, 1))
    shown.ended = [replace(shown.ended[0], outcome=Outcome.DEGENERATE)]
    card = a_card(0, name="NVIDIA X", memory_used=1, memory_total=2, utilization=3, lease=lease)
    card.foreign = [root]
    shown.places = [Place(Host("a-host-with-a-long-name"), [cast(Card, card)])]
    lines = board_text(shown, NOW, Style(width=width)).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(an_id(0) in line for line in lines) == 2  # among the runs, and what holds the GPU
    held = next(line for line in lines if "root: " in line)
    assert held.endswith("…")
    ended = next(line for line in lines if an_id(30) in line)
    assert "degenerate" in ended or ended.endswith("…")


def test_a_low_screen_is_for_open_runs_first() -> None:
    text = board_text(board(20, 8, 10), NOW, PLAIN, 8)
    assert len(re.findall(r"open\d", text)) == 4 and "... 16 more" in text
    text = board_text(board(20, 8, 10), NOW, PLAIN, 12)
    assert len(re.findall(r"open\d", text)) >= 4 and "box" in text
    whole = board_text(board(20, 8, 10), NOW, PLAIN)
    assert "more" not in whole and len(whole.splitlines()) == 2 + 21 + 1 + 9 + 1 + 11
