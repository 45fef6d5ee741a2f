"""Ending a run and waiting for its end."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, Optional

from remote import adopt, closing, files, ownership, procs, status, stream, vanished
from remote.causes import End
from remote.channel import Channel
from remote.errors import Refused
from remote.layout import Layout, RunFiles

Body = Dict[str, Any]
KEEPALIVE = 10.0
CLAIM_PATIENCE = 30.0


def cancel(layout: Layout, channel: Channel, request: Body) -> Body:
    """Ask the supervisor to end the run; a job that lost its supervisor is given a new one first.

    One that has not started never will. A run that has ended stays as it ended: the first exit
    record counts. The reply is the status after at most `patience` seconds. Of one that is absent
    though it was `seen` here, or though processes of it live, these are ended; see `vanished.end`.
    """
    run_id, patience = str(request["run_id"]), float(request.get("patience") or 0)
    known = status.status(layout, run_id)
    if known["phase"] == "absent" and (request.get("seen") or vanished.living(layout, run_id)):
        return {**known, **vanished.end(layout, run_id, patience)}
    if known["phase"] in ("absent", "claimed"):
        end = End("cancelled", reasons=("cancelled before it started",))
        closing.close(layout, run_id, 1, end, CLAIM_PATIENCE)
        known = status.status(layout, run_id)
    elif known["phase"] == "unowned":
        _mark(layout.run(run_id))  # which its new owner sees, also when it cannot be known by name
        adopt.take_over(layout, run_id)
    if known["phase"] in ("finished", "absent"):
        cancelled = (known.get("exit") or {}).get("verdict") == "cancelled"
        return {**known, "already": not cancelled}
    if "machine" in known:
        raise Refused("Elsewhere", "it was started on %(machine)s, which has this home too" % known)
    _ask(layout, run_id)
    return _until_finished(layout, channel, run_id, patience)


def _ask(layout: Layout, run_id: str) -> None:
    """The mark first: a supervisor that comes up now sees it, one that is up is signalled."""
    run = layout.run(run_id)
    _mark(run)
    known = files.read_json(run.identity) or {}
    alive = procs.is_same(known.get("pid"), known.get("start_time"))
    pid = known["pid"] if alive else ownership.owner(layout, run_id)
    if pid is not None:
        procs.send(pid, 15)


def _mark(run: RunFiles) -> None:
    """Empty: it fits on a disk that the job has filled. Where not even that can be made (no inodes,
    read-only) the run is ended all the same, but not called cancelled."""
    try:
        files.write_once(run.cancel, b"")
    except OSError as exc:
        if not files.is_full(exc):
            raise


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
    known = adopt.owned_status(layout, run_id)
    watch = stream.Watch([run], channel.input)
    try:
        while known["phase"] not in ("finished", "absent"):
            left = 1.0 if patience is None else begun + patience - time.monotonic()
            if left <= 0:
                return known
            if watch.wait(min(1.0, left)):
                return {**known, "detached": True}
            moment = time.monotonic()
            if os.path.exists(run.exit) or moment - checked > stream.EVIDENCE_EVERY:
                known, checked = adopt.owned_status(layout, run_id), moment
                run = layout.run(run_id)
            if moment - spoke > KEEPALIVE:
                channel.item({})
                spoke = moment
    finally:
        watch.close()
    return known
