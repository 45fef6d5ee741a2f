"""A data set on this machine as a manifest: every file under its folder, whatever its name.

A link that stays in the folder travels as a link. One that leaves it is followed, to a file or to a
folder: in a Hugging Face cache every file is one. What cannot travel is named, never passed over.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from orchestrator.manifest import Found, Scan, leaves_tree, scan, unreadable
from remote import wire

SPECIAL = "not a regular file"
NOWHERE = "a link that leads nowhere"
FETCHED = "what orch keeps beside fetched results"
LOOP = "a link to a folder that it lies in"


@dataclass(slots=True)
class Listing:
    """What of a data set travels, before a byte of it is read; `left_out` with the reason."""

    root: Path
    found: list[Found] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def leave(self, path: bytes, why: str) -> None:
        self.left_out.append((os.fsdecode(path), why))


class _Folder(NamedTuple):
    path: bytes  # in the data set
    place: bytes  # on this machine
    through: tuple[bytes, ...] = ()  # the folders, by real path, whose links led here


def scan_data(root: Path, cache: Path) -> Scan:
    """The data set at `root`, a folder or one file, with the hashes of its files."""
    listing = list_data(root)
    found = scan(listing.root, listing.found, cache, max_file=None, secrets=False)
    return replace(found, skipped=(*listing.left_out, *found.skipped))


def list_data(root: Path) -> Listing:
    if not root.is_dir():
        listing = Listing(root.parent)
        _take_target(listing, os.fsencode(root.name), os.fsencode(root))
        return listing
    listing = Listing(root)
    stack = [_Folder(b"", os.fsencode(root))]
    while stack:
        folder = stack.pop()
        try:
            with os.scandir(folder.place) as items:
                for item in items:
                    with contextlib.suppress(FileNotFoundError):  # it went away meanwhile
                        stack += _take(listing, folder, item)
        except PermissionError as exc:
            raise unreadable(folder.place, exc.strerror) from None
    listing.left_out.sort()
    return listing


def _take(listing: Listing, folder: _Folder, item: os.DirEntry[bytes]) -> list[_Folder]:
    """The item is in the listing; the folder to go on with if it is, or leads to, one."""
    path = folder.path + b"/" + item.name if folder.path else item.name
    if os.fsdecode(item.name) in (wire.JOURNAL, wire.PARTS):
        listing.leave(path, FETCHED)
        return []
    if item.is_dir(follow_symlinks=False):
        return [folder._replace(path=path, place=item.path)]
    if item.is_symlink() and (folder.through or leaves_tree(path, os.readlink(item.path))):
        return _follow(listing, folder, path, item.path)
    info = item.stat(follow_symlinks=False)
    if stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode):
        listing.found.append((path, info, item.path if folder.through else path))
    else:
        listing.leave(path, SPECIAL)
    return []


def _follow(listing: Listing, folder: _Folder, path: bytes, link: bytes) -> list[_Folder]:
    real = os.path.realpath(link)
    if not os.path.isdir(real):
        _take_target(listing, path, real)
        return []
    through = (*folder.through, os.path.realpath(folder.place))
    if any((above + b"/").startswith(real.rstrip(b"/") + b"/") for above in through):
        listing.leave(path, LOOP)
        return []
    return [_Folder(path, real, through)]


def _take_target(listing: Listing, path: bytes, link: bytes) -> None:
    real = os.path.realpath(link)
    try:
        info = os.stat(real)
    except OSError:
        listing.leave(path, NOWHERE)
        return
    if stat.S_ISREG(info.st_mode):
        listing.found.append((path, info, real))
    else:
        listing.leave(path, SPECIAL)
