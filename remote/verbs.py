"""What the agent can be asked. Each verb: (layout, channel, request) -> the reply's body."""

from __future__ import annotations

import importlib
import os
from typing import Any, Callable, Dict, Iterator, Optional

from remote import adopt, closing, files, session, status
from remote.causes import End
from remote.channel import Channel
from remote.layout import Layout, RunFiles

Body = Dict[str, Any]
Verb = Callable[[Layout, Channel, Body], Body]


def statuses(layout: Layout, channel: Channel, request: Body) -> Body:
    """An item for each of `run_ids`, in their order: its status."""
    for known in known_runs(layout, request):
        channel.item(known)
    return {}


def known_runs(layout: Layout, request: Body) -> Iterator[Body]:
    """The status of each of `run_ids`, in their order.

    Before that each of `close` ({"run_id", "attempt", "verdict", "reason"}) that has not started is
    closed for good, and a job found without its supervisor is watched again. With `search` the
    status of an absent run counts its `living` processes: its directory may have been taken away.
    With `untouched` nobody begins to watch a job.
    """
    of = status.status if request.get("untouched") else adopt.owned_status
    for item in request.get("close") or []:
        end = End(str(item["verdict"]), reasons=(str(item["reason"]),))
        closing.close(layout, str(item["run_id"]), int(item["attempt"]), end)
    for run_id in request["run_ids"]:
        known = of(layout, str(run_id))
        if request.get("search") and known["phase"] == "absent":
            from remote import vanished

            known["living"] = vanished.living(layout, known["run_id"])
        yield known


def view(layout: Layout, channel: Channel, request: Body) -> Body:
    """The run's session, rebuilt if it was lost while the run goes on; how to attach to it."""
    run = layout.run(str(request["run_id"]))
    known = status.status(layout, run.run_id)
    if known["phase"] == "absent":
        return known
    if known["phase"] == "finished":
        return _of_ended(known, run)
    state = status.view_state(run)
    kind = str(state["kind"])
    if not state["open"] and "machine" not in known:
        kind = session.choose("auto") if kind == "plain" else kind
        if kind != "plain" and session.open_view(kind, run, session.plain_env()):
            record = {"kind": kind, "name": session.name_of(run.run_id)}
            files.write_json(run.session, record, durable=False)
            state = {**record, "open": True, "rebuilt": True}
            known = status.status(layout, run.run_id)
            if known["phase"] == "finished":  # its end has closed what stood before ours
                session.close(run)
                return _of_ended(known, run)
    if not state["open"]:
        kind = "plain"
    return {**known, "view": state, "argv": list(session.attach_argv(kind, run))}


def _of_ended(known: Body, run: RunFiles) -> Body:
    return {**known, "view": None, "argv": list(session.log_argv(run, "none"))}


def list_runs(layout: Layout, channel: Channel, request: Body) -> Body:
    """Every run of this host; an item for each of `describe`: what was known at its submit."""
    for run_id in request.get("describe") or []:
        run = layout.run(str(run_id))
        about = {**(files.read_json(run.spec) or {}), "config": files.read_json(run.config)}
        channel.item({"run_id": str(run_id), "described": about})
    return {"run_ids": sorted(os.listdir(layout.runs))}


# Where each verb lives: a call imports what it needs and no more, since a start is waited for.
VERBS: Dict[str, str] = {
    "doctor": "remote.doctor:doctor",
    "sync": "remote.sync:sync",
    "start": "remote.start:start",
    "resume": "remote.resume:resume",
    "status": "remote.verbs:statuses",
    "stream": "remote.stream:stream",
    "streams": "remote.streams:streams",
    "results": "remote.results:send",
    "cancel": "remote.ending:cancel",
    "wait": "remote.ending:wait",
    "view": "remote.verbs:view",
    "runs": "remote.verbs:list_runs",
    "usage": "remote.usage:usage",
    "evidence": "remote.evidence:evidence",
    "content": "remote.evidence:content",
    "survey": "remote.survey:survey",
    "listing": "remote.listing:listing",
    "notify": "remote.notify:notify",
    "glance": "remote.glance:glance",
}


def find(name: str) -> Optional[Verb]:
    place = VERBS.get(name)
    if place is None:
        return None
    module, _, function = place.partition(":")
    found: Verb = getattr(importlib.import_module(module), function)
    return found
