"""A process becomes the owner of a run: out of its agent, under the run's lock, known by name."""

from __future__ import annotations

import json
import os
import signal
from typing import Any, Dict, Optional

from remote import files, procs
from remote.layout import Layout, RunFiles

LOCK_PATIENCE = 2.0  # who looks whether the run lives holds its lock for a moment
WATCHED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def take(layout: Layout, run: RunFiles, report: int, **more: Any) -> bool:
    """In a fork of the agent, which it leaves. True: it holds the run's lock as long as it lives,
    and is known as the attempt's owner (`more` with it). False: another holds it, or the attempt
    has an exit record.

    Of the agent's descriptors only `report` stays open. The signals `WATCHED` are blocked.
    """
    detach(report)
    held = files.lock_within(layout.lock(run.run_id + ".lock"), LOCK_PATIENCE)
    if held is None or os.path.exists(run.exit):  # somebody has proved that we would not come
        return False
    identify(run, **more)
    files.note(held, json.dumps(_self()))
    return True


def owner(layout: Layout, run_id: str) -> Optional[int]:
    """The pid of the run's owner as its lock file names it, if it lives: for a run whose directory
    is gone, or had no room for its name."""
    known = files.read_json(layout.lock(run_id + ".lock")) or {}
    return known["pid"] if procs.is_same(known.get("pid"), known.get("start_time")) else None


def _self() -> Dict[str, Any]:
    return {"pid": os.getpid(), "start_time": procs.start_time(os.getpid())}


def detach(report: int) -> None:
    """Leave the agent's session, its descriptors and its folder."""
    os.setsid()
    procs.let_go([report])
    os.chdir("/")
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # the agent may leave before our report


def identify(run: RunFiles, **more: Any) -> None:
    """This process is known as the attempt's owner."""
    identity = {
        **_self(),
        "boot_id": procs.boot_id(),
        "agent": os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
        **more,
    }
    try:
        files.write_json(run.identity, identity, durable=False)  # means nothing after a reboot
    except OSError as exc:
        if not files.is_full(exc):  # then it is known by its lock alone
            raise
