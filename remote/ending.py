"""Ending a run and waiting for its end."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Optional

from remote import files, procs, status, stream
from remote.channel import Channel
from remote.layout import Layout

Body = Dict[str, Any]
KEEPALIVE = 10.0


def cancel(layout: Layout, channel: Channel, request: Body) -> Body:
    """Ask the supervisor to end the run; without one, end its processes from here.

    Before the start it leaves a mark that makes the start refuse. A run that has ended stays as it
    ended. The reply is the status after at most `patience` seconds.
    """
    run = layout.run(str(request["run_id"]))
    known = status.status(layout, run.run_id)
    if known["phase"] == "finished":
        return {**known, "already": True}
    if known["phase"] == "absent":
        return known
    files.write_once(run.cancel, status.now().encode("ascii"))
    identity = files.read_json(run.identity) or {}
    pid = identity.get("pid")
    if procs.is_same(pid, identity.get("start_time")):
        procs.send(int(pid), 15)  # type: ignore[arg-type]
    elif known["phase"] == "unowned":
        job = files.read_json(run.job) or {}
        alive = procs.is_same(job.get("pid"), job.get("start_time"))
        tree = procs.Tree(run.run_id, job["pid"] if alive else None, [os.getpid()])
        left = procs.end_tree(tree, float(request.get("grace") or 10.0))
        if not left:
            reason = ["cancelled by its user; its supervisor was gone already"]
            status.write_exit(run, "cancelled", None, None, reason, status.metrics_of(run))
    elif known["phase"] == "claimed":
        reason = ["cancelled before it started"]
        status.write_exit(run, "cancelled", None, None, reason, None)
    return _until_finished(layout, channel, run.run_id, float(request.get("patience") or 0))


def wait(layout: Layout, channel: Channel, request: Body) -> Body:
    timeout = request.get("timeout")
    patience = float(timeout) if timeout is not None else None
    return _until_finished(layout, channel, str(request["run_id"]), patience)


def _until_finished(
    layout: Layout, channel: Channel, run_id: str, patience: Optional[float]
) -> Body:
    """The status once the run ended, `patience` seconds passed or the controller spoke."""
    run = layout.run(run_id)
    begun = spoke = checked = time.monotonic()
    known = status.status(layout, run_id)
    watch = stream.Watch(run, channel.input)
    try:
        while known["phase"] not in ("finished", "absent"):
            left = 1.0 if patience is None else begun + patience - time.monotonic()
            if left <= 0:
                return known
            if watch.wait(min(1.0, left)):
                return {**known, "detached": True}
            moment = time.monotonic()
            if os.path.exists(run.exit) or moment - checked > stream.EVIDENCE_EVERY:
                known, checked = status.status(layout, run_id), moment
            if moment - spoke > KEEPALIVE:
                channel.item({})
                spoke = moment
    finally:
        watch.close()
    return known
