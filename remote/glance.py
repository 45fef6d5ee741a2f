"""What is worth a glance: of runs their last words, of GPUs who holds them. One exchange a host."""

from __future__ import annotations

import os
import pwd
from typing import Any, Dict, List, Optional

from remote import files, gpu, procs, verbs
from remote.channel import Channel
from remote.layout import RUN_ID, Layout, RunFiles
from remote.stream import Progress

Body = Dict[str, Any]
TAIL = 4096  # bytes of a log in which its last line is looked for
LINE_MAX = 400


def glance(layout: Layout, channel: Channel, request: Body) -> Body:
    """The items of `status` to the same request; of each run that goes on also `progress`, the
    newest line of its metrics.jsonl, and `line`, the last one of its log. With `gpus` true `cards`,
    or `cards_error`: why nvidia-smi cannot tell."""
    for known in verbs.known_runs(layout, {"run_ids": [], **request}):
        if known["phase"] not in ("absent", "finished"):
            run = layout.run(known["run_id"])
            known.update(progress=Progress(run).newest(), line=_last_line(run))
        channel.item(known)
    reply: Body = {}
    if request.get("gpus"):
        try:
            reply["cards"] = cards(layout)
        except gpu.NoAnswer as exc:
            reply["cards_error"] = str(exc)
    return reply


def _last_line(run: RunFiles) -> Optional[str]:
    fd = files.open_regular(run.log)
    if fd is None:
        return None
    try:
        size = os.fstat(fd).st_size
        tail = os.pread(fd, TAIL, max(0, size - TAIL))
    except OSError:
        return None
    finally:
        os.close(fd)
    lines = [line for line in tail.replace(b"\r", b"\n").split(b"\n") if line.strip()]
    return lines[-1].decode("utf-8", "replace")[:LINE_MAX] if lines else ""


def cards(layout: Layout) -> List[Body]:
    """Each GPU as nvidia-smi sees it; `lease`: the run that holds it; `processes`: what computes on
    it, and to which run it belongs (null: to none of this user's)."""
    smi = gpu.Smi()
    seen = smi.cards()
    users = smi.users() if seen else []
    return [
        {
            **card._asdict(),
            "lease": _lease(layout, card),
            "processes": [_process(user) for user in users if user.uuid == card.uuid],
        }
        for card in seen
    ]


def _lease(layout: Layout, card: gpu.Gpu) -> Optional[Body]:
    run_id = gpu.holder(layout, card)
    if run_id is None:
        return None
    spec: Body = {}
    if RUN_ID.match(run_id):
        spec = files.read_json(layout.run(run_id).spec) or {}
    return {"run_id": run_id or None, "job": spec.get("job"), "project": spec.get("project")}


def _process(user: gpu.User) -> Body:
    return {
        "pid": user.pid,
        "user": _owner(user.pid),
        "name": user.name,
        "memory": user.memory,
        "run_id": procs.run_of(user.pid),
    }


def _owner(pid: int) -> Optional[str]:
    try:
        uid = os.stat("/proc/%d" % pid).st_uid
    except OSError:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
