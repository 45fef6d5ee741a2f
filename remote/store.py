"""Content on the host: objects named by their sha256, trees named by their manifest's.

Nothing here is trusted because it was once written: an object is hashed again whenever it is copied
into a run's tree, and one that does not match is put aside and asked for anew. That is also why a
first sync needs no fsync for each file. Order of writes: objects, then the tree that names them.
"""

from __future__ import annotations

import hashlib
import os
from typing import Dict, Iterator, List, Tuple

from remote import files, wire
from remote.layout import Layout

WHOLE_MAX = 1024 * 1024  # objects up to this size are handled in one piece


def manifest_of(layout: Layout, tree: str) -> bytes:
    """The manifest of a committed tree; FileNotFoundError if the host does not have it."""
    with open(layout.tree(tree), "rb") as file:
        manifest = file.read()
    if wire.tree_hash(manifest) != tree:
        os.rename(layout.tree(tree), layout.tree(tree) + ".damaged")
        raise FileNotFoundError(tree)
    return manifest


def commit_tree(layout: Layout, manifest: bytes, tree: str) -> None:
    if wire.tree_hash(manifest) != tree:
        raise wire.WireError("the manifest does not match its hash")
    files.write_atomic(layout.tree(tree), manifest, durable=False)


def missing(layout: Layout, entries: List[wire.Entry]) -> List[Tuple[int, int]]:
    """(index, bytes already here) of the first entry of each object that has to be sent."""
    wanted = []
    seen = set()
    present: Dict[str, Dict[str, int]] = {}
    for index, entry in enumerate(entries):
        if entry.sha256 in seen:
            continue
        seen.add(entry.sha256)
        folder = entry.sha256[:2]
        if folder not in present:
            present[folder] = _sizes(os.path.join(layout.objects, folder))
        if present[folder].get(entry.sha256) == entry.size:
            continue
        wanted.append((index, _part_size(layout, entry)))
    return wanted


def _sizes(folder: str) -> Dict[str, int]:
    try:
        with os.scandir(folder) as found:
            return {item.name: item.stat(follow_symlinks=False).st_size for item in found}
    except FileNotFoundError:
        os.makedirs(folder, 0o700, exist_ok=True)
        return {}


def _part_size(layout: Layout, entry: wire.Entry) -> int:
    """How much of a large object an interrupted transfer left; small ones start again."""
    part = layout.part(entry.sha256)
    if entry.size <= WHOLE_MAX or files.is_locked(part + ".lock"):
        return 0
    try:
        size = os.stat(part).st_size
    except FileNotFoundError:
        return 0
    return size if size < entry.size else 0


def receive(
    layout: Layout,
    entries: List[wire.Entry],
    wanted: List[Tuple[int, int]],
    stream: "ByteStream",
) -> None:
    """Read the wanted objects off `stream`, in order; each is kept only if its hash is right."""
    for index, have in wanted:
        entry = entries[index]
        if entry.size <= WHOLE_MAX:
            content = stream.take(entry.size)
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise wire.WireError("an object arrived with other bytes than its name says")
            put_object(layout, entry.sha256, content)
        else:
            _receive_large(layout, entry, have, stream)


def put_object(layout: Layout, sha256: str, content: bytes) -> None:
    path = layout.object(sha256)
    # The pid keeps two syncs of one object apart; rename makes the last one win with equal bytes.
    tmp = "%s.%d" % (path, os.getpid())
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(tmp, flags, 0o400)
    except (FileNotFoundError, FileExistsError):  # one was left by a process of the same number
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        files.remove(tmp)
        fd = os.open(tmp, flags, 0o400)
    try:
        files.write_all(fd, content)
    except OSError:
        files.remove(tmp)
        raise
    finally:
        os.close(fd)
    os.rename(tmp, path)


def _receive_large(layout: Layout, entry: wire.Entry, have: int, stream: "ByteStream") -> None:
    part = layout.part(entry.sha256)
    guard = files.try_lock(part + ".lock")
    if guard is not None:
        try:
            _receive_part(layout, part, entry, have, stream)
        finally:
            files.remove(part + ".lock")
            os.close(guard)
        return
    if have:
        raise wire.WireError("another transfer of the same large file went on where this one was")
    own = "%s.%d" % (part, os.getpid())  # another transfer of it is under way: each has its own
    try:
        _receive_part(layout, own, entry, 0, stream)
    finally:
        files.remove(own)


def _receive_part(
    layout: Layout, part: str, entry: wire.Entry, have: int, stream: "ByteStream"
) -> None:
    digest = hashlib.sha256()
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, have)
        left = have
        while left:
            chunk = os.read(fd, min(left, 1 << 20))
            digest.update(chunk)
            left -= len(chunk)
        for chunk in stream.chunks(entry.size - have):
            digest.update(chunk)
            files.write_all(fd, chunk)
    finally:
        os.close(fd)
    if digest.hexdigest() != entry.sha256:
        files.remove(part)
        raise wire.WireError("an object arrived with other bytes than its name says")
    os.chmod(part, 0o400)
    os.makedirs(os.path.dirname(layout.object(entry.sha256)), 0o700, exist_ok=True)
    os.rename(part, layout.object(entry.sha256))


class ByteStream:
    """Exact counts of bytes out of a sequence of DATA payloads."""

    def __init__(self, payloads: Iterator[bytes]) -> None:
        self._payloads = payloads
        self._rest = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        end = self._at + count
        if end <= len(self._rest):
            out = self._rest[self._at : end]
            self._at = end
            return out
        return b"".join(self.chunks(count))

    def chunks(self, count: int) -> Iterator[bytes]:
        while count:
            if self._at >= len(self._rest):
                self._rest, self._at = next(self._payloads), 0
                continue
            piece = self._rest[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            yield piece
