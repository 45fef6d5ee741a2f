"""Sending a run's results: every file with its sha256, only what the other side lacks.

Small files travel many to a batch, large ones in pieces that can go on where a cut left them. Only
regular files are read; links and special files are named and left where they are.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
from typing import Any, Dict, Iterator, List, Tuple

from remote import files, status, store, wire
from remote.channel import Channel
from remote.layout import Layout

SMALL = 128 * 1024
BATCH_FILES = 512
BATCH_BYTES = 768 * 1024
CHUNK = 512 * 1024


def send(layout: Layout, channel: Channel, request: Dict[str, Any]) -> Dict[str, Any]:
    """Items, in order: {"batch": [[path, mode, size, sha256], ...]} + their bytes;
    {"large": path, "mode", "size", "offset"} + bytes + {"sha256"}; {"same": [path, ...]};
    {"left": [[path, why], ...]}. The reply counts files and bytes, and tells the run's phase.

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
    root = status.results_root(run, str(spec.get("results_dir") or "results"))
    if not os.path.isdir(root):
        return {**before, "no_results": True}
    exclude = request.get("exclude")
    if exclude is None:
        exclude = spec.get("results_exclude") or []
    sender = Sender(channel, root, here.get("have") or {}, here.get("parts") or {})
    sender.run([str(pattern) for pattern in exclude])
    counts = {"files": sender.count, "bytes": sender.bytes, "excluded": sender.excluded}
    return {**before, **counts, "environment": files.read_json(run.environment)}


def walk(root: str, exclude: List[str]) -> Iterator[Tuple[str, os.stat_result, bool]]:
    """(path relative to root, lstat, excluded), sorted within each folder."""
    stack = [""]
    while stack:
        folder = stack.pop()
        try:
            names = sorted(os.listdir(os.path.join(root, folder)))
        except OSError:
            continue
        for name in names:
            path = folder + "/" + name if folder else name
            try:
                info = os.lstat(os.path.join(root, path))
            except OSError:
                continue
            left_out = matches(path, exclude)
            if stat.S_ISDIR(info.st_mode) and not left_out:
                stack.append(path)
            else:
                yield path, info, left_out


def matches(path: str, patterns: List[str]) -> bool:
    """`a/**` covers everything under a; `*.tmp` any file of that name; the rest is fnmatch."""
    for pattern in patterns:
        if pattern.endswith("/**") and (path + "/").startswith(pattern[:-2]):
            return True
        if fnmatch.fnmatchcase(path, pattern):
            return True
        if "/" not in pattern and fnmatch.fnmatchcase(path.rpartition("/")[2], pattern):
            return True
    return False


class Sender:
    def __init__(
        self, channel: Channel, root: str, have: Dict[str, Any], parts: Dict[str, Any]
    ) -> None:
        self._channel = channel
        self._root = root
        self._have = have
        self._parts = parts
        self._batch: List[List[Any]] = []
        self._content: List[bytes] = []
        self._same: List[str] = []
        self._left: List[List[str]] = []
        self.count = 0
        self.bytes = 0
        self.excluded = 0

    def run(self, exclude: List[str]) -> None:
        for path, info, left_out in walk(self._root, exclude):
            if left_out:
                self.excluded += 1
            elif not stat.S_ISREG(info.st_mode):
                self._left.append([path, _kind(info.st_mode)])
            else:
                self._file(path)
        self._flush()
        for at in range(0, len(self._left), BATCH_FILES):
            self._channel.item({"left": self._left[at : at + BATCH_FILES]})

    def _file(self, path: str) -> None:
        self._channel.beat()
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(os.path.join(self._root, path), flags)
        except OSError as exc:
            self._left.append([path, exc.strerror or "cannot be read"])
            return
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                self._left.append([path, _kind(info.st_mode)])
            elif info.st_size <= SMALL:
                self._small(fd, path, info)
            else:
                self._large(fd, path, info)
        finally:
            os.close(fd)

    def _small(self, fd: int, path: str, info: os.stat_result) -> None:
        content = os.read(fd, SMALL)
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
        while offset < size:
            chunk = os.pread(fd, min(CHUNK, size - offset), offset)
            if not chunk:  # truncated under us: the rest cannot be had
                self._channel.item({"torn": path})
                self._left.append([path, "became shorter while it was read"])
                return
            digest.update(chunk)
            self._channel.data(chunk)
            offset += len(chunk)
        self._channel.item({"sha256": digest.hexdigest()})
        self.count += 1
        self.bytes += size

    def _hashed(self, fd: int, size: int) -> "hashlib._Hash":
        """The sha256 of the file's first `size` bytes, or of all it has."""
        digest = hashlib.sha256()
        at = 0
        while at < size:
            chunk = os.pread(fd, min(CHUNK, size - at), at)
            if not chunk:
                break
            digest.update(chunk)
            at += len(chunk)
            self._channel.beat()
        return digest


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
