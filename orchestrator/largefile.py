"""A large file that arrives in pieces, in the folder of parts until it is whole."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from orchestrator.disk import full_disk, write_all
from orchestrator.errors import ManifestMismatch, TransferError

if TYPE_CHECKING:
    from orchestrator.unpack import Folder


class LargeFile:
    """One file that arrives in pieces; what is here survives a cut and is gone on with."""

    def __init__(
        self, folder: Folder, fd: int, name: str, path: str, mode: int, size: int, offset: int
    ) -> None:
        self._folder = folder
        self._fd = fd
        self.name = name
        self.path = path
        self._announced = size
        self._digest = hashlib.sha256()
        self._size = 0
        if not 0 <= offset <= min(size, os.fstat(fd).st_size):
            os.close(fd)
            raise ManifestMismatch(
                f"{path}: the host goes on from byte {offset}, which is not here; stopped"
            )
        with full_disk(folder.path):
            os.fchmod(fd, 0o755 if mode & 0o100 else 0o644)
            os.ftruncate(fd, offset)
        while self._size < offset:
            chunk = os.read(fd, min(1 << 20, offset - self._size))
            if not chunk:
                raise TransferError(f"{path}: its begun part is shorter than the host was told")
            self._digest.update(chunk)
            self._size += len(chunk)

    def write(self, chunk: bytes) -> None:
        if self._size + len(chunk) > self._announced:
            raise ManifestMismatch(
                f"{self.path}: the host sends more than the {self._announced} bytes it named"
            )
        self._digest.update(chunk)
        self._size += len(chunk)
        with full_disk(self._folder.path):
            write_all(self._fd, chunk)

    @property
    def size(self) -> int:
        return self._size

    def finish(self, sha256: str) -> None:
        """In place under its final name, or ManifestMismatch and nothing there."""
        mtime = os.fstat(self._fd).st_mtime_ns
        self.close()
        if self._digest.hexdigest() != sha256:
            self._folder.drop_part(self.name)
            raise ManifestMismatch(
                f"{self._folder.path / self.path}: arrived with other bytes than promised; "
                "it was not kept"
            )
        self._folder.finish_large(self, sha256, self._size, mtime)

    def abandon(self) -> None:
        self.close()
        self._folder.drop_part(self.name)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
