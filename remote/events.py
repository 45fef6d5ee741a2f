"""What happened to a run on its host while nobody asked: one JSON object a line, only appended."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List

from remote import files
from remote.layout import RunFiles

READ_MAX = 64 * 1024
LINE_MAX = 4096
COUNT_MAX = 100


def append(run: RunFiles, at: str, kind: str, message: str, **about: Any) -> None:
    """One more line; best effort, since a full disk must not end a run."""
    record = {"at": at, "kind": kind, "message": message[:1000], **about}
    line = json.dumps(record, sort_keys=True).encode("ascii")
    if len(line) > LINE_MAX:
        line = json.dumps({key: record[key] for key in ("at", "kind", "message")}).encode("ascii")
    try:
        fd = os.open(run.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        files.write_all(fd, line + b"\n")
        os.fsync(fd)
    except OSError:
        pass
    finally:
        os.close(fd)


def read(run: RunFiles) -> List[Dict[str, Any]]:
    """The events, oldest first, each with its line number as `number`; torn lines are left out."""
    raw = files.read_regular(run.events, READ_MAX) or b""
    found = []
    for number, line in enumerate(raw[:READ_MAX].split(b"\n")[:-1][:COUNT_MAX], start=1):
        try:
            record = json.loads(line.decode("ascii"))
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            found.append({**record, "number": number})
    return found
