"""Sending a run's results: every file with its sha256, only what the other side lacks.

Small files travel many to a batch, large ones in pieces that can go on where a cut left them. Only
regular files are read; links and special files are named and left where they are. What should have
been sent and could not be read is named as well, and told apart from those.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import re
import stat
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Pattern

from remote import files, status, store, wire
from remote.channel import Channel
from remote.layout import Layout, RunFiles

SMALL = 128 * 1024
BATCH_FILES = 512
BATCH_BYTES = 768 * 1024
CHUNK = 512 * 1024
WENT_AWAY = "went away while it was read"
TOO_DEEP = "more than %d folders deep" % wire.FOLDERS_MAX
BECAME_SHORTER = "became shorter while it was read"


def send(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """Items, in order: {"batch": [[path, mode, size, sha256], ...]} + their bytes;
    {"large": path, "mode", "size", "offset"} + bytes + {"sha256"} or {"torn"}; {"same": [path,
    ...]}; {"left": [[path, why], ...]}, with "unread": true of files and folders that belong to the
    results and could not be read. The reply counts files and bytes, names the folder on this
    machine, and tells the run's phase.

    Behind the request come `listed` bytes of JSON: {"have": {path: [size, sha256]} of complete
    copies, "parts": {path: [bytes, sha256 of those bytes]} of begun ones}.
    """
    listed = store.ByteStream(channel.payloads()).take(int(request.get("listed") or 0))
    here = wire.decode_json(listed or b"{}")
    run = layout.run(str(request["run_id"]))
    before = status.status(layout, run.run_id)
    if before["phase"] == "absent":
        return before
    spec = files.read_json(run.spec) or {}
    seen = str(spec.get("results_dir") or "results")  # in the tree
    root = status.results_root(run, seen)
    if not os.path.isdir(root):
        return {**before, "no_results": True}
    exclude = request.get("exclude")
    if exclude is None:
        exclude = spec.get("results_exclude") or []
    have, parts = here.get("have") or {}, here.get("parts") or {}
    sender = Sender(channel, root, have, parts, before["phase"] != "finished")
    look_aside(sender, run, root, seen)
    sender.run([str(pattern) for pattern in exclude])
    counts = {"files": sender.count, "bytes": sender.bytes, "excluded": sender.excluded}
    about = {"folder": root, "environment": files.read_json(run.environment)}
    return {**before, **counts, **about}


def look_aside(sender: "Sender", run: RunFiles, root: str, seen: str) -> None:
    """The results are read from `root`, one of their two names, the run's own folder and that in
    the tree: what else the other one stands for is named."""
    inside = os.path.join(run.tree, seen)
    if root == inside:
        if any(each.fault != WENT_AWAY for each in walk(run.results, [])):
            sender.left.append([run.results, "apart from what is at " + inside])
    elif os.path.lexists(inside) and not os.path.isdir(inside):
        link = "a symbolic link to %s, " % os.readlink(inside) if os.path.islink(inside) else ""
        sender.unread.append([inside, link + "no folder"])


class Found(NamedTuple):
    """Something in the results that is no folder, or a folder that cannot be listed."""

    path: str  # relative to the root, which itself is `.`
    info: Optional[os.stat_result] = None  # of lstat
    excluded: bool = False
    fault: str = ""  # why it cannot be read; there is no info then


def walk(root: str, exclude: List[str]) -> Iterator[Found]:
    """All that is there, sorted within each folder; what lies in an excluded folder is excluded."""
    patterns = [compiled(pattern) for pattern in exclude]
    stack = [("", False)]
    while stack:
        folder, excluded = stack.pop()
        try:
            names = sorted(os.listdir(os.path.join(root, folder)))
        except OSError as exc:
            yield Found(folder or ".", excluded=excluded, fault=_words(exc))
            continue
        for name in names:
            path = folder + "/" + name if folder else name
            left_out = excluded or any(pattern.match(path) for pattern in patterns)
            try:
                info = os.lstat(os.path.join(root, path))
            except OSError as exc:
                yield Found(path, excluded=left_out, fault=_words(exc))
                continue
            if stat.S_ISDIR(info.st_mode):
                stack.append((path, left_out))
            else:
                yield Found(path, info, left_out)


def compiled(pattern: str) -> Pattern[str]:
    """An exclude pattern, relative to the results folder, for the paths in it.

    fnmatch, in which `*` also passes `/`, and `**/` stands for any folders or none. `a/**` is all
    of `a`, as are `a/` and `a`; a pattern without a `/` before its end fits a name in any folder.
    """
    plain = re.sub(r"^(\./+|/+)+", "", pattern).rstrip("/")
    inside = plain[:-3] if plain.endswith("/**") else plain
    anchored = "/" in inside or inside != plain or plain != pattern.rstrip("/")
    parts = re.split(r"(?<![^/])\*\*/+", inside)
    # translate() gives `(?s:...)` and the end of the text, which only the last part has.
    body = "(?:.*/)?".join(fnmatch.translate(part)[:-2] for part in parts)
    return re.compile(("" if anchored else "(?:.*/)?") + body + r"\Z", re.DOTALL)


class Unread(Exception):
    """A file that is open cannot be read to its end; the message says why."""


class Sender:
    def __init__(
        self,
        channel: Channel,
        root: str,
        have: Dict[str, Any],
        parts: Dict[str, Any],
        goes_on: bool,
    ) -> None:
        """`goes_on`: the run does, so files may change and go away under us."""
        self._channel = channel
        self._root = root
        self._have = have
        self._parts = parts
        self._goes_on = goes_on
        self._batch: List[List[Any]] = []
        self._content: List[bytes] = []
        self._same: List[str] = []
        self.left: List[List[str]] = []
        self.unread: List[List[str]] = []
        self.count = 0
        self.bytes = 0
        self.excluded = 0

    def run(self, exclude: List[str]) -> None:
        for found in walk(self._root, exclude):
            self._channel.beat()
            if found.excluded:
                self.excluded += 1
            elif found.info is None:
                self._miss(found.path, found.fault)
            elif not stat.S_ISREG(found.info.st_mode):
                self.left.append([found.path, _kind(found.info.st_mode)])
            elif wire.is_own(found.path):
                self.left.append([found.path, "a name that fetched results have for orch itself"])
            elif found.path.count("/") > wire.FOLDERS_MAX:
                self.unread.append([found.path, TOO_DEEP])
            else:
                self._file(found.path)
        self._flush()
        self._tell(self.left, {})
        self._tell(self.unread, {"unread": True})

    def _tell(self, rows: List[List[str]], more: Dict[str, Any]) -> None:
        for at in range(0, len(rows), BATCH_FILES):
            self._channel.item({"left": rows[at : at + BATCH_FILES], **more})

    def _miss(self, path: str, why: str) -> None:
        """That a job rewrites its files while it runs is no fault of theirs."""
        moves = self._goes_on and why in (WENT_AWAY, BECAME_SHORTER)
        (self.left if moves else self.unread).append([path, why])

    def _file(self, path: str) -> None:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(os.path.join(self._root, path), flags)
        except OSError as exc:
            self._miss(path, _words(exc))
            return
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                self.left.append([path, _kind(info.st_mode)])
            elif info.st_size <= SMALL:
                self._small(fd, path, info)
            else:
                self._large(fd, path, info)
        except Unread as exc:
            self._miss(path, str(exc))
        finally:
            os.close(fd)

    def _small(self, fd: int, path: str, info: os.stat_result) -> None:
        content = _read(fd, SMALL, 0)
        digest = hashlib.sha256(content).hexdigest()
        self.count += 1
        self.bytes += len(content)
        if self._have.get(path) == [len(content), digest]:
            self._same.append(path)
        else:
            self._batch.append([path, info.st_mode & 0o777, len(content), digest])
            self._content.append(content)
        total = sum(map(len, self._content))
        if total > BATCH_BYTES or len(self._batch) + len(self._same) >= BATCH_FILES:
            self._flush()

    def _flush(self) -> None:
        if self._same:
            self._channel.item({"same": self._same})
        if self._batch:
            self._channel.item({"batch": self._batch})
            content = b"".join(self._content)
            if content:
                self._channel.data(content)
        self._same, self._batch, self._content = [], [], []

    def _large(self, fd: int, path: str, info: os.stat_result) -> None:
        self._flush()
        size = info.st_size
        known = self._have.get(path)
        if known and known[0] == size and self._hashed(fd, size).hexdigest() == known[1]:
            self.count += 1
            self.bytes += size
            self._channel.item({"same": [path]})
            return
        offset = 0
        digest = hashlib.sha256()
        part = self._parts.get(path)
        if part and 0 < int(part[0]) <= size:
            begun = self._hashed(fd, int(part[0]))
            if begun.hexdigest() == part[1]:
                offset, digest = int(part[0]), begun
        mode = info.st_mode & 0o777
        self._channel.item({"large": path, "mode": mode, "size": size, "offset": offset})
        try:
            while offset < size:
                chunk = _read(fd, min(CHUNK, size - offset), offset)
                if not chunk:
                    raise Unread(BECAME_SHORTER)
                digest.update(chunk)
                self._channel.data(chunk)
                offset += len(chunk)
        except Unread:  # the rest cannot be had
            self._channel.item({"torn": path})
            raise
        self._channel.item({"sha256": digest.hexdigest()})
        self.count += 1
        self.bytes += size

    def _hashed(self, fd: int, size: int) -> "hashlib._Hash":
        """The sha256 of the file's first `size` bytes, or of all it has."""
        digest = hashlib.sha256()
        at = 0
        while at < size:
            chunk = _read(fd, min(CHUNK, size - at), at)
            if not chunk:
                break
            digest.update(chunk)
            at += len(chunk)
            self._channel.beat()
        return digest


def _read(fd: int, count: int, at: int) -> bytes:
    try:
        return os.pread(fd, count, at)
    except OSError as exc:
        raise Unread(_words(exc)) from None


def _words(exc: OSError) -> str:
    gone = exc.errno in (errno.ENOENT, errno.ENOTDIR)
    return WENT_AWAY if gone else exc.strerror or "cannot be read"


def _kind(mode: int) -> str:
    names = (
        (stat.S_ISLNK, "a symbolic link"),
        (stat.S_ISFIFO, "a fifo"),
        (stat.S_ISSOCK, "a socket"),
    )
    for test, name in names:
        if test(mode):
            return name
    return "not a regular file"
