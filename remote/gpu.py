"""GPUs of this host: what nvidia-smi says, within a deadline, and leases by kernel lock.

What does not parse is unknown, and unknown is never taken for free.
"""

from __future__ import annotations

import os
from typing import List, NamedTuple, Optional, Tuple

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


def probe() -> List[Gpu]:
    """The host's GPUs; empty without nvidia-smi."""
    tool = procs.which("nvidia-smi")
    if tool is None:
        return []
    options = ["--query-gpu=" + QUERY, "--format=csv,noheader,nounits"]
    text = procs.capture([tool, *options], DEADLINE)
    if text is None:
        raise NoAnswer("nvidia-smi gave no answer within %g s" % DEADLINE)
    return parse(text.decode("utf-8", "replace"))


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


def is_free(card: Gpu, needed: Optional[int]) -> bool:
    if card.used is None or card.total is None:
        return False
    if needed is not None:
        return card.total - card.used >= needed and card.used <= IDLE_BYTES
    return card.used <= IDLE_BYTES


def lease(
    layout: Layout, least: int, most: int, needed: Optional[int]
) -> Optional[Tuple[List[Gpu], List[int]]]:
    """Hold up to `most` free GPUs: (cards, lock descriptors); None if fewer than `least` are."""
    cards: List[Gpu] = []
    locks: List[int] = []
    for card in probe():
        if len(cards) == most:
            break
        if not is_free(card, needed):
            continue
        held = files.try_lock(layout.lock("gpu-" + _plain(card.uuid)))
        if held is not None:
            cards.append(card)
            locks.append(held)
    if len(cards) >= least:
        return cards, locks
    for held in locks:
        os.close(held)
    return None


def _plain(uuid: str) -> str:
    return "".join(char if char.isalnum() or char == "-" else "_" for char in uuid)[:80]
