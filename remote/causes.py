"""Why a run ended: its verdict, its cause in one word, and what is worth telling of it."""

from __future__ import annotations

import os
import signal
import time
from typing import List, NamedTuple, Optional, Tuple

from remote import files, logind

LOGIND_LATE = 1.0  # seconds, see is_logout


class End(NamedTuple):
    """How an attempt ended. `cause` is one word, None for what needs none (success)."""

    verdict: str
    cause: Optional[str] = None
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    reasons: Tuple[str, ...] = ()


def judge(code: int, number: Optional[int], oom: bool, log: str) -> End:
    """The end of a job whose process ended with `code` or by signal `number`.

    `oom`: the kernel killed for memory while it ran.
    """
    if code == 0 and number is None:
        return End("succeeded", None, 0)
    if (number == signal.SIGKILL or code == 137) and oom:
        told = "the kernel killed it: its memory limit was reached"
        return End("oom", "oom", None if number else code, number, (told,))
    found = in_log(log) or _full_disk(log)
    cause = found[0][0] if found else None
    reasons = tuple(words for _, words in found)
    if number is not None:
        return End(
            "killed", cause or "signal", None, number, ("signal %d ended it" % number, *reasons)
        )
    return End("failed", cause or "exit", code, None, ("exit code %s" % code, *reasons))


def oom_kills() -> int:
    """How often the kernel killed for memory in this cgroup (v2 memory.events, v1 oom_control);
    where no cgroup counts, on this machine."""
    try:
        with open("/proc/self/cgroup", "r") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return 0
    for _, controllers, path in lines:
        if controllers == "":
            name = "/sys/fs/cgroup%s/memory.events" % path
        elif "memory" in controllers.split(","):
            name = "/sys/fs/cgroup/memory%s/memory.oom_control" % path
        else:
            continue
        count = _oom_line(name)
        if count is not None:
            return count
    return _oom_line("/proc/vmstat") or 0


def _oom_line(name: str) -> Optional[int]:
    try:
        with open(name, "r") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


# What the log's last words show: (a piece of them, the cause, how it is told).
CAUSES = (
    (b"CUDA out of memory", "cuda_oom", "the log says: CUDA out of memory"),
    (b"torch.OutOfMemoryError", "cuda_oom", "the log says: CUDA out of memory"),
    (b"No space left on device", "disk_full", "the log says: no space left on device"),
    (b"Disk quota exceeded", "disk_full", "the log says: disk quota exceeded"),
    (b"Read-only file system", "disk_full", "the log says: read-only file system"),
    (b"NCCL error", "nccl", "the log says: NCCL error"),
)


def in_log(log: str) -> List[Tuple[str, str]]:
    """(cause, words) of well-known deaths named in the last 64 KiB of the log."""
    fd = files.open_regular(log)
    if fd is None:
        return []
    try:
        with open(fd, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            tail = file.read(65536)
    except OSError:
        return []
    found: List[Tuple[str, str]] = []
    for pattern, cause, words in CAUSES:
        if pattern in tail and (cause, words) not in found:
            found.append((cause, words))
    return found


def _full_disk(log: str) -> List[Tuple[str, str]]:
    """A full disk swallows the last words that would have told of it."""
    try:
        info = os.statvfs(os.path.dirname(log))
    except OSError:
        return []
    if info.f_bavail * info.f_frsize < 65536:
        return [("disk_full", "the disk is full")]
    if info.f_files and info.f_favail == 0:
        return [("disk_full", "the disk has no inodes left")]
    return []


def of_termination() -> End:
    """Who asked the supervisor to end: logind, at the end of its login, or somebody else."""
    if is_logout():
        told = "logind ended it at logout (KillUserProcesses=yes); `orch doctor` tells more"
        return End("killed", "logout", reasons=(told,))
    told = "its supervisor was asked to end (a shutdown?)"
    return End("killed", "terminated", reasons=(told,))


def is_logout() -> bool:
    """Logind ends this process's login and all that runs in it.

    It notes that down after it has asked for the signals, so they can be here first.
    """
    if not logind.kills_at_logout(logind.user_name()):
        return False
    end = time.monotonic() + LOGIND_LATE
    while logind.login() is not None:
        if logind.login_is_closing():
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(0.02)
    return False
