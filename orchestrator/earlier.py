"""Fetched files that are no part of the run's result any more: beside its folder, never deleted."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from orchestrator.disk import local_name
from orchestrator.errors import UsageError
from orchestrator.fetched import Journal, Known
from remote import wire

EARLIER = "earlier"  # beside `latest`
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Earlier:
    """`earlier/<run_id>` beside a run's folder, made anew with the first file that goes there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._root = -1
        self._file = -1
        self._journal: Journal
        self.path: Path | None = None
        self.taken: list[str] = []

    def take(self, root: int, path: str, known: Known) -> None:
        """The file `path` of the folder that is open as `root`, if there is one."""
        above, _, last = path.rpartition("/")
        name = local_name(last)
        try:
            source = _open(root, above)
        except OSError:  # gone, or a link or a file by now: in the folder there is no such file
            return
        try:
            if not _is_file(source, name):
                return
            self._make()
            target = _open(self._root, above, make=True)
            try:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            finally:
                os.close(target)
        finally:
            os.close(source)
        self._journal.note([(path, known)])
        self.taken.append(path)

    def _make(self) -> None:
        """What lies there of an earlier fetch stays as it is: this one has a folder of its own.

        With its journal it is a folder of fetched results, which makes no project.
        """
        if self.path is not None:
            return
        place = self._folder.parent / EARLIER
        try:
            place.mkdir(exist_ok=True)
        except FileExistsError:
            raise UsageError(
                f"{place} is in the way: it is no folder, and files of an earlier fetch that are "
                "no part of the result any more would go there; they are where they were",
                hint="move it away and fetch again",
            ) from None
        number = 1
        while True:
            path = place / (self._folder.name + (f".{number}" if number > 1 else ""))
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                break
            number += 1
        self._root = os.open(path, DIRECTORY)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.open(wire.JOURNAL, flags, 0o600, dir_fd=self._root)
        self._journal = Journal(self._file)
        self.path = path

    def close(self) -> None:
        for fd in (self._root, self._file):
            if fd >= 0:
                os.close(fd)
        self._root, self._file = -1, -1


def drop_empty(root: int, folder: str) -> None:
    """`folder` and those above it, as far as nothing is in them: results hold no empty folders."""
    while folder:
        above, _, last = folder.rpartition("/")
        try:
            fd = _open(root, above)
        except OSError:
            return
        try:
            os.rmdir(local_name(last), dir_fd=fd)
        except OSError:
            return
        finally:
            os.close(fd)
        folder = above


def _is_file(folder: int, name: str) -> bool:
    """Whether anything but a folder has that name."""
    try:
        return not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _open(root: int, folder: str, *, make: bool = False) -> int:
    """The folder below `root`, open; no link on the way is followed."""
    fd = os.dup(root)
    for part in folder.split("/") if folder else ():
        name, above = local_name(part), fd
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=above)
            fd = os.open(name, DIRECTORY, dir_fd=above)
        finally:
            os.close(above)
    return fd
