"""The one writer of fetched files. Whatever a host sends, nothing outside the folder changes.

Every name is checked before it is used; folders are opened one component at a time without
following links; content goes to a new file and is renamed into place only after its sha256 was
verified. A journal names what this writer put there, so that a file changed by hand is kept, and
one that is no part of the result any more can go aside.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.disk import digest, digest_of, full_disk, local_name, sync, write_all
from orchestrator.earlier import DIRECTORY, Earlier, drop_empty
from orchestrator.errors import FolderBusy, ManifestMismatch, UnsafePath, UsageError
from orchestrator.fetched import Journal, Known
from orchestrator.largefile import LargeFile
from remote import wire

FILES_MAX = 1_000_000


class Folder:
    """A destination for one run's results. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = -1
        self._parts = -1
        self._file = -1  # the journal's
        self._dirs: dict[str, int] = {}
        self._count = 0
        self._kept = False
        self._told: set[str] = set()  # what the result has
        self.earlier = Earlier(path)
        self.journal: Journal
        self.changed: list[str] = []  # local files that are not what was fetched; left alone

    def __enter__(self) -> Folder:
        with full_disk(self.path):
            try:
                while not self._claim():
                    self._close()
                self.journal = Journal(self._file)
            except BaseException:
                self._close()
                raise
        return self

    def _claim(self) -> bool:
        """The folder, open and locked: one writer at a time, whatever ends the one before.

        False when the writer before has just removed the folder it found nothing for: make it anew.
        FolderBusy while another process writes here.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise _in_the_way(self.path) from None
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o755)
        try:
            self._root = os.open(self.path, DIRECTORY)
        except FileNotFoundError:
            return False
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENOTDIR):
                raise UsageError(
                    f"{self.path} is in the way: it is a link or no folder; nothing was fetched",
                    hint="move it away and fetch again",
                ) from None
            raise
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(wire.JOURNAL, flags, 0o600, dir_fd=self._root)
            self._lock()
            with contextlib.suppress(FileExistsError):
                os.mkdir(wire.PARTS, 0o700, dir_fd=self._root)
            self._parts = os.open(wire.PARTS, DIRECTORY, dir_fd=self._root)
            return os.path.samestat(os.stat(wire.JOURNAL, dir_fd=self._root), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno in (errno.EAGAIN, errno.EACCES):
                raise FolderBusy(
                    f"{self.path}: another orch is fetching into it; nothing was done here",
                    hint="when that one is through, the same command takes what is still missing",
                ) from None
            if exc.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):  # a file system without locks
                raise

    def __exit__(self, *_exc: object) -> None:
        with contextlib.suppress(OSError):
            # It goes when it is empty, and stays when there is a part in it.
            os.rmdir(wire.PARTS, dir_fd=self._root)
            if not self.journal.known and not self._kept:
                os.unlink(wire.JOURNAL, dir_fd=self._root)  # nothing came: leave no trace
                os.rmdir(self.path)
        self._close()

    def _close(self) -> None:
        for fd in [*self._dirs.values(), self._parts, self._root, self._file]:
            if fd >= 0:
                os.close(fd)  # the journal last: it holds the lock
        self.earlier.close()
        self._dirs, self._parts, self._root, self._file = {}, -1, -1, -1

    # --- what is here -----------------------------------------------------------------------------

    def have(self) -> dict[str, list[object]]:
        """{path: [size, sha256]} of files here that are what they were when they were fetched."""
        here = {}
        for path, known in self.journal.known.items():
            try:
                place = self.path / local_name(path)
                info = os.stat(place, follow_symlinks=False)
            except OSError:
                continue
            if (info.st_size, info.st_mtime_ns) != (known.size, known.mtime_ns):
                continue
            if path not in self.journal.loose or digest_of(place) == known.sha256:
                here[path] = [known.size, known.sha256]
        return here

    def parts(self) -> dict[str, list[object]]:
        """{path: [bytes, sha256 of them]} of large files a cut left half-way."""
        begun: dict[str, list[object]] = {}
        for name in os.listdir(self._parts):
            if not name.endswith(".path"):
                continue
            with contextlib.suppress(OSError, UnicodeDecodeError):
                path = self._read_small(name).decode("utf-8", "surrogateescape")
                part = os.open(name[:-5], os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._parts)
                with os.fdopen(part, "rb") as file:
                    size = os.fstat(part).st_size
                    begun[path] = [size, digest(file)]
        return begun

    def _read_small(self, name: str) -> bytes:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=self._parts)
        with os.fdopen(fd, "rb") as file:
            return file.read(8192)

    # --- writing ----------------------------------------------------------------------------------

    def write_batch(self, items: list[tuple[str, int, bytes, str]]) -> None:
        """Small files: (path, mode, content, sha256), all verified before the first is placed."""
        placed: list[tuple[str, str, Known]] = []
        for path, mode, content, sha256 in items:
            if hashlib.sha256(content).hexdigest() != sha256:
                raise ManifestMismatch(
                    f"{self.path / path}: arrived with other bytes than promised"
                )
            if not self._may_place(path, len(content), sha256):
                continue
            name = f"{len(placed)}.new"
            with full_disk(self.path):
                fd = self._create(name, mode)
                try:
                    write_all(fd, content)
                    mtime = os.fstat(fd).st_mtime_ns
                finally:
                    os.close(fd)
            placed.append((name, path, Known(len(content), sha256, mtime)))
        self._note([(path, known) for _, path, known in placed])
        for name, path, _ in placed:
            self._place(name, path)

    def begin_large(self, path: str, mode: int, size: int, offset: int) -> LargeFile:
        """A file of `size` bytes of which the first `offset` are here already."""
        check(path)
        name = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        with full_disk(self.path):
            label = os.open(
                name + ".path", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600,
                dir_fd=self._parts,
            )  # fmt: skip
            os.write(label, path.encode("utf-8", "surrogateescape"))
            os.close(label)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, 0o600, dir_fd=self._parts)
        return LargeFile(self, fd, name, path, mode, size, offset)

    def finish_large(self, large: LargeFile, sha256: str, size: int, mtime_ns: int) -> None:
        if self._may_place(large.path, size, sha256):
            self._note([(large.path, Known(size, sha256, mtime_ns))])
            self._place(large.name, large.path)
        else:
            os.unlink(large.name, dir_fd=self._parts)
        os.unlink(large.name + ".path", dir_fd=self._parts)

    def drop_part(self, name: str) -> None:
        for part in (name, name + ".path"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=self._parts)

    def _create(self, name: str, mode: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        lawful = 0o755 if mode & 0o100 else 0o644
        try:
            return os.open(name, flags, lawful, dir_fd=self._parts)
        except FileExistsError:  # left by an interrupted fetch
            os.unlink(name, dir_fd=self._parts)
            return os.open(name, flags, lawful, dir_fd=self._parts)

    def _may_place(self, path: str, size: int, sha256: str) -> bool:
        """False when the file here is not what was fetched before: it is never overwritten."""
        check(path)
        self._told.add(path)
        self._count += 1
        if self._count > FILES_MAX:
            raise UnsafePath(f"{self.path}: the host sends more than {FILES_MAX} files; stopped")
        folder, _, name = path.rpartition("/")
        try:
            at = self._open_dir(folder)
            info = os.stat(local_name(name), dir_fd=at, follow_symlinks=False)
        except FileNotFoundError:
            return True
        if stat.S_ISDIR(info.st_mode) and self._give_way(path):
            return True
        if self.journal.is_ours(path, info):
            return True
        if info.st_size == size and digest_of(self.path / local_name(path)) == sha256:
            return True
        self.changed.append(path)
        return False

    def _open_dir(self, folder: str) -> int:
        """A descriptor of the folder, made if need be, with no link on the way."""
        if not folder:
            return self._root
        if folder not in self._dirs:
            parent, _, last = folder.rpartition("/")
            if folder in self.journal.known and folder not in self._told:
                self.set_aside([folder])  # it was a file
            above, name = self._open_dir(parent), local_name(last)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=above)
            try:
                fd = os.open(name, DIRECTORY, dir_fd=above)
            except OSError as exc:
                raise UnsafePath(
                    f"{self.path / folder} is a link or no folder ({exc.strerror}); "
                    "nothing was written through it"
                ) from None
            if len(self._dirs) > 256:
                self._close_dirs(keep=folder)
            self._dirs[folder] = fd
        return self._dirs[folder]

    def _close_dirs(self, keep: str) -> None:
        """Bound the open descriptors; ancestors of the folder in use stay."""
        for folder in [name for name in self._dirs if not keep.startswith(name + "/")]:
            os.close(self._dirs.pop(folder))

    def _place(self, name: str, path: str) -> None:
        folder, _, last = path.rpartition("/")
        with full_disk(self.path):
            at = self._open_dir(folder)
            os.rename(name, local_name(last), src_dir_fd=self._parts, dst_dir_fd=at)

    # --- what is no part of the result any more ---------------------------------------------------

    def same(self, paths: Iterable[str]) -> None:
        """The result has them, and they are here."""
        self._told.update(paths)

    def gone(self) -> list[str]:
        """Files fetched before that the result, as far as it was told, has not."""
        return [path for path in self.journal.known if path not in self._told]

    def set_aside(self, paths: Sequence[str]) -> None:
        """These files of an earlier fetch are not in the folder any more."""
        with full_disk(self.path):
            for path in paths:
                self.earlier.take(self._root, path, self.journal.known[path])
            sync(self._root, self.path, sorted(map(local_name, paths)))
            for folder in sorted({path.rpartition("/")[0] for path in paths}, reverse=True):
                drop_empty(self._root, folder)
            self.journal.forget(paths)
        self._close_dirs(keep="")

    def _give_way(self, path: str) -> bool:
        """Whether the folder at `path`, where a file is to be, is gone: all in it was fetched."""
        self.set_aside([each for each in self.gone() if each.startswith(path + "/")])
        return not os.path.lexists(self.path / local_name(path))

    def _note(self, items: list[tuple[str, Known]]) -> None:
        with full_disk(self.path):
            self.journal.note(items)

    def keep(self) -> None:
        """The folder stays also when nothing came: its empty journal proves a fetch of nothing."""
        self._kept = True

    def make_durable(self) -> None:
        """What was fetched survives a power cut, and the journal says so."""
        if self.journal.loose:
            with full_disk(self.path):
                sync(self._root, self.path, sorted(map(local_name, self.journal.loose)))
                self.journal.note_synced()


def check(path: str) -> None:
    """UnsafePath unless `path` is relative, of plain components, and none of our own names."""
    try:
        raw = path.encode("utf-8", "surrogateescape")
        wire.check_path(raw)
    except (wire.WireError, UnicodeEncodeError):
        raise UnsafePath(f"the host sent an unsafe path: {path[:200]!r}; stopped") from None
    if wire.is_own(path) or path.count("/") > wire.FOLDERS_MAX:
        raise UnsafePath(f"the host sent an unsafe path: {path[:200]!r}; stopped")


def _in_the_way(path: Path) -> UsageError:
    """The first of its parents that is there and is no folder."""
    found = next(p for p in reversed(path.parents) if os.path.lexists(p) and not p.is_dir())
    what = "a link that leads nowhere" if found.is_symlink() else "no folder"
    return UsageError(
        f"{found} is in the way: it is {what}; nothing was fetched",
        hint="move it away and fetch again",
    )
