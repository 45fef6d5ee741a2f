"""This machine's disk: names, writing, hashing, and knowing that what was written is there."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from orchestrator.errors import LocalDiskFull, TransferError

FEW = 64  # files for which an fsync each is cheaper than one for their whole file system


@contextlib.contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """No space here becomes LocalDiskFull; what arrived so far stays and is gone on with."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LocalDiskFull(
                f"{path}: no space left here; what had arrived was kept",
                hint="free some space and run the same command again: it goes on from there",
            ) from None
        if isinstance(exc, (PermissionError, IsADirectoryError, NotADirectoryError)) or (
            exc.errno == errno.EROFS
        ):
            raise TransferError(f"{exc.filename or path}: {exc.strerror}") from None
        raise


def local_name(path: str) -> str:
    """How python names that path here: names are UTF-8, whatever the locale says."""
    return os.fsdecode(path.encode("utf-8", "surrogateescape"))


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def digest(file: BinaryIO) -> str:
    found = hashlib.sha256()
    while chunk := file.read(1 << 20):
        found.update(chunk)
    return found.hexdigest()


def digest_of(path: Path) -> str | None:
    """None for what is no file that can be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            return digest(file)
    except OSError:
        return None


def sync(folder: int, root: Path, names: Sequence[str]) -> None:
    """The files below `root` (open as `folder`) survive a power cut, and so do their names.

    One call for the whole file system takes a fraction of the time of an fsync for each of many.
    """
    if len(names) > FEW and _sync_filesystem(folder):
        return
    above = {parent for name in names for parent in PurePosixPath(name).parents}
    for path in [*(root / name for name in names), *(root / parent for parent in above)]:
        if path.is_file() or path.is_dir():
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _sync_filesystem(folder: int) -> bool:
    """False where the system cannot."""
    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (OSError, AttributeError):
        return False
    if syncfs(folder) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.ENOSYS:
        return False
    raise OSError(number, os.strerror(number))
