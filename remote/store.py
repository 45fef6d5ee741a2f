"""Content on the host: objects named by their sha256, trees named by their manifest's.

Nothing here is trusted because it was once written: an object is hashed again whenever it is copied
into a run's tree, and one that does not match is put aside and asked for anew. That is also why a
first sync needs no fsync for each file. Order of writes: objects, then the tree that names them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import Callable, Dict, Iterator, List, Tuple

from remote import files, procs, wire
from remote.layout import Layout, tree_name

SPARE_MAX = 256 * 1024 * 1024  # bytes of a tree of which a spare copy is kept
WHOLE_MAX = 1024 * 1024  # objects up to this size are handled in one piece


class Damaged(Exception):
    """Objects that are missing or do not match their name any more (they were put aside)."""

    def __init__(self, count: int) -> None:
        super().__init__("%d objects of this tree are missing or damaged" % count)


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
    try:
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o400)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o400)
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
    if guard is None:
        raise wire.WireError("another transfer of the same large file is under way")
    digest = hashlib.sha256()
    try:
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
    finally:
        files.remove(part + ".lock")
        os.close(guard)


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


def build_tree(layout: Layout, manifest: bytes, destination: str) -> None:
    """Make `destination` (absent before) a private copy of the tree, every byte checked."""
    bad = 0
    made = {b""}
    base = os.fsencode(destination)
    os.mkdir(base, 0o700)
    for entry in wire.parse_manifest(manifest):
        parent = entry.path.rpartition(b"/")[0]
        if parent not in made:
            _make_dirs(base, parent, made)
        bad += not _place(layout, entry, base + b"/" + entry.path)
    if bad:
        raise Damaged(bad)


def _make_dirs(base: bytes, parent: bytes, made: "set[bytes]") -> None:
    path = b""
    for part in parent.split(b"/"):
        path = path + b"/" + part if path else part
        if path not in made:
            os.mkdir(base + b"/" + path, 0o755)
            made.add(path)


def _place(layout: Layout, entry: wire.Entry, target: bytes) -> bool:
    """Copy one object to `target`; False (and the object put aside) when its bytes are wrong."""
    source = layout.object(entry.sha256)
    try:
        read = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    digest = hashlib.sha256()
    try:
        if entry.kind == "l":
            content = os.read(read, 65536)
            digest.update(content)
            if digest.hexdigest() == entry.sha256:
                os.symlink(content, target)
        else:
            _copy(read, target, entry, digest.update)
    finally:
        os.close(read)
    if digest.hexdigest() == entry.sha256:
        return True
    os.rename(source, source + ".damaged")
    return False


def _copy(read: int, target: bytes, entry: wire.Entry, seen: Callable[[bytes], None]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    write = os.open(target, flags, 0o755 if entry.mode & 0o100 else 0o644)
    try:
        while True:
            chunk = os.read(read, 1 << 20)
            if not chunk:
                return
            seen(chunk)
            files.write_all(write, chunk)
            if len(chunk) < (1 << 20):
                return
    finally:
        os.close(write)


# --- spares: a tree made ahead of its run ---------------------------------------------------------


def make_spare(layout: Layout, tree: str) -> None:
    """Leave one more copy of the tree, so that the next run of it starts with a rename.

    Made by a run's supervisor after its job started. The boot id in its name keeps a copy that may
    not have reached the disk before a crash from ever being used.
    """
    manifest = manifest_of(layout, tree)
    size = sum(entry.size for entry in wire.parse_manifest(manifest))
    spare = layout.spare(tree) + "." + procs.boot_id()
    if size > SPARE_MAX or os.path.exists(spare):
        return
    if files.free_bytes(layout.root) < 4 * size + (64 << 20):
        return
    making = "%s.making.%d" % (spare, os.getpid())
    try:
        build_tree(layout, manifest, making)
        os.rename(making, spare)
        _drop_other_spares(layout, os.path.basename(spare))
    except (OSError, Damaged):
        shutil.rmtree(making, ignore_errors=True)


def _drop_other_spares(layout: Layout, keep: str) -> None:
    """Spares are copies of what the store holds: the newest few are kept, the rest go."""
    ranked = []
    for name in os.listdir(layout.spares):
        path = os.path.join(layout.spares, name)
        if name != keep and ".making." not in name and ".taken." not in name:
            ranked.append((os.stat(path).st_mtime, path))
    for _, path in sorted(ranked)[: max(0, len(ranked) - 3)]:
        taken = "%s.taken.%d" % (path, os.getpid())
        try:
            os.rename(path, taken)
        except OSError:
            continue
        shutil.rmtree(taken, ignore_errors=True)


def take_tree(layout: Layout, tree: str, base: str, delta: bytes, destination: str) -> bytes:
    """Make `destination` the tree, by the cheapest way there is; returns its manifest.

    A spare of the tree itself is renamed into place; a spare of `base` is renamed and `delta`
    applied to it; without one the tree is copied out of the store.
    """
    manifest = manifest_of(layout, tree)
    try:
        os.rename(layout.spare(tree) + "." + procs.boot_id(), destination)
        return manifest
    except OSError:
        pass
    if base and delta:
        try:
            os.rename(layout.spare(base) + "." + procs.boot_id(), destination)
        except OSError:
            pass
        else:
            _patch(layout, delta, destination)
            return manifest
    build_tree(layout, manifest, destination)
    return manifest


def _patch(layout: Layout, delta: bytes, destination: str) -> None:
    base = os.fsencode(destination)
    changes = wire.split_manifest(delta)
    for change in changes:
        if change[:1] == b"-":
            path = wire.parse_line(change[1:]).path
            os.unlink(base + b"/" + path)
            _prune(base, path.rpartition(b"/")[0])
    bad = 0
    for change in changes:
        if change[:1] == b"+":
            entry = wire.parse_line(change[1:])
            os.makedirs(os.path.dirname(base + b"/" + entry.path), 0o755, exist_ok=True)
            bad += not _place(layout, entry, base + b"/" + entry.path)
    if bad:
        raise Damaged(bad)


def _prune(base: bytes, folder: bytes) -> None:
    """Remove folders that became empty: a tree holds no empty ones."""
    while folder:
        try:
            os.rmdir(base + b"/" + folder)
        except OSError:
            return
        folder = folder.rpartition(b"/")[0]


# --- datasets -------------------------------------------------------------------------------------


def place_dataset(layout: Layout, manifest: bytes, tree: str) -> str:
    """The folder that holds the dataset, read-only, shared by all runs; made if it is not there.

    Damaged: an object's bytes are not what its name says; it was put aside and no folder was made.
    """
    final = layout.dataset(tree)
    if os.path.isdir(final):
        return final
    making = "%s.making.%d" % (os.path.join(layout.data, tree_name(tree)), os.getpid())
    shutil.rmtree(making, ignore_errors=True)
    os.mkdir(making, 0o700)
    base = os.fsencode(making)
    entries = wire.parse_manifest(manifest)
    bad = sum(not _is_sound(layout, entry) for entry in entries)
    if bad:
        shutil.rmtree(making, ignore_errors=True)
        raise Damaged(bad)
    for entry in entries:
        target = base + b"/" + entry.path
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        source = layout.object(entry.sha256)
        if entry.kind == "l":
            with open(source, "rb") as file:
                os.symlink(file.read(), target)
        else:
            _link_or_copy(source, target)
    try:
        os.rename(making, final)
    except OSError:
        shutil.rmtree(making, ignore_errors=True)
        if not os.path.isdir(final):
            raise
    return final


def _is_sound(layout: Layout, entry: wire.Entry) -> bool:
    """Whether the object's bytes are what its name says; if not it is put aside."""
    path = layout.object(entry.sha256)
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
    except FileNotFoundError:
        return False
    if digest.hexdigest() == entry.sha256:
        return True
    os.rename(path, path + ".damaged")
    return False


def _link_or_copy(source: str, target: bytes) -> None:
    """Data is read-only (0400) and large: one copy on disk where the file system can link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(os.fsdecode(source), os.fsdecode(target))
        os.chmod(target, 0o400)
