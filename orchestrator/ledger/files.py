"""The ledger's file apart from its content: whose it is, where it lies, who may read it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.errors import LedgerError

# SQLite's write-ahead log lives in memory shared by the processes of one machine; over these a
# second machine would see a torn log. What their names begin with; `remote.files` has the same.
_NETWORK = (
    "nfs", "cifs", "smb", "afs", "ncpfs", "9p", "virtiofs", "ceph", "glusterfs", "lustre", "gpfs",
    "beegfs", "wekafs", "panfs",
)  # fmt: skip
# Those among FUSE's; others, such as mergerfs or an encrypted home, are this machine's own.
_FUSE = tuple(f"fuse.{name}" for name in ("sshfs", "s3fs", "rclone", "gcsfuse", *_NETWORK))
KEEP = "keep the file; `orch ledger rebuild` makes a new ledger from the hosts' run directories"


def is_present(path: Path) -> bool:
    """True: a regular file of this user, 0600 from now on. False: nothing is there.

    Raises LedgerError, with nothing changed, for what cannot be a ledger: another user's file, no
    regular file, a file of no bytes, or a write-ahead log whose ledger is gone.
    """
    try:
        info = os.stat(path)
    except FileNotFoundError:
        if _size(wal_of(path)):
            if path.exists():  # made by another process between the two looks: the log comes later
                return is_present(path)
            raise LedgerError(
                f"the ledger {path} is gone but its log {wal_of(path).name} remains; "
                "nothing was changed",
                hint="put the file back from where it went, or move the log away as well",
            ) from None
        return False
    except OSError as error:
        raise LedgerError(
            f"the ledger {path} cannot be reached: {error.strerror}; nothing was changed",
            hint="ORCH_HOME names the folder it lies in",
        ) from None
    if not stat.S_ISREG(info.st_mode):
        raise LedgerError(f"the ledger {path} is not a regular file; nothing was changed")
    if info.st_uid != os.geteuid():
        raise LedgerError(
            f"the ledger {path} belongs to user id {info.st_uid}, not to you ({os.geteuid()}); "
            "it was not opened and nothing was changed",
            hint="set ORCH_HOME to a folder of your own",
        )
    if info.st_size == 0:
        # `create` never leaves such a file, so its content was lost.
        raise LedgerError(
            f"the ledger {path} is empty: its content was lost; nothing was changed", hint=KEEP
        )
    if info.st_mode & 0o077:
        make_private(path)
    return True


def make_private(path: Path) -> None:
    """The ledger and its log are readable by their owner only, where the file system allows it."""
    for each in (path, wal_of(path), path.with_name(path.name + "-shm")):
        try:
            os.chmod(each, 0o600)
        except OSError:
            continue  # absent, or on a read-only file system: what is there may still be read


def make_parent(path: Path) -> None:
    """The folder of `path` exists; folders made on the way are 0700."""
    missing = []
    folder = path.parent
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    try:
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LedgerError(
            f"the folder {path.parent} for the ledger cannot be made: {error.strerror}",
            hint="set ORCH_HOME to a folder you may write in",
        ) from None


def refuse_network(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """Raises LedgerError when the folder of `path` is a network file system (Linux only)."""
    kind = _filesystem(path.parent, mountinfo)
    if kind is not None and kind.startswith((*_NETWORK, *_FUSE)):
        raise LedgerError(
            f"the ledger {path} would lie on {kind}, where SQLite's log is not safe; "
            "nothing was changed",
            hint="set ORCH_HOME to a folder on a local disk",
        )


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def sync(path: Path) -> None:
    """The file's or folder's bytes are on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _filesystem(folder: Path, mountinfo: Path) -> str | None:
    """The type of the file system, e.g. `ext4`; None where the kernel does not say."""
    try:
        device = os.stat(folder).st_dev
        lines = mountinfo.read_text(errors="replace").splitlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        before, _, after = line.partition(" - ")
        if before.split(" ", 3)[2:3] == [wanted]:
            return after.split(" ", 1)[0]
    return None
