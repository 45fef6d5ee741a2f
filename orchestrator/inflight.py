"""Whether the command that is to start a run still lives: a kernel lock, held until it is through.

Only a run whose lock is free may be settled by others: its start will never come.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def hold(path: Path) -> Iterator[bool]:
    """True: the lock is ours, and free at the latest when this process is gone, however it ends.
    False: another command holds it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        yield False
        return
    try:
        yield True
    finally:
        # Nobody waits for this lock, so its file may go first: who looks finds no lock or no file.
        path.unlink(missing_ok=True)
        os.close(fd)


def is_held(path: Path) -> bool:
    """True while some process holds it; an absent file is a free lock."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
