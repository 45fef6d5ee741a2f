"""Go on with a run that has ended, in its own directory: the next attempt, started at most once."""

from __future__ import annotations

import os
from typing import Any, Dict

from remote import attempts, drift, events, files, procs, start, status, trees
from remote.aside import Aside
from remote.channel import Beat, Channel
from remote.errors import Damaged, Refused, before_any_change
from remote.layout import BadName, Layout, RunFiles
from remote.voice import Voice

OWNER_PATIENCE = 20.0  # seconds; more than the deadlines of a slow tmux together
NAMED_MAX = 5


def resume(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """Start attempt `attempt` of the run unless it was started before; the reply is its status.

    Refused with nothing changed for a run that goes on, has succeeded, or whose directory does not
    hold what a new attempt needs.
    """
    following = layout.attempt(str(request["run_id"]), int(request["attempt"]))
    with before_any_change(lambda: start.is_decided(following)):
        return _resume(layout, channel, request, following)


def _resume(
    layout: Layout, channel: Channel, request: Dict[str, Any], following: RunFiles
) -> Dict[str, Any]:
    run_id, wanted = following.run_id, following.attempt
    guard = files.lock_alive(layout.lock(run_id + ".claim"), channel.beat)
    try:
        run = layout.run(run_id)
        if start.is_decided(following):
            return {**status.status(layout, run_id), "already": True}
        known = status.status(layout, run_id)
        if wanted != run.attempt + 1 or known["phase"] != "finished":
            raise Refused("NotResumable", _why_not(known, run.attempt, wanted))
        if (known.get("exit") or {}).get("verdict") == "succeeded":
            raise Refused("NotResumable", "it has succeeded; there is nothing to go on with")
        _await_owner(layout, run_id)
        left = status.tree_of(run).living()
        if left:
            raise Refused("NotResumable", "processes of it still live: %s" % left[:20])
        for name in drift.changed_data(layout, run, channel.beat):
            raise Refused("NotResumable", "its data %r was changed on the host since" % name)
        order = _order(run.order, request)
        start.check_host(layout, order, 0)
        _mend_after_crash(layout, run, order, channel.beat)
        attempts.lay_reserve(following)
        return start.launch(layout, following, order)
    finally:
        os.close(guard)


def _await_owner(layout: Layout, run_id: str) -> None:
    """The owner of the attempt before has let go of the run: after its exit record it still closes
    the session, whose name the next owner will use."""
    held = files.lock_within(layout.lock(run_id + ".lock"), OWNER_PATIENCE)
    if held is None:
        told = "its supervisor is still closing its session; the same command works in a moment"
        raise Refused("NotResumable", told)
    os.close(held)


def _mend_after_crash(layout: Layout, run: RunFiles, order: Dict[str, Any], beat: Beat) -> None:
    """The run has its code and config whole, also where the host crashed before they had reached
    the disk; what was mended is said. Refused where that cannot be."""
    begun = files.read_json(run.started) or {}
    if os.path.exists(run.synced) or begun.get("boot_id") == procs.boot_id():
        return
    lost = "the host went down before the run's %s had reached the disk"
    if "config" not in order:  # of an orch that left no mark: what was there before is not known
        if files.read_json(run.config) is None:
            raise Refused("NotResumable", lost % "config")
        return
    aside = files.free_name(os.path.join(run.path, "unsynced"))
    try:
        names = trees.mend(layout, str(order.get("snapshot")), run.tree, aside, beat)
    except (BadName, FileNotFoundError, Damaged):
        raise Refused("NotResumable", lost % "code" + ", and it has no other copy") from None
    if names:
        more = " and %d more" % (len(names) - NAMED_MAX) if len(names) > NAMED_MAX else ""
        told = "placed anew, since they had not reached the disk when the host went down: %s%s"
        told %= (", ".join(names[:NAMED_MAX]), more)
        voice = Voice(run, order, None, Aside())
        voice.say(told)
        os.close(voice.log)
        events.append(run, status.now(), "mended", told)


def _why_not(known: Dict[str, Any], attempt: int, wanted: int) -> str:
    if known["phase"] == "absent":
        return "the host has no such run"
    if "machine" in known and known["phase"] != "finished":
        return "it was started on %(machine)s, which has this home too" % known
    if known["phase"] != "finished":
        return "it has not ended: it is %s" % known["phase"]
    return "its latest attempt is %d, so the next one cannot be %d" % (attempt, wanted)


def _order(path: str, request: Dict[str, Any]) -> Dict[str, Any]:
    """What was asked for at first, with what only the asking shell knows."""
    secrets = request.get("secrets") or {}
    order = files.read_json(path)
    if order is None or not order.get("stages"):
        raise Refused("NotResumable", "the host has not kept what is to be started")
    lacking = [name for name in order.get("secrets_named") or [] if name not in secrets]
    if lacking:
        raise Refused("NotResumable", "it needs the secrets %s" % ", ".join(lacking))
    return {**order, "secrets": secrets, "webhook": request.get("webhook")}
