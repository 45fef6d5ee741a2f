"""What the agent can be asked. Each verb: (layout, channel, request) -> the reply's body."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Callable, Dict, List

from remote import doctor, files, procs, results, session, start, status, store, stream, wire
from remote.channel import Channel
from remote.layout import Layout

Body = Dict[str, Any]
KEEPALIVE = 10.0


def hello(layout: Layout, channel: Channel, request: Body) -> Body:
    return {
        "protocol": wire.PROTOCOL,
        "python": list(sys.version_info[:3]),
        "boot_id": procs.boot_id(),
        "host_time": status.now(),
        "root": layout.root,
    }


def doctor_facts(layout: Layout, channel: Channel, request: Body) -> Body:
    return doctor.facts(layout)


def sync(layout: Layout, channel: Channel, request: Body) -> Body:
    """Take in a tree: manifest first, then exactly the objects this host lacks; commit last."""
    payloads = channel.payloads()
    data = store.ByteStream(payloads)
    manifest = data.take(int(request["size"]))
    tree = str(request["tree"])
    if wire.tree_hash(manifest) != tree:
        raise wire.WireError("the manifest does not match its hash")
    entries = wire.parse_manifest(manifest)
    wanted = store.missing(layout, entries)
    needed = sum(entries[index].size - have for index, have in wanted)
    if files.free_bytes(layout.root) < needed + start.HEADROOM:
        free = files.free_bytes(layout.root) >> 20
        text = "%d MB are free under %s on the host, %d MB are to be sent"
        raise start.Refused("HostDiskFull", text % (free, layout.root, needed >> 20))
    channel.item({"wanted": wanted})
    store.receive(layout, entries, wanted, data)
    store.commit_tree(layout, manifest, tree)
    if request.get("dataset"):
        store.place_dataset(layout, manifest, tree)
    return {"objects": len(wanted), "bytes": needed}


def statuses(layout: Layout, channel: Channel, request: Body) -> Body:
    return {"runs": [status.status(layout, str(run_id)) for run_id in request["run_ids"]]}


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
        _, left = procs.end_tree(run.run_id, float(request.get("grace") or 10.0), [os.getpid()])
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
    layout: Layout, channel: Channel, run_id: str, patience: "float | None"
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


def view(layout: Layout, channel: Channel, request: Body) -> Body:
    """The run's session, rebuilt if it was lost while the run goes on; how to attach to it."""
    run = layout.run(str(request["run_id"]))
    known = status.status(layout, run.run_id)
    if known["phase"] == "absent":
        return known
    state = status.view_state(run)
    kind = str(state["kind"])
    if known["phase"] not in ("finished",) and not state["open"]:
        kind = session.choose("auto") if kind == "plain" else kind
        if kind != "plain" and session.open_view(kind, run, session.plain_env()):
            record = {"kind": kind, "name": session.name_of(run.run_id)}
            files.write_json(run.session, record, durable=False)
            state = {**record, "open": True, "rebuilt": True}
    if not state["open"]:
        kind = "plain"
    return {**known, "view": state, "argv": list(session.attach_argv(kind, run))}


def list_runs(layout: Layout, channel: Channel, request: Body) -> Body:
    return {"run_ids": sorted(os.listdir(layout.runs))}


VERBS: Dict[str, Callable[[Layout, Channel, Body], Body]] = {
    "hello": hello,
    "doctor": doctor_facts,
    "sync": sync,
    "start": start.start,
    "status": statuses,
    "stream": stream.stream,
    "results": results.send,
    "cancel": cancel,
    "wait": wait,
    "view": view,
    "runs": list_runs,
}


def names() -> List[str]:
    return sorted(VERBS)
