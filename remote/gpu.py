"""GPUs of this host: what nvidia-smi says, within a deadline, and leases by kernel lock.

What does not parse is unknown, and unknown is never taken for free.
"""

from __future__ import annotations

import os
from typing import Any, Collection, Dict, List, NamedTuple, Optional

from remote import files, procs
from remote.layout import Layout

DEADLINE = 5.0
IDLE_BYTES = 600 * 1024 * 1024  # what an idle card may hold (driver, display)
QUERY = "index,uuid,name,memory.used,memory.total,utilization.gpu,driver_version"
USERS_QUERY = "gpu_uuid,pid,used_gpu_memory,process_name"
LEASED = "leased by another run"
KEPT = "kept for a run that has waited longer"
NO_CARDS = "No devices were found"  # a driver without a card, whatever the exit code
WORDS_MAX = 300  # of what a failing nvidia-smi says
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
        """The host's GPUs; empty without nvidia-smi, and where it says that there is none."""
        text = self._ask("--query-gpu=" + QUERY)
        found = parse(text)
        if text.strip() and not found and NO_CARDS not in text:
            raise NoAnswer("nvidia-smi did not list GPUs but said: %s" % _first_words(text))
        return found

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
        said = procs.ask(argv, DEADLINE, stuck=self._stuck)
        text = said.text.decode("utf-8", "replace")
        if said.code is None:
            raise NoAnswer("nvidia-smi gave no answer within %g s" % DEADLINE)
        if said.code and NO_CARDS not in text:
            told = (said.code, _first_words(text) or "it said nothing")
            raise NoAnswer("nvidia-smi failed (exit code %d): %s" % told)
        return text


def _first_words(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:WORDS_MAX]


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


def must_have(order: Dict[str, Any], cards: int) -> int:
    """How many GPUs a run must have on a host that has `cards`: one of `0-1` where there is one."""
    wanted = int(order.get("gpus_min") or 0)
    return wanted or min(int(order.get("gpus_max") or 0), cards, 1)


def holder(layout: Layout, card: Gpu) -> Optional[str]:
    """The run that leases the card; "" when it is leased and its run cannot be told, else None."""
    path = layout.lock(lock_name(card))
    if not files.is_locked(path):
        return None
    return (files.read_regular(path, 100) or b"").decode("ascii", "replace")


def why_not_now(layout: Layout, cards: List[Gpu], needed: Optional[int]) -> List[str]:
    """Of each card that a run would not get at once why not."""
    reasons = []
    for card in cards:
        reason = why_not_free(card, needed)
        if reason is None and holder(layout, card) is not None:
            reason = LEASED
        if reason is not None:
            reasons.append("GPU %d is %s" % (card.number, reason))
    return reasons


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
    kept: Collection[str] = (),
) -> Lease:
    """Hold up to `most` of the GPUs that were `seen` and are free; Busy if fewer than `least`.

    `shared`: those that others use are as good. `kept`: uuids of those that are for runs before
    this one. While held, a GPU's lock file names the run.
    """
    found = Lease([], [])
    reasons = []
    for card in seen:
        if len(found.cards) == most:
            break
        reason = KEPT if card.uuid in kept else why_not_free(card, needed, shared)
        if reason is None:
            held = files.lock_within(layout.lock(lock_name(card)), LOCK_PATIENCE)
            if held is None:
                reason = LEASED
            else:
                files.note(held, run_id)
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
