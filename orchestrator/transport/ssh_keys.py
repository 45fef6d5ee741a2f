"""Host keys that somebody vouched for: in the user's known_hosts, the system's, or pinned here."""

from __future__ import annotations

from pathlib import Path

from orchestrator.transport.ssh_libraries import paramiko
from orchestrator.transport.ssh_options import Destination


def keys_in(path: Path) -> paramiko.HostKeys:
    """The file's keys; none of one that is absent or unreadable."""
    try:
        return paramiko.HostKeys(str(path))
    except (OSError, ValueError, paramiko.SSHException):
        return paramiko.HostKeys()


def key_in(path: Path, name: str, kind: str) -> paramiko.PKey | None:
    """The key of that kind by which the file knows the host."""
    found = keys_in(path).lookup(name)
    return found.get(kind) if found is not None else None


class Vouched:
    """Which hosts have a key that is known, by the files as they are now."""

    def __init__(self, pinned: Path) -> None:
        self._pinned = pinned
        self._read: dict[Path, paramiko.HostKeys] = {}

    def any_for(self, there: Destination) -> bool:
        files = (*there.known_hosts, self._pinned)
        return any(self._keys(path).lookup(there.known_as) is not None for path in files)

    def _keys(self, path: Path) -> paramiko.HostKeys:
        if path not in self._read:
            self._read[path] = keys_in(path)
        return self._read[path]
