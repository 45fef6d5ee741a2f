"""Trees made of the store's content: a run's own copy, and spare copies."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import Callable, List

from remote import files, procs, store, wire
from remote.channel import Beat, no_beat
from remote.errors import Damaged
from remote.layout import Layout

SPARE_MAX = 256 * 1024 * 1024  # bytes of a tree of which a spare copy is kept


def build(layout: Layout, manifest: bytes, destination: str, beat: Beat = no_beat) -> None:
    """Make `destination` (absent before) a private copy of the tree, every byte checked."""
    bad = 0
    made = {b""}
    base = os.fsencode(destination)
    os.mkdir(base, 0o700)
    for entry in wire.parse_manifest(manifest):
        parent = entry.path.rpartition(b"/")[0]
        if parent not in made:
            _make_dirs(base, parent, made)
        bad += not _place(layout, entry, base + b"/" + entry.path, beat)
    if bad:
        raise Damaged(bad)


def _make_dirs(base: bytes, parent: bytes, made: "set[bytes]") -> None:
    path = b""
    for part in parent.split(b"/"):
        path = path + b"/" + part if path else part
        if path not in made:
            os.mkdir(base + b"/" + path, 0o755)
            made.add(path)


def _place(layout: Layout, entry: wire.Entry, target: bytes, beat: Beat = no_beat) -> bool:
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
            _copy(read, target, entry, digest.update, beat)
    finally:
        os.close(read)
    if digest.hexdigest() == entry.sha256:
        return True
    os.rename(source, source + ".damaged")
    return False


def _copy(
    read: int, target: bytes, entry: wire.Entry, seen: Callable[[bytes], None], beat: Beat
) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    write = os.open(target, flags, 0o755 if entry.mode & 0o100 else 0o644)
    try:
        while True:
            chunk = os.read(read, 1 << 20)
            if not chunk:
                return
            seen(chunk)
            files.write_all(write, chunk)
            beat()
            if len(chunk) < (1 << 20):
                return
    finally:
        os.close(write)


# --- after a crash of the host --------------------------------------------------------------------


def mend(
    layout: Layout, tree: str, destination: str, aside: str, beat: Beat = no_beat
) -> List[str]:
    """The files of `destination` that the tree has are as the tree has them; the names of those
    that were not, which lie in the new folder `aside` now. What else is there stays.

    FileNotFoundError: the manifest is gone. Damaged: content is; what could be mended is.
    """
    names, bad = [], 0
    base, other = os.fsencode(destination), os.fsencode(aside)
    for entry in wire.parse_manifest(store.manifest_of(layout, tree)):
        target = base + b"/" + entry.path
        _clear_way(base, entry.path, other)
        if not is_whole(target, entry, beat):
            names.append(os.fsdecode(entry.path))
            os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
            if os.path.lexists(target):
                _put_aside(os.fsdecode(target), os.fsdecode(other + b"/" + entry.path))
            bad += not _place(layout, entry, target, beat)
    if bad:
        raise Damaged(bad)
    return names


def _clear_way(base: bytes, path: bytes, aside: bytes) -> None:
    """Above `path` are folders of `base`: a link or file that a job put there goes aside."""
    above = b""
    for part in path.split(b"/")[:-1]:
        above += b"/" + part
        here = os.fsdecode(base + above)
        if os.path.islink(here) or (os.path.lexists(here) and not os.path.isdir(here)):
            _put_aside(here, os.fsdecode(aside + above))
            return


def _put_aside(path: str, aside: str) -> None:
    os.makedirs(os.path.dirname(aside), 0o755, exist_ok=True)
    os.rename(path, aside)


def is_whole(path: bytes, entry: wire.Entry, beat: Beat) -> bool:
    """Whether the file or link has the entry's content."""
    try:
        if entry.kind == "l":
            return hashlib.sha256(os.readlink(path)).hexdigest() == entry.sha256
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            return store.digest(file, beat) == entry.sha256
    except OSError:
        return False


# --- spares: a tree made ahead of its run ---------------------------------------------------------


def make_spare(layout: Layout, tree: str) -> None:
    """Leave one more copy of the tree, so that the next run of it starts with a rename.

    Made by a run's supervisor after its job started. The boot id in its name keeps a copy that may
    not have reached the disk before a crash from ever being used.
    """
    manifest = store.manifest_of(layout, tree)
    size = sum(entry.size for entry in wire.parse_manifest(manifest))
    spare = layout.spare(tree) + "." + procs.boot_id()
    if size > SPARE_MAX or os.path.exists(spare):
        return
    if files.free_bytes(layout.root) < 4 * size + (64 << 20):
        return
    making = "%s.making.%d" % (spare, os.getpid())
    try:
        build(layout, manifest, making)
        os.rename(making, spare)
        _drop_other_spares(layout, os.path.basename(spare))
    except (OSError, Damaged):
        shutil.rmtree(making, ignore_errors=True)


def _drop_other_spares(layout: Layout, keep: str) -> None:
    """Spares are copies of what the store holds: the newest few are kept, the rest go."""
    files.clear_leftovers(layout.spares)
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


def take(
    layout: Layout, tree: str, base: str, delta: bytes, destination: str, beat: Beat = no_beat
) -> None:
    """Make `destination` the tree, by the cheapest way there is.

    A spare of the tree itself is renamed into place; a spare of `base` is renamed and `delta`
    applied to it; without one the tree is copied out of the store. Damaged: content is missing.
    """
    manifest = store.manifest_of(layout, tree)
    if _take_spare(layout, tree, destination):
        return
    if base and delta and _take_spare(layout, base, destination):
        _patch(layout, delta, destination)
        return
    procs.in_child(lambda: build(layout, manifest, destination, beat))


def _take_spare(layout: Layout, tree: str, destination: str) -> bool:
    try:
        os.rename(layout.spare(tree) + "." + procs.boot_id(), destination)
    except OSError:
        return False
    return True


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
