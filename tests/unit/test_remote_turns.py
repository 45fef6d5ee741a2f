"""GPUs go to who came first; one that has died, or cannot use a card, is not waited for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from remote import gpu
from remote.layout import Layout
from remote.turns import Turn

CARDS = gpu.parse(
    "".join(f"{n}, GPU-{n}, NVIDIA H100, 4, {80000 if n else 20000}, 0, 570.86\n" for n in range(4))
)
ALL = {card.uuid for card in CARDS}


class Queue:
    """Draws tickets; those still open are closed behind the test."""

    def __init__(self, layout: Layout, stack: ExitStack) -> None:
        self.layout, self._stack = layout, stack

    def draw(self, most: int, **want: Any) -> Turn:
        turn = Turn(self.layout, "some-run-1", most=most, **want)
        self._stack.callback(turn.close)
        return turn


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    layout = Layout(str(tmp_path))
    layout.ensure()
    with ExitStack() as stack:
        yield Queue(layout, stack)


def test_what_those_before_would_take_is_kept_for_them(queue: Queue) -> None:
    first, second, third = queue.draw(1), queue.draw(2), queue.draw(1)
    assert first.kept(CARDS) == set()
    assert second.kept(CARDS) == {"GPU-0"}
    assert third.kept(CARDS) == {"GPU-0", "GPU-1", "GPU-2"}
    assert third.kept(CARDS[:1]) == {"GPU-0"}


def test_one_that_gathers_two_cards_is_not_passed_by_one_that_needs_one(queue: Queue) -> None:
    held = gpu.lease(queue.layout, CARDS, 3, 3, None)
    queue.draw(2)
    late = queue.draw(1)
    with pytest.raises(gpu.Busy, match="GPU 3 is kept for a run that has waited longer"):
        gpu.lease(queue.layout, CARDS, 1, 1, None, kept=late.kept(CARDS))
    for lock in held.locks:
        os.close(lock)
    assert late.kept(CARDS) == {"GPU-0", "GPU-1"}


def test_a_card_that_one_before_cannot_use_is_free_for_who_comes_later(queue: Queue) -> None:
    queue.draw(4, memory=40_000 << 20)
    assert queue.draw(1).kept(CARDS) == ALL - {"GPU-0"}


def test_a_ticket_whose_holder_was_killed_counts_no_more(queue: Queue) -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        queue.draw(4)
        os.write(write, b"1")
        while True:
            signal.pause()
    os.read(read, 1)
    mine = queue.draw(1)
    assert mine.kept(CARDS) == ALL
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(read)
    os.close(write)
    assert mine.kept(CARDS) == set()
