"""GPUs of this host: what nvidia-smi says, within a deadline, and leases by kernel lock.

What does not parse is unknown, and unknown is never taken for free.
"""

from __future__ import annotations

import os
from typing import List, NamedTuple, Optional

from remote import files, procs
from remote.layout import Layout

DEADLINE = 5.0
IDLE_BYTES = 600 * 1024 * 1024  # what an idle card may hold (driver, display)
QUERY = "index,uuid,name,memory.used,memory.total,utilization.gpu,driver_version"


class Gpu(NamedTuple):
    number: int
    uuid: str
    name: str
    used: Optional[int]  # bytes; None: unknown
    total: Optional[int]
    utilization: Optional[int]  # per cent
    driver: str


class NoAnswer(Exception):
    """nvidia-smi is there but did not answer in time or with sense."""


class Smi:
    """nvidia-smi. While one hangs that cannot even be killed, no other is started beside it."""

    def __init__(self) -> None:
        self._stuck: List[int] = []

    def cards(self) -> List[Gpu]:
        """The host's GPUs; empty without nvidia-smi."""
        tool = procs.which("nvidia-smi")
        if tool is None:
            return []
        self._stuck = [pid for pid in self._stuck if procs.wait_for(pid, 0.0) is None]
        if self._stuck:
            raise NoAnswer("nvidia-smi hangs and cannot be killed")
        options = ["--query-gpu=" + QUERY, "--format=csv,noheader,nounits"]
        text = procs.capture([tool, *options], DEADLINE, stuck=self._stuck)
        if text is None:
            raise NoAnswer("nvidia-smi gave no answer within %g s" % DEADLINE)
        return parse(text.decode("utf-8", "replace"))


def probe() -> List[Gpu]:
    return Smi().cards()


def parse(text: str) -> List[Gpu]:
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != 7 or not cells[0].isdigit() or not cells[1]:
            continue
        used, total = _mebibytes(cells[3]), _mebibytes(cells[4])
        busy = int(cells[5]) if cells[5].isdigit() else None
        found.append(Gpu(int(cells[0]), cells[1], cells[2], used, total, busy, cells[6]))
    return found


def _mebibytes(cell: str) -> Optional[int]:
    return int(cell) * 1024 * 1024 if cell.isdigit() else None


def why_not_free(card: Gpu, needed: Optional[int]) -> Optional[str]:
    """None for a card nobody uses that has `needed` bytes; what is unknown is not free."""
    if card.used is None or card.total is None:
        return "in a state nvidia-smi does not tell (MIG?)"
    if card.used > IDLE_BYTES:
        return "in use by others"
    if needed is not None and card.total - card.used < needed:
        return "too small"
    return None


class Lease(NamedTuple):
    """GPUs that are ours for as long as the lock descriptors stay open."""

    cards: List[Gpu]
    locks: List[int]


class Busy(Exception):
    """Fewer GPUs are free than are needed; says of each why it is not."""


def lease(layout: Layout, seen: List[Gpu], least: int, most: int, needed: Optional[int]) -> Lease:
    """Hold up to `most` of the GPUs that were `seen` and are free; Busy if fewer than `least`."""
    found = Lease([], [])
    reasons = []
    for card in seen:
        if len(found.cards) == most:
            break
        reason = why_not_free(card, needed)
        if reason is None:
            held = files.try_lock(layout.lock("gpu-" + _plain(card.uuid)))
            if held is None:
                reason = "leased by another run"
            else:
                found.cards.append(card)
                found.locks.append(held)
        if reason is not None:
            reasons.append("GPU %d is %s" % (card.number, reason))
    if len(found.cards) < least:
        for held in found.locks:
            os.close(held)
        raise Busy("; ".join(reasons) or "there is no GPU")
    return found


def _plain(uuid: str) -> str:
    return "".join(char if char.isalnum() or char == "-" else "_" for char in uuid)[:80]
