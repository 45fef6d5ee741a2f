"""Runs that never started are closed: an exit record stands where a start would look first, so
that a start still under way somewhere cannot happen any more. That is the proof of absence."""

from __future__ import annotations

import os

from remote import files, procs, start, status
from remote.causes import End
from remote.layout import Layout


def close(layout: Layout, run_id: str, attempt: int, end: End, patience: float = 0.0) -> bool:
    """True if attempt `attempt` has an exit record now, `end` unless it had one before.

    False, with nothing changed, when it was started, or is being started at this moment (which is
    waited for at most `patience` seconds), or when processes carry its tag.
    """
    run = layout.attempt(run_id, attempt)
    guard = files.lock_within(layout.lock(run_id + ".claim"), patience)
    if guard is None:
        return False
    try:
        if os.path.exists(run.exit):
            return True
        if os.path.exists(run.started) or procs.tagged(run_id):
            return False
        os.makedirs(run.path, 0o700, exist_ok=True)
        status.write_exit(run, end, None)
        return True
    finally:
        if start.is_decided(run):
            files.remove(layout.lock(run_id + ".claim"))
        os.close(guard)
