"""Datasets: one folder for each content, read-only, shared by all runs, and checked at each start.

The folder's seal, a file beside it, has the times of its files as they were placed. Content that
was changed since is placed anew, and the folder that holds it is put aside, as one of it can be.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Iterable, Iterator, List, Mapping

from remote import files, store, wire
from remote.channel import Beat, no_beat
from remote.errors import Damaged
from remote.layout import Layout, tree_name

KINDS = {"f": stat.S_IFREG, "l": stat.S_IFLNK}


def place(layout: Layout, manifest: bytes, tree: str, beat: Beat = no_beat) -> bool:
    """The dataset's folder holds every file as it was sent; True if one was changed before.

    Damaged: an object's bytes are not what its name says; it was put aside and no folder was made.
    """
    if is_intact(layout, tree, beat):
        return False
    files.clear_leftovers(layout.data)
    entries = wire.parse_manifest(manifest)
    bad = sum(not _is_sound(layout, entry, beat) for entry in entries)
    if bad:
        raise Damaged(bad)
    making = "%s.making.%d" % (layout.dataset(tree), os.getpid())
    files.remove_tree(making)
    try:
        _make(layout, entries, making, beat)
        guard = files.lock_alive(layout.lock(tree_name(tree) + ".data"), beat)
        try:
            if is_intact(layout, tree, beat):
                return False
            was_sealed = os.path.exists(layout.seal(tree))
            return _put_in_place(layout, entries, making, tree, beat) and was_sealed
        finally:
            os.close(guard)
    finally:
        files.remove_tree(making)


def changed(layout: Layout, trees: Mapping[str, str]) -> List[str]:
    """The names (to whose datasets `trees` has the hash) of those that are not as placed."""
    return [
        name
        for name, tree in sorted(trees.items())
        if os.path.exists(layout.seal(tree)) and not is_intact(layout, tree)
    ]


def is_intact(layout: Layout, tree: str, beat: Beat = no_beat) -> bool:
    """Whether the folder is there with every file of the size and time that it was placed with."""
    base = os.fsencode(layout.dataset(tree))
    try:
        lines = wire.split_manifest(store.manifest_of(layout, tree))
        with open(layout.seal(tree), "rb") as file:
            times = file.read().split()
        return len(lines) == len(times) and all(
            _is_as_placed(base, wire.parse_line(line), int(time))
            for line, time in zip(_alive(lines, beat), times)
        )
    except (OSError, ValueError, wire.WireError):
        return False


def _alive(items: Iterable[bytes], beat: Beat) -> Iterator[bytes]:
    for item in items:
        beat()
        yield item


def copied_bytes(entries: List[wire.Entry]) -> int:
    """What placing takes of the disk besides the store's own copy."""
    return sum(entry.size for entry in entries) if _must_copy() else 0


def _is_as_placed(base: bytes, entry: wire.Entry, time: int) -> bool:
    info = os.lstat(base + b"/" + entry.path)
    kind = stat.S_IFMT(info.st_mode)
    return (kind, info.st_size, info.st_mtime_ns) == (KINDS[entry.kind], entry.size, time)


def _is_sound(layout: Layout, entry: wire.Entry, beat: Beat) -> bool:
    """Whether the object's bytes are what its name says; if not it is put aside."""
    path = layout.object(entry.sha256)
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
                beat()
    except FileNotFoundError:
        return False
    if digest.hexdigest() == entry.sha256:
        return True
    os.rename(path, path + ".damaged")
    return False


def _make(layout: Layout, entries: List[wire.Entry], making: str, beat: Beat) -> None:
    base = os.fsencode(making)
    os.mkdir(base, 0o700)
    for entry in entries:
        target = base + b"/" + entry.path
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
        source = layout.object(entry.sha256)
        if entry.kind == "l":
            with open(source, "rb") as file:
                os.symlink(file.read(), target)
        else:
            _link_or_copy(source, target, beat)
        beat()
    for place, _, _ in os.walk(base):
        os.chmod(place, 0o500)
        beat()


def _link_or_copy(source: str, target: bytes, beat: Beat) -> None:
    """Data is read-only (0400) and large: one copy on disk where that is safe and possible."""
    if not _must_copy():
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    with open(source, "rb") as old, open(target, "xb") as new:
        for chunk in iter(lambda: old.read(1 << 20), b""):
            new.write(chunk)
            beat()
    os.chmod(target, 0o400)


def _must_copy() -> bool:
    """No mode keeps root's job from writing, through a link into the store."""
    return os.geteuid() == 0


def _sync(making: str, beat: Beat) -> None:
    """What was copied is on the disk. That is one call, which may take minutes."""
    import threading  # only here: every import costs a host memory

    failed: List[OSError] = []

    def work() -> None:
        try:
            files.sync_tree(making)
        except OSError as exc:
            failed.append(exc)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    while worker.is_alive():
        worker.join(1.0)
        beat()
    if failed:
        raise failed[0]


def _put_in_place(
    layout: Layout, entries: List[wire.Entry], making: str, tree: str, beat: Beat
) -> bool:
    """True if there was a folder. The seal first: what a crash leaves under another one's seal is
    placed anew."""
    base = os.fsencode(making)
    times = [os.lstat(base + b"/" + entry.path).st_mtime_ns for entry in entries]
    _sync(making, beat)
    files.write_atomic(layout.seal(tree), b"\n".join(b"%d" % time for time in times))
    final = layout.dataset(tree)
    before = os.path.lexists(final)
    if before:
        files.remove_tree(final + ".damaged")
        os.rename(final, final + ".damaged")
    os.rename(making, final)
    files.sync_dir(layout.data)
    return before
