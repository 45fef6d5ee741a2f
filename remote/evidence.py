"""What a host still knows of runs, for accounts of them: records, code, the end of the log.

Read only; a run that is not there, or a record that is torn, is left out of the answer or null.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Optional

from remote import files, status, store
from remote.channel import Beat, Channel
from remote.layout import HEX, BadName, Layout, RunFiles

CONFIG_MAX = 2 * 1024 * 1024
LOG_MAX = 256 * 1024
CONTENT_MAX = 1024 * 1024
CHUNK = 512 * 1024


def evidence(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """An item for each run: its status and records; `log` bytes of its log's end, and with `code`
    what of its code is not as it was sent, if asked for.

    `run_ids` absent: every run of the host. The texts of config.json and spec.json are as they were
    written; what does not decode is null.
    """
    asked = request.get("run_ids")
    named = [str(each) for each in asked] if asked is not None else sorted(os.listdir(layout.runs))
    tail = min(int(request.get("log") or 0), LOG_MAX)
    told = 0
    for run_id in named:
        try:
            run = layout.run(run_id)
        except BadName:
            continue  # a folder of someone else's
        records = {**_records(run), **_tail(run, tail), **_code(layout, run, request, channel.beat)}
        channel.item({**status.status(layout, run_id), **records})
        told += 1
    return {"runs": told}


def _records(run: RunFiles) -> Dict[str, Any]:
    return {
        "config": _text(run.config),
        "spec": files.read_json(run.spec),
        "environment": files.read_json(run.environment),
    }


def _code(layout: Layout, run: RunFiles, request: Dict[str, Any], beat: Beat) -> Dict[str, Any]:
    if not request.get("code"):
        return {}
    from remote import drift

    paths = drift.changed_code(layout, run, beat)
    return {"changed": None if paths is None else drift.told(paths)}


def _text(path: str) -> Optional[str]:
    raw = files.read_regular(path, CONFIG_MAX)
    if raw is None or len(raw) > CONFIG_MAX:
        return None
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _tail(run: RunFiles, count: int) -> Dict[str, Any]:
    if not count:
        return {}
    fd = files.open_regular(run.log)
    if fd is None:
        return {"log": None}
    try:
        size = os.fstat(fd).st_size
        raw = os.pread(fd, count, max(0, size - count))
    finally:
        os.close(fd)
    return {"log": raw.decode("utf-8", "replace"), "log_size": size}


def content(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """What code was: for each of `trees` an item and its manifest's bytes, the same for `objects`.

    {"tree": "s1:...", "size": n} or {"object": sha256, "size": n}, then n bytes; a size of null
    means that it is not here or is larger than CONTENT_MAX (objects only).
    """
    for tree in request.get("trees") or []:
        try:
            manifest: Optional[bytes] = store.manifest_of(layout, str(tree))
        except FileNotFoundError:
            manifest = None
        _send(channel, {"tree": tree}, manifest)
    for name in request.get("objects") or []:
        _send(channel, {"object": name}, _object(layout, str(name)))
    return {}


def _object(layout: Layout, name: str) -> Optional[bytes]:
    if not HEX.match(name):
        raise BadName("not a sha256: %r" % name[:80])
    raw = files.read_regular(layout.object(name), CONTENT_MAX)
    return None if raw is None or len(raw) > CONTENT_MAX else raw


def _send(channel: Channel, about: Dict[str, Any], raw: Optional[bytes]) -> None:
    channel.item({**about, "size": None if raw is None else len(raw)})
    for at in range(0, len(raw or b""), CHUNK):
        channel.data((raw or b"")[at : at + CHUNK])
