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
USERS_QUERY = "gpu_uuid,pid,used_gpu_memory,process_name"
LOCK_PATIENCE = 0.1  # who looks whether a GPU is leased holds its lock for a moment


class Gpu(NamedTuple):
    number: int
    uuid: str
    name: str
    used: Optional[int]  # bytes; None: unknown
    total: Optional[int]
    utilization: Optional[int]  # per cent
    driver: str


class User(NamedTuple):
    """A process that computes on a GPU, whoever's it is."""

    uuid: str
    pid: int
    memory: Optional[int]  # bytes; None: unknown
    name: str


class NoAnswer(Exception):
    """nvidia-smi is there but did not answer in time or with sense."""


class Smi:
    """nvidia-smi. While one hangs that cannot even be killed, no other is started beside it."""

    def __init__(self) -> None:
        self._stuck: List[int] = []

    def cards(self) -> List[Gpu]:
        """The host's GPUs; empty without nvidia-smi."""
        return parse(self._ask("--query-gpu=" + QUERY))

    def users(self) -> List[User]:
        """The processes that compute on them, as far as nvidia-smi sees."""
        return parse_users(self._ask("--query-compute-apps=" + USERS_QUERY))

    def _ask(self, query: str) -> str:
        tool = procs.which("nvidia-smi")
        if tool is None:
            return ""
        self._stuck = [pid for pid in self._stuck if procs.wait_for(pid, 0.0) is None]
        if self._stuck:
            raise NoAnswer("nvidia-smi hangs and cannot be killed")
        argv = [tool, query, "--format=csv,noheader,nounits"]
        text = procs.capture(argv, DEADLINE, stuck=self._stuck)
        if text is None:
            raise NoAnswer("nvidia-smi gave no answer within %g s" % DEADLINE)
        return text.decode("utf-8", "replace")


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


def parse_users(text: str) -> List[User]:
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",", 3)]  # a program's name may hold a comma
        if len(cells) == 4 and cells[0] and cells[1].isdigit():
            found.append(User(cells[0], int(cells[1]), _mebibytes(cells[2]), cells[3]))
    return found


def _mebibytes(cell: str) -> Optional[int]:
    return int(cell) * 1024 * 1024 if cell.isdigit() else None


def why_not_free(card: Gpu, needed: Optional[int], shared: bool = False) -> Optional[str]:
    """None for a card that has `needed` bytes free and nobody uses, unless it may be `shared`;
    what is unknown is not free."""
    if card.used is None or card.total is None:
        return "in a state nvidia-smi does not tell (MIG?)"
    if card.used > IDLE_BYTES and not shared:
        return "in use by others"
    if needed is not None and card.total - card.used < needed:
        return "too small" if card.used <= IDLE_BYTES else "too full"
    return None


def holder(layout: Layout, card: Gpu) -> Optional[str]:
    """The run that leases the card; "" when it is leased and its run cannot be told, else None."""
    path = layout.lock(lock_name(card))
    if not files.is_locked(path):
        return None
    return (files.read_regular(path, 100) or b"").decode("ascii", "replace")


def why_not_to_be_had(layout: Layout, cards: List[Gpu], needed: Optional[int]) -> List[str]:
    """Of each card why waiting for runs to end would not free it: others use it, or it is small."""
    reasons = []
    for card in cards:
        reason = why_not_free(card, needed)
        if reason is not None and holder(layout, card) is not None:
            empty = card._replace(used=0)  # the run on it will have ended
            reason = why_not_free(empty, needed)
        if reason is not None:
            reasons.append("GPU %d is %s" % (card.number, reason))
    return reasons


class Lease(NamedTuple):
    """GPUs that are ours for as long as the lock descriptors stay open."""

    cards: List[Gpu]
    locks: List[int]


class Busy(Exception):
    """Fewer GPUs are free than are needed; says of each why it is not."""


def lease(
    layout: Layout,
    seen: List[Gpu],
    least: int,
    most: int,
    needed: Optional[int],
    run_id: str = "",
    shared: bool = False,
) -> Lease:
    """Hold up to `most` of the GPUs that were `seen` and are free; Busy if fewer than `least`.

    `shared`: those that others use are as good. While held, a GPU's lock file names the run.
    """
    found = Lease([], [])
    reasons = []
    for card in seen:
        if len(found.cards) == most:
            break
        reason = why_not_free(card, needed, shared)
        if reason is None:
            held = files.lock_within(layout.lock(lock_name(card)), LOCK_PATIENCE)
            if held is None:
                reason = "leased by another run"
            else:
                os.ftruncate(held, 0)
                os.pwrite(held, run_id.encode("ascii"), 0)
                found.cards.append(card)
                found.locks.append(held)
        if reason is not None:
            reasons.append("GPU %d is %s" % (card.number, reason))
    if len(found.cards) < least:
        for held in found.locks:
            os.close(held)
        raise Busy("; ".join(reasons) or "there is no GPU")
    return found


def lock_name(card: Gpu) -> str:
    plain = "".join(char if char.isalnum() or char == "-" else "_" for char in card.uuid)
    return "gpu-" + plain[:80]
