"""What a job changed of what was sent for its run. A later attempt is of the same run, and its
result is filed under the same hashes: before it begins it is looked at what they stand for."""

from __future__ import annotations

import os
import stat
from typing import Any, Dict, List, Optional

from remote import datasets, files, store, trees, wire
from remote.channel import Beat, no_beat
from remote.layout import BadName, Layout, RunFiles

NAMED_MAX = 5
KINDS = {"f": stat.S_IFREG, "l": stat.S_IFLNK}


def changed_data(layout: Layout, run: RunFiles, beat: Beat = no_beat) -> List[str]:
    """The names of the run's datasets that are not as they were placed."""
    spec = files.read_json(run.spec) or {}
    return datasets.changed(layout, spec.get("data") or {}, beat)


def restore_config(run: RunFiles) -> bool:
    """config.json is as it was sent; True if it was not. (An orch of before this kept no copy.)"""
    sent = (files.read_json(run.order) or {}).get("config")
    if not isinstance(sent, str):
        return False
    raw = sent.encode("utf-8")
    if files.read_regular(run.config, len(raw)) == raw:
        return False
    files.write_atomic(run.config, raw)
    return True


def changed_code(layout: Layout, run: RunFiles, beat: Beat = no_beat) -> Optional[List[str]]:
    """The files of the run's tree that are not as they were sent; what a job made beside them does
    not count. None: the manifest is not here any more."""
    order = files.read_json(run.order) or {}
    try:
        manifest = store.manifest_of(layout, str(order.get("snapshot")))
        since = os.stat(layout.attempt(run.run_id, 1).started).st_mtime_ns
    except (OSError, BadName):
        return None
    base = os.fsencode(run.tree)
    return [
        entry.path.decode("utf-8", "backslashreplace")
        for entry in wire.parse_manifest(manifest)
        if not _is_as_sent(base + b"/" + entry.path, entry, since, beat)
    ]


def _is_as_sent(path: bytes, entry: wire.Entry, since: int, beat: Beat) -> bool:
    """`since`: when the first attempt began. No program can set the time of a file's last change
    (ctime): only what was touched after that is hashed."""
    beat()
    try:
        info = os.lstat(path)
        if (stat.S_IFMT(info.st_mode), info.st_size) != (KINDS[entry.kind], entry.size):
            return False
        if info.st_ctime_ns < since:
            return True
        return trees.is_whole(path, entry, beat)
    except OSError:
        return False


def told(paths: List[str]) -> Dict[str, Any]:
    """How many, and which first."""
    return {"count": len(paths), "files": paths[:NAMED_MAX]}


def words(paths: List[str]) -> str:
    more = " and %d more" % (len(paths) - NAMED_MAX) if len(paths) > NAMED_MAX else ""
    many = "1 file of its code is" if len(paths) == 1 else "%d files of its code are" % len(paths)
    return "%s not as sent: %s%s" % (many, ", ".join(paths[:NAMED_MAX]), more)
