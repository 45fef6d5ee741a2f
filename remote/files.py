"""Files on the host: atomic writes, write-once records, kernel locks, free space."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import stat
import time
from typing import Any, Callable, Dict, Optional

# What their names begin with; `orchestrator.ledger.files` has the same, but for FUSE.
NETWORK_FS = (
    "nfs", "cifs", "smb", "afs", "ncpfs", "9p", "virtiofs", "ceph", "glusterfs", "lustre", "gpfs",
    "beegfs", "wekafs", "panfs",
)  # fmt: skip
FUSE = "fuse"  # sshfs and its like, and others that look the same from here
LEFTOVER_AGE = 86400  # seconds
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # link() there: exFAT, some FUSE and SMB
FEW = 64  # files that are cheaper to sync one by one than with all else on their file system


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_atomic(path: str, data: bytes, durable: bool = True, mode: int = 0o600) -> None:
    """`path` holds all of `data` or what it held before, even across a crash when `durable`."""
    tmp = "%s.tmp.%d" % (path, os.getpid())
    try:
        _write_synced(tmp, data, durable, mode)
        os.rename(tmp, path)
    except OSError:
        remove(tmp)
        raise
    if durable:
        sync_dir(os.path.dirname(path))


def write_once(path: str, data: bytes) -> bool:
    """Write `path` whole and durably unless it exists already; True if this call wrote it.

    link() decides a race: of two writers the first wins and the second learns that it did not.
    """
    tmp = "%s.once.%d" % (path, os.getpid())
    remove(tmp)  # of one of the same number that was killed: it may be `path` itself
    try:
        _write_synced(tmp, data, True)
        try:
            os.link(tmp, path)
        except FileExistsError:
            if os.stat(tmp).st_nlink != 2:  # else NFS, whose client asked twice for our own link
                raise
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
            _rename_once(tmp, path)
    except FileExistsError:
        return False
    finally:
        remove(tmp)
    sync_dir(os.path.dirname(path))
    return True


def _rename_once(tmp: str, path: str) -> None:
    """link() and unlink(), on a file system without hard links: a lock on the folder decides."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        os.rename(tmp, path)
    finally:
        os.close(fd)


def _write_synced(path: str, data: bytes, durable: bool, mode: int = 0o600) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
        os.fchmod(fd, mode)  # before it has its name: nobody meets it with another
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def write_json(path: str, value: Any, durable: bool = True) -> None:
    write_atomic(path, json.dumps(value, sort_keys=True).encode("ascii"), durable)


def read_json(path: str) -> Optional[Dict[str, Any]]:
    """The object in `path`; None when it is absent, torn or no object."""
    try:
        with open(path, "rb", buffering=0) as file:
            value = json.loads(file.readall().decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def open_regular(path: str) -> Optional[int]:
    """A descriptor to read the regular file by; None where there is something else, which is not
    waited for, or nothing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def read_regular(path: str, limit: int) -> Optional[bytes]:
    """Up to `limit` + 1 bytes of a regular file; None when there is none."""
    fd = open_regular(path)
    if fd is None:
        return None
    try:
        parts = []
        left = limit + 1
        while left > 0:
            chunk = os.read(fd, min(left, 1 << 20))
            if not chunk:
                break
            parts.append(chunk)
            left -= len(chunk)
        return b"".join(parts)
    finally:
        os.close(fd)


def sync_dir(path: str) -> None:
    fd = os.open(path or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_tree(path: str) -> None:
    """The folder is gone, also where its folders are read-only; what resists is left."""
    for place, _, _ in os.walk(path) if not os.path.islink(path) else ():
        try:
            os.chmod(place, 0o700)
        except OSError:
            continue
    shutil.rmtree(path, ignore_errors=True)


def clear_leftovers(folder: str) -> None:
    """What processes that were ended have left half-made there more than a day ago is gone."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if ".making." in name or ".taken." in name:
            try:
                if os.lstat(path).st_mtime < time.time() - LEFTOVER_AGE:
                    remove_tree(path)
            except FileNotFoundError:
                continue


def free_name(path: str) -> str:
    """`path`, or that with the first number that makes it a name nothing has."""
    free, number = path, 1
    while os.path.lexists(free):
        number += 1
        free = "%s.%d" % (path, number)
    return free


def sync_tree(path: str) -> None:
    """All that is in the folder is on the disk, but for what goes away meanwhile.

    One call for its whole file system takes a fraction of the time of an fsync for each of many.
    """
    found = []
    for place, _, names in os.walk(path):
        found += [place, *(os.path.join(place, name) for name in names)]
        if len(found) > FEW:
            _sync_filesystem(path)
            return
    for each in found:
        try:
            if stat.S_IFMT(os.lstat(each).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                sync_dir(each)
        except (FileNotFoundError, PermissionError):
            continue


def _sync_filesystem(path: str) -> None:
    try:
        import ctypes

        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, OSError, AttributeError):  # not Linux
        os.sync()
        return
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        number = 0 if syncfs(fd) == 0 else ctypes.get_errno()
        if number == errno.ENOSYS:
            os.sync()
        elif number:
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(fd)


def exchange(one: str, other: str) -> bool:
    """Each has the other's name, at no moment neither has it. False, and nothing done, where the
    system cannot."""
    try:
        import ctypes

        rename = ctypes.CDLL(None).renameat2
    except (ImportError, OSError, AttributeError):  # not Linux, or a libc from before 2018
        return False
    here = -100  # AT_FDCWD; 2 is RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), 2) == 0)


def words(exc: OSError) -> str:
    """Which file, and what the system says of it."""
    where = "%s: " % os.fsdecode(exc.filename) if exc.filename else ""
    return "%s%s" % (where, exc.strerror or exc)


def is_full(exc: OSError) -> bool:
    """Nothing can be written there until somebody makes room."""
    return exc.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def full_words(exc: OSError, path: str) -> str:
    """Which kind of room is lacking under `path`."""
    if exc.errno == errno.EROFS:
        return "Read-only file system: %s on the host is mounted read-only" % path
    if exc.errno == errno.EDQUOT:
        return "your disk quota on the host is used up (under %s)" % path
    info = os.statvfs(path)
    if info.f_files and not info.f_favail:
        return "no inodes are left under %s on the host: too many files there" % path
    free = info.f_bavail * info.f_frsize
    return "the disk under %s on the host is full: %d kB free" % (path, free >> 10)


def size(count: float) -> str:
    """As `wording.size` of the controller says it: `999 B`, `1.2 kB`, `3.4 MB`, `5.6 GB`."""
    if count < 1000:
        return "%d B" % count
    for power, unit in ((1, "kB"), (2, "MB")):
        if count < 999950 * 1000 ** (power - 1):  # what rounds to 1000.0 is the next unit's 1.0
            return "%.1f %s" % (count / 1000**power, unit)
    return "%.1f GB" % (count / 1e9)


def filesystem(path: str) -> str:
    """The file system's name if it is a network one, else "local". Linux only; else "local"."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            mounts = file.read().decode("utf-8", "surrogateescape").splitlines()
    except OSError:
        return "local"
    best, kind = "", "local"
    real = os.path.realpath(path)
    for line in mounts:
        left, _, right = line.partition(" - ")
        point = left.split(" ")[4].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split(" ")[0]
    return kind if kind.startswith((*NETWORK_FS, FUSE)) else "local"


def try_lock(path: str, shared: bool = False) -> Optional[int]:
    """An open descriptor that holds the lock on `path`, or None while another process holds it;
    `shared`: beside others that do so too.

    The kernel frees the lock when the last copy of the descriptor closes, SIGKILL included.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    return fd


def note(held: int, text: str) -> None:
    """The file of a lock that is held says this, for those who find it locked; nothing where there
    is no room for it: the lock is what counts."""
    try:
        os.ftruncate(held, 0)
        os.pwrite(held, text.encode("ascii"), 0)
    except OSError as exc:
        if not is_full(exc):
            raise


def touch(path: str) -> None:
    """The file, if it is there, was changed now."""
    try:
        os.utime(path)
    except OSError:
        pass


def lock_within(path: str, seconds: float) -> Optional[int]:
    """Like `try_lock`, for `seconds`."""
    end = time.monotonic() + seconds
    while True:
        held = try_lock(path)
        if held is not None or time.monotonic() >= end:
            return held
        time.sleep(0.02)


def lock(path: str) -> int:
    """Like `try_lock`, but waits. For short critical sections only."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd


def lock_alive(path: str, beat: Callable[[], None], shared: bool = False) -> int:
    """Like `try_lock`, but waits, however long another's work takes, and calls `beat` meanwhile."""
    while True:
        held = try_lock(path, shared)
        if held is not None:
            return held
        beat()
        time.sleep(0.05)


def is_locked(path: str) -> bool:
    """True while some process holds the lock. Does not create the file."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        # A shared probe: two probes at once must not take each other for the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as exc:
        if exc.errno in (errno.EAGAIN, errno.EACCES):
            return True
        raise
    finally:
        os.close(fd)
    return False


def free_bytes(path: str) -> int:
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize
