"""Attempts: a run goes on in its own directory, each time under the next number."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from remote import files, procs, status
from remote.causes import End
from remote.layout import Layout, RunFiles
from remote.leader import Leader

if TYPE_CHECKING:
    from remote.sentry import Sentry

GRACE = 10.0
RESERVE = 64 * 1024  # bytes freed when the disk is full, so that the exit record has room


class Attempt:
    """What its owner knows of one attempt, and of no other: the next one begins with its own."""

    def __init__(
        self,
        run: RunFiles,
        order: Dict[str, Any],
        leader: Optional[Leader] = None,
        deadline: Optional[float] = None,
    ) -> None:
        self.run = run
        self.leader = Leader() if leader is None else leader
        self.deadline = deadline  # of its job, monotonic; None: it has no limit, or no job yet
        self.grace = GRACE  # seconds between TERM and KILL, for what outlives its job
        self.to_leave = float(order.get("grace") or GRACE)  # the same for a job that is to end
        self.sentry: Optional[Sentry] = None


def begin_next(layout: Layout, run: RunFiles) -> Optional[RunFiles]:
    """The next attempt, begun (its marker stands); None: somebody has begun it.

    OSError: nothing was begun, for want of room, say.
    """
    following = layout.attempt(run.run_id, run.attempt + 1)
    lay_reserve(following)
    return following if mark_begun(following) else None


def lay_reserve(run: RunFiles) -> None:
    """What may be freed for the exit record of this attempt is there."""
    if not os.path.exists(run.reserve) or os.path.getsize(run.reserve) < RESERVE:
        files.write_atomic(run.reserve, bytes(RESERVE), durable=False)


def asked_for(retry: Optional[Dict[str, Any]], end: End, attempt: int) -> bool:
    """`retry`: {"on": ["lost", "oom"], "exit": [75], "max": 2}; `max` counts attempts after the
    first. `oom` is the kernel's and CUDA's alike."""
    if not retry or attempt > int(retry.get("max") or 0):
        return False
    on = retry.get("on") or []
    if end.verdict == "failed" and end.exit_code in (retry.get("exit") or []):
        return True
    no_memory = end.verdict == "failed" and end.cause == "cuda_oom"
    if "oom" in on and (end.verdict == "oom" or no_memory):
        return True
    return end.verdict == "lost" and "lost" in on


def mark_begun(run: RunFiles) -> bool:
    """True once in an attempt's life: whoever is told so may start it."""
    marker = {
        "boot_id": procs.boot_id(),
        "machine": procs.machine(),
        "at": status.now(),
        "since_boot": procs.since_boot(),
    }
    return files.write_once(run.started, json.dumps(marker).encode("ascii"))


def owned_by(layout: Layout, run: RunFiles, first: int) -> List[RunFiles]:
    """The attempts from `first` to the present one."""
    return [layout.attempt(run.run_id, number) for number in range(first, run.attempt + 1)]
