"""What happened to a run on its host while nobody asked: one JSON object a line, only appended."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Optional

from remote import files, wire
from remote.layout import RunFiles

FILE_MAX = 4 * 1024 * 1024  # bytes that are looked through
READ_MAX = 64 * 1024  # bytes that are told
LINE_MAX = 4096
COUNT_MAX = 100


def append(run: RunFiles, at: str, kind: str, message: str, **about: Any) -> None:
    """One more line; best effort, since a full disk must not end a run."""
    record = {"at": at, "kind": kind, "message": message[:1000], **about}
    line = json.dumps(wire.lawful(record), sort_keys=True).encode("ascii")
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
    """The latest of the events in the file's first `FILE_MAX` bytes, oldest first, each with its
    line number as `number`; torn lines and those that are too long to be ours are left out."""
    raw = files.read_regular(run.events, FILE_MAX) or b""
    lines = list(enumerate(raw[:FILE_MAX].split(b"\n")[:-1], start=1))
    found: List[Dict[str, Any]] = []
    left = READ_MAX
    for number, line in reversed(lines[-COUNT_MAX:]):
        record = _record(line)
        if record is not None:
            left -= len(line)
            if left < 0:
                break
            found.append({**record, "number": number})
    return found[::-1]


def _record(line: bytes) -> Optional[Dict[str, Any]]:
    if len(line) > LINE_MAX:
        return None
    try:
        record = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
