"""Datasets: one folder for each content, read-only, shared by all runs, and checked at each start.

The folder's seal, a file beside it, has the times of its files as they were placed. A folder that
was changed since, or has more in it now, is placed anew and put aside. One of it is kept; those
from before too while a run goes on, which may stand in one of them. What such a run left beside its
data, a cache perhaps, is left to it until then.
"""

from __future__ import annotations

import os
import stat
from typing import Iterable, Iterator, List, Mapping, Optional

from remote import files, status, store, wire
from remote.channel import Beat, no_beat
from remote.errors import Damaged
from remote.layout import RUN_ID, Layout, tree_name

KINDS = {"f": stat.S_IFREG, "l": stat.S_IFLNK}


def place(layout: Layout, manifest: bytes, tree: str, beat: Beat = no_beat) -> bool:
    """The dataset's folder holds the files as they were sent; True if it was changed before.

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


def changed(layout: Layout, trees: Mapping[str, str], beat: Beat = no_beat) -> List[str]:
    """The names (to whose datasets `trees` has the hash) of those with files that are not as they
    were placed. What a job left beside them hinders no attempt."""
    return [
        name
        for name, tree in sorted(trees.items())
        if os.path.exists(layout.seal(tree)) and _beside(layout, tree, beat) is None
    ]


def is_intact(layout: Layout, tree: str, beat: Beat = no_beat) -> bool:
    """Whether the folder is there with every file of the size and time that it was placed with, and
    with nothing else: what a job left beside its data would be data of every later run."""
    more = _beside(layout, tree, beat)
    return more == 0 or (more is not None and _is_in_use(layout, tree))


def _beside(layout: Layout, tree: str, beat: Beat = no_beat) -> Optional[int]:
    """How much lies there besides what was placed; None if that is not there as it was."""
    base = os.fsencode(layout.dataset(tree))
    try:
        lines = wire.split_manifest(store.manifest_of(layout, tree))
        with open(layout.seal(tree), "rb") as file:
            times = file.read().split()
        whole = len(lines) == len(times) and all(
            _is_as_placed(base, wire.parse_line(line), int(time))
            for line, time in zip(_alive(lines, beat), times)
        )
        return _count(base) - len(lines) if whole else None
    except (OSError, ValueError, wire.WireError):
        return None


def _alive(items: Iterable[bytes], beat: Beat) -> Iterator[bytes]:
    for item in items:
        beat()
        yield item


def copied_bytes(entries: List[wire.Entry]) -> int:
    """What placing takes of the disk besides the store's own copy."""
    return sum(entry.size for entry in entries) if _must_copy() else 0


def _count(base: bytes) -> int:
    """The files below the folder. An empty folder in it, which no dataset has, counts as one."""
    count, left = 0, [base]
    while left:
        place = left.pop()
        try:
            with os.scandir(place) as found:
                items = list(found)
        except OSError:  # it is gone, or shut: a job's own either way
            count += 1
            continue
        inner = [item.path for item in items if item.is_dir(follow_symlinks=False)]
        count += len(items) - len(inner) + int(not items and place != base)
        left += inner
    return count


def _is_as_placed(base: bytes, entry: wire.Entry, time: int) -> bool:
    info = os.lstat(base + b"/" + entry.path)
    kind = stat.S_IFMT(info.st_mode)
    return (kind, info.st_size, info.st_mtime_ns) == (KINDS[entry.kind], entry.size, time)


def _is_sound(layout: Layout, entry: wire.Entry, beat: Beat) -> bool:
    """Whether the object's bytes are what its name says; if not it is put aside."""
    path = layout.object(entry.sha256)
    try:
        with open(path, "rb") as file:
            if store.digest(file, beat) == entry.sha256:
                return True
    except FileNotFoundError:
        return False
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
    if not before:
        os.rename(making, final)
    else:
        aside = _aside(layout, tree)
        if files.exchange(making, final):
            os.rename(making, aside)
        else:
            os.rename(final, aside)
            os.rename(making, final)
    files.sync_dir(layout.data)
    return before


def _aside(layout: Layout, tree: str) -> str:
    """A free name for the folder that was changed. What was put aside before it is gone, unless a
    run of that data goes on: its job may stand in there, or hold paths into it."""
    first = layout.dataset(tree) + ".damaged"
    if not _is_in_use(layout, tree):
        for name in os.listdir(layout.data):
            if name.startswith(os.path.basename(first)):
                files.remove_tree(os.path.join(layout.data, name))
    return files.free_name(first)


def _is_in_use(layout: Layout, tree: str) -> bool:
    for run_id in filter(RUN_ID.match, os.listdir(layout.runs)):
        spec = files.read_json(layout.run(run_id).spec) or {}
        reads = tree in (spec.get("data") or {}).values()
        if reads and status.status(layout, run_id)["phase"] in status.OPEN:
            return True
    return False
