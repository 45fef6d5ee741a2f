"""A run whose directory was taken away while it went on. What lives of it is found by its lock and
by the tag of its processes; nothing can be written of it any more."""

from __future__ import annotations

import os
import time
from typing import Any, Dict

from remote import files, ownership, procs, session
from remote.layout import Layout

GRACE = 10.0
LAST = 16.0  # seconds kept back for what its owner does not end


def living(layout: Layout, run_id: str) -> int:
    """How many processes of it there are, its owner among them; its session is closed if none."""
    owned = files.is_locked(layout.lock(run_id + ".lock"))
    count = len(_tree(run_id).living()) + owned
    if not count:
        session.close_any(run_id)
    return count


def end(layout: Layout, run_id: str, patience: float) -> Dict[str, Any]:
    """TERM, grace, KILL: `ended` processes lived, `living` of them are left after `patience` s."""
    found = living(layout, run_id)
    owner = ownership.owner(layout, run_id)
    if owner is not None:
        procs.send(owner, 15)
        lock, until = layout.lock(run_id + ".lock"), time.monotonic() + patience - LAST
        while files.is_locked(lock) and time.monotonic() < until:
            time.sleep(0.05)
    if found:
        procs.end_tree(_tree(run_id), GRACE)
    left = living(layout, run_id) if found else 0
    return {"ended": found - left, "living": left}


def _tree(run_id: str) -> procs.Tree:
    return procs.Tree(run_id, None, [os.getpid()])
