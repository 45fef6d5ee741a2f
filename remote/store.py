"""Content on the host: objects named by their sha256, trees named by their manifest's.

Nothing here is trusted because it was once written: an object is hashed again whenever it is copied
into a run's tree, and one that does not match is put aside and asked for anew. That is also why a
first sync needs no fsync for each file. Order of writes: objects, then the tree that names them.
"""

from __future__ import annotations

import hashlib
import os
from typing import IO, Dict, Iterator, List, NamedTuple, Optional, Tuple

from remote import files, wire
from remote.channel import Beat
from remote.layout import Layout

WHOLE_MAX = 1024 * 1024  # objects up to this size are handled in one piece
TAKEN_UP_MAX = 64  # parts that one transfer goes on with: each has its lock open
LOCK_WITHIN = 8.0  # seconds in which an agent whose controller is gone has noticed it


class Part(NamedTuple):
    """A large object's bytes that are here: how many, and their sha256; `guard` holds its lock."""

    guard: int
    have: int
    digest: "hashlib._Hash"


Begun = Dict[str, Part]  # by the object's sha256


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
    if entry.size <= WHOLE_MAX:
        return 0
    try:
        size = os.stat(layout.part(entry.sha256)).st_size
    except FileNotFoundError:
        return 0
    return size if size < entry.size else 0


def take_up(
    layout: Layout, entries: List[wire.Entry], wanted: List[Tuple[int, int]], beat: Beat
) -> Tuple[List[Tuple[int, int]], Begun]:
    """(what is still to be sent, the begun objects that it goes on with: locked and hashed).

    One that another transfer is at starts again, in a file of its own.
    """
    begun: Begun = {}
    left = []
    for index, have in wanted:
        entry = entries[index]
        part = _taken_up(layout, entry, beat) if have and len(begun) < TAKEN_UP_MAX else None
        if part is not None:
            begun[entry.sha256] = part
        left.append((index, part.have if part else 0))
    return left, begun


def _taken_up(layout: Layout, entry: wire.Entry, beat: Beat) -> Optional[Part]:
    guard = files.lock_within(layout.part(entry.sha256) + ".lock", LOCK_WITHIN)
    if guard is None:
        return None
    have, digest = 0, hashlib.sha256()
    try:
        with open(layout.part(entry.sha256), "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
                have += len(chunk)
                beat()
    except FileNotFoundError:
        pass  # whoever was at it is through, or found that its bytes were wrong
    return Part(guard, have, digest) if have <= entry.size else Part(guard, 0, hashlib.sha256())


def receive(
    layout: Layout,
    entries: List[wire.Entry],
    wanted: List[Tuple[int, int]],
    stream: "ByteStream",
    begun: Optional[Begun] = None,
) -> None:
    """Read the wanted objects off `stream`, in order; each is kept only if its hash is right."""
    for index, _ in wanted:
        entry = entries[index]
        if entry.size <= WHOLE_MAX:
            content = stream.take(entry.size)
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise wire.WireError("an object arrived with other bytes than its name says")
            put_object(layout, entry.sha256, content)
        else:
            _receive_large(layout, entry, (begun or {}).pop(entry.sha256, None), stream)


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


def _receive_large(
    layout: Layout, entry: wire.Entry, begun: Optional[Part], stream: "ByteStream"
) -> None:
    part = layout.part(entry.sha256)
    guard = begun.guard if begun else files.try_lock(part + ".lock")
    if guard is not None:
        have, digest = (begun.have, begun.digest) if begun else (0, hashlib.sha256())
        try:
            _receive_part(layout, part, entry, have, digest, stream)
        finally:
            files.remove(part + ".lock")
            os.close(guard)
        return
    own = "%s.%d" % (part, os.getpid())  # another transfer of it is under way: each has its own
    try:
        _receive_part(layout, own, entry, 0, hashlib.sha256(), stream)
    finally:
        files.remove(own)


def _receive_part(
    layout: Layout,
    part: str,
    entry: wire.Entry,
    have: int,
    digest: "hashlib._Hash",
    stream: "ByteStream",
) -> None:
    """`digest` is that of the `have` bytes which the part begins with."""
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, have)
        os.lseek(fd, have, os.SEEK_SET)
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


def digest(file: IO[bytes], beat: Beat) -> str:
    """The sha256 of what is left of the file."""
    found = hashlib.sha256()
    for chunk in iter(lambda: file.read(1 << 20), b""):
        found.update(chunk)
        beat()
    return found.hexdigest()
