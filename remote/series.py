"""metrics.jsonl as it grows: read once, in bounded pieces, torn and overlong lines passed over."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Dict, Optional

from remote import files, status
from remote.layout import RunFiles

CHUNK = 256 * 1024
LOOK_MAX = 16  # chunks a look: 4 MiB, so that a job that writes gigabytes holds nobody up
LINE_MAX = 4 * 1024 * 1024  # a confusion matrix of 1 000 classes; longer lines are passed over


class Series:
    """The records of the run's metrics.jsonl, each handed out once."""

    def __init__(self, run: RunFiles) -> None:
        self._run = run
        spec = files.read_json(run.spec) or {}
        self._folder = str(spec.get("results_dir") or "results")
        self._identity: Optional[object] = None
        self._offset = 0
        self._rest = b""
        self._skipping = False
        self.overlong = 0  # lines that were passed over for their length
        self.size = 0
        if run.attempt > 1:
            self._skip()

    def _skip(self) -> None:
        """What an earlier attempt wrote is no news of this one."""
        try:
            info = os.stat(self._path())
        except OSError:
            return
        self._identity, self._offset = (info.st_dev, info.st_ino), info.st_size
        self.size = info.st_size

    def _path(self) -> str:
        return os.path.join(status.results_root(self._run, self._folder), "metrics.jsonl")

    def measure(self) -> None:
        """Only `size`, for those to whom growth is all that matters."""
        try:
            self.size = os.stat(self._path()).st_size
        except OSError:
            self.size = 0

    def read(self, take: Callable[[Dict[str, Any]], None], looks: int = LOOK_MAX) -> bool:
        """Hand out what is new; True when there is more than one look may read."""
        try:
            fd = os.open(self._path(), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            info = os.fstat(fd)
            identity = (info.st_dev, info.st_ino)
            if identity != self._identity or info.st_size < self._offset:
                self._identity, self._offset = identity, 0
                self._rest, self._skipping = b"", False
            self.size = info.st_size
            for _ in range(looks):
                chunk = os.pread(fd, CHUNK, self._offset)
                if not chunk:
                    return False
                self._offset += len(chunk)
                self._lines(chunk, take)
            return True
        except OSError:  # a fifo or a folder in its place
            return False
        finally:
            os.close(fd)

    def _lines(self, chunk: bytes, take: Callable[[Dict[str, Any]], None]) -> None:
        if self._skipping:  # the rest of a line that is too long
            _, ended, chunk = chunk.partition(b"\n")
            self._skipping = not ended
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            record = _record(line)
            if record is not None:
                take(record)
        if len(self._rest) > LINE_MAX:
            self._rest, self._skipping = b"", True
            self.overlong += 1


def _record(line: bytes) -> Optional[Dict[str, Any]]:
    try:
        value = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
