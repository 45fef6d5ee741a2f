"""Questions to /proc about processes a test started, and an end for them by pid."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path


def all_pids() -> list[int]:
    """Every pid in this pid namespace at the moment of the call."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def parent_of(pid: int) -> int | None:
    """The parent's pid, or None when the process is gone."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def session_of(pid: int) -> int | None:
    """The id of the process's session, or None when the process is gone."""
    fields = _stat(pid)
    return int(fields[3]) if fields else None


def start_time(pid: int) -> int | None:
    """Clock ticks from boot to the start of the process: with the pid, its identity."""
    fields = _stat(pid)
    return None if not fields or fields[0] in "ZX" else int(fields[19])


def _stat(pid: int) -> list[str]:
    """What follows the name in /proc/PID/stat: state, parent, group, session, ...; empty: gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    # The name is in parentheses and may hold spaces and parentheses itself.
    return stat.rpartition(")")[2].split()


def is_alive(pid: int) -> bool:
    """True while the process exists and is not a zombie."""
    return start_time(pid) is not None


def descendants(pid: int) -> list[int]:
    """Children, grandchildren and so on of `pid`, parents before their children."""
    by_parent: dict[int, list[int]] = {}
    for candidate in all_pids():
        parent = parent_of(candidate)
        if parent is not None:
            by_parent.setdefault(parent, []).append(candidate)
    found: list[int] = []
    todo = [pid]
    while todo:
        children = by_parent.get(todo.pop(), [])
        found += children
        todo += children
    return found


def name_of(pid: int) -> str:
    """The kernel's short name of the process, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def argv_of(pid: int) -> list[str]:
    """The words the process was started with, empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def owned_by(uid: int) -> list[int]:
    """Living processes whose real uid is `uid`."""
    return [pid for pid in all_pids() if is_alive(pid) and _real_uid(pid) == uid]


def with_environment(name: str, value: str) -> list[int]:
    """Living processes that were started with `name=value` in their environment."""
    wanted = f"{name}={value}".encode()
    return [pid for pid in all_pids() if is_alive(pid) and wanted in _environment(pid)]


def end(pids: Iterable[int], deadline_s: float = 5.0) -> list[int]:
    """Kill these processes and wait until they are gone; return those that are not."""
    left = {pid: start_time(pid) for pid in pids}
    for pid, born in left.items():
        if born is not None and start_time(pid) == born:
            _kill(pid)
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        left = {p: born for p, born in left.items() if born is not None and start_time(p) == born}
        if not left:
            return []
        time.sleep(0.01)
    return list(left)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _real_uid(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), None)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
