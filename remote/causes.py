"""Why a job died, where its exit code does not tell: the kernel's count, the log's last words."""

from __future__ import annotations

import os
from typing import List, Optional


def oom_kills() -> int:
    """How often the kernel killed for memory in this cgroup (v2 memory.events, v1 oom_control)."""
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
    return 0


def _oom_line(name: str) -> Optional[int]:
    try:
        with open(name, "r") as file:
            for line in file:
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


CAUSES = (
    (b"CUDA out of memory", "the log says: CUDA out of memory"),
    (b"torch.OutOfMemoryError", "the log says: CUDA out of memory"),
    (b"No space left on device", "the log says: no space left on device"),
    (b"NCCL error", "the log says: NCCL error"),
)


def in_log(log: str) -> List[str]:
    """Well-known causes of death named in the last 64 KiB of the log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
            tail = file.read(65536)
    except OSError:
        return []
    found: List[str] = []
    for pattern, words in CAUSES:
        if pattern in tail and words not in found:
            found.append(words)
    return found
