"""Following a run's log by byte offset. The kernel says when it grew; polling is the net."""

from __future__ import annotations

import os
import select
import stat
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from remote import adopt, files, lastlines, status
from remote.channel import Channel
from remote.layout import Layout, RunFiles

CHUNK = 64 * 1024  # a frame that a link that is cut again and again still gets through
HEARTBEAT = 10.0
EVIDENCE_EVERY = 2.0
PROGRESS_EVERY = 0.5

IN_MODIFY, IN_ATTRIB, IN_MOVED_TO, IN_CREATE = 0x2, 0x4, 0x80, 0x100
IN_DELETE_SELF, IN_MOVE_SELF, IN_NONBLOCK = 0x400, 0x800, 0o4000


class Watch:
    """Wakes when a log or a run directory changes, or when the controller speaks."""

    def __init__(self, runs: Sequence[RunFiles], control: int) -> None:
        self._control = control
        self._fd = -1
        try:
            import ctypes  # 10 ms and 1 MB that only a follower pays

            libc = ctypes.CDLL(None, use_errno=True)
            self._fd = libc.inotify_init1(IN_NONBLOCK)
            self._add = libc.inotify_add_watch
        except (ImportError, AttributeError, OSError):  # no inotify here: polling alone
            return
        for run in runs:
            self.add(run.path, IN_CREATE | IN_MOVED_TO)
            self.add(run.log, IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)

    def add(self, path: str, mask: int) -> None:
        if self._fd >= 0:
            self._add(self._fd, os.fsencode(path), mask)

    def wait(self, seconds: float) -> bool:
        """Sleep until something happened; True if the controller spoke or went away."""
        watched = [self._control] + ([self._fd] if self._fd >= 0 else [])
        ready, _, _ = select.select(watched, [], [], seconds if self._fd >= 0 else 0.02)
        if self._fd in ready:
            os.read(self._fd, 65536)
        return self._control in ready

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


class LogReader:
    """Reads one log from where `request` says, see `stream`; notices truncation and replacement."""

    def __init__(self, run: RunFiles, request: Dict[str, Any], follow: bool) -> None:
        identity = request.get("file")
        self.run = run
        self.offset = int(request.get("offset") or 0)
        self.identity = identity if isinstance(identity, list) else None
        self._jumps: List[Tuple[int, int]] = []  # (from, to): what lies between is not to be sent
        if request.get("lines") is not None:
            count, raw = int(request["lines"]), bool(request.get("raw"))
            self.offset, self._jumps = lastlines.last_lines(run.log, count, raw)
        self._follow = follow
        self._end: Optional[int] = None  # how far to read; None: as far as it goes
        self._fd = -1
        self._told_odd = False

    def read(self, channel: Channel) -> bool:
        """Send what is new; True if there was something."""
        if not self._open(channel):
            return False
        if self._jumps and self._jumps[0][0] == self.offset:
            self.offset = self._jumps.pop(0)[1]
            channel.item({"file": self.identity, "offset": self.offset})
        end = self._jumps[0][0] if self._jumps else self._end
        left = CHUNK if end is None else max(0, end - self.offset)
        chunk = os.pread(self._fd, min(CHUNK, left), self.offset)
        if not chunk:
            return False
        channel.data(chunk)
        self.offset += len(chunk)
        return True

    def _open(self, channel: Channel) -> bool:
        try:
            info = os.stat(self.run.log)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(info.st_mode):  # a fifo would be waited for
            if not self._told_odd:
                channel.item({"marker": "the log on the host is no regular file any more"})
            self._told_odd = True
            return False
        identity = [info.st_dev, info.st_ino]
        if self.identity is not None and identity != self.identity:
            self._restart(channel, "replaced")
        elif info.st_size < self.offset:
            self._restart(channel, "truncated")
        if self._fd < 0 or identity != self.identity:
            self.close()
            self._fd = os.open(self.run.log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self.identity = identity
            if not self._follow:  # a job that writes faster than the link would have no end
                self._end = info.st_size
            channel.item({"file": identity, "offset": self.offset})
        return True

    def _restart(self, channel: Channel, what: str) -> None:
        self.offset, self._jumps = 0, []
        channel.item({"marker": "the log was %s on the host; it goes on from its start" % what})

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def stream(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """Send the log from `offset` (or its last `lines`); with `follow` until the run has ended,
    without it what is there at the beginning. Of the last lines what a terminal would show, all of
    them with `raw`; where something is left out an item tells the offset at which it goes on.

    Any word from the controller ends it too, and so does the loss of the run's directory. The reply
    tells the offset reached and what is known of the run; only `phase: finished` in it means that
    the log is complete.
    """
    run = layout.run(str(request["run_id"]))
    known = status.status(layout, run.run_id)
    if known["phase"] == "absent":
        return known
    follow = bool(request.get("follow"))
    reader = LogReader(run, request, follow)
    try:
        known = _follow(layout, channel, reader, follow)
    finally:
        reader.close()
    return {**known, "offset": reader.offset}


def _follow(layout: Layout, channel: Channel, reader: LogReader, follow: bool) -> Dict[str, Any]:
    run = reader.run
    watch = Watch([run], channel.input) if follow else None
    progress = Progress(run)
    known = adopt.owned_status(layout, run.run_id)
    channel.item({"status": known})
    checked = spoke = time.monotonic()
    try:
        while True:
            ended = known["phase"] in ("finished", "absent")
            if reader.read(channel):
                spoke = time.monotonic()
                continue
            if watch is None:
                return known  # not of now: what was written since has not been sent
            if ended:
                return status.status(layout, run.run_id)
            if progress.send(channel):
                spoke = time.monotonic()
            if watch.wait(PROGRESS_EVERY):
                return {**known, "detached": True}
            if reader.read(channel):  # before anything else: someone waits for this line
                spoke = time.monotonic()
                continue
            moment = time.monotonic()
            if os.path.exists(run.exit) or moment - checked > EVIDENCE_EVERY:
                before, known = state_of(known), adopt.owned_status(layout, run.run_id)
                run, checked = layout.run(run.run_id), moment
                if state_of(known) != before:
                    channel.item({"status": known})
            if moment - spoke > HEARTBEAT:
                channel.item({})
                spoke = moment
    finally:
        if watch is not None:
            watch.close()


def state_of(known: Dict[str, Any]) -> Any:
    return known["phase"], known.get("attempt")


class Progress:
    """The newest line of results/metrics.jsonl, for a progress bar."""

    LINE_MAX = 4096

    def __init__(self, run: RunFiles) -> None:
        spec = files.read_json(run.spec) or {}
        folder = str(spec.get("results_dir") or "results")
        self._path = os.path.join(status.results_root(run, folder), "metrics.jsonl")
        self._size = -1
        self._next = 0.0

    def send(self, channel: Channel) -> bool:
        moment = time.monotonic()
        if moment < self._next:
            return False
        self._next = moment + PROGRESS_EVERY
        line = self.newest()
        if line is None:
            return False
        channel.item({"progress": line})
        return True

    def newest(self) -> Optional[str]:
        """The last whole line, if the file has changed since it was looked at."""
        raw = b""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            size = os.fstat(fd).st_size
            if size == self._size:
                return None
            self._size = size
            raw = os.pread(fd, self.LINE_MAX, max(0, size - self.LINE_MAX))
        except OSError:  # a folder or a fifo in its place
            return None
        finally:
            os.close(fd)
        lines = raw.split(b"\n")
        return lines[-2].decode("utf-8", "replace") if len(lines) > 1 and lines[-2] else None
