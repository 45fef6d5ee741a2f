"""Host keys that somebody vouched for: in the user's known_hosts, the system's, or pinned here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.domain import Host
from orchestrator.transport.ssh_libraries import paramiko
from orchestrator.transport.ssh_options import parsed, port_of, reading
from orchestrator.transport.sshargs import address


def known_hosts_files(options: Mapping[str, Any], home: Path) -> list[Path]:
    own = str(options.get("userknownhostsfile") or f"{home}/.ssh/known_hosts").split()
    system = str(options.get("globalknownhostsfile") or "/etc/ssh/ssh_known_hosts").split()
    return [Path(name.replace("~", str(home), 1)) for name in own + system if name != "none"]


def known_as(host: str, port: int) -> str:
    """A host's name in known_hosts files."""
    return host if port == 22 else f"[{host}]:{port}"


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

    def __init__(self, ssh_config: Path, pinned: Path, home: Path) -> None:
        self._path, self._config = ssh_config, parsed(ssh_config)
        self._pinned, self._home = pinned, home
        self._read: dict[Path, paramiko.HostKeys] = {}

    def by(self, host: Host) -> list[Path]:
        """The files that have a key of the host; UsageError where its entry is not lawful."""
        with reading(self._path):
            options = self._config.lookup(address(host).name)
        name = known_as(str(options["hostname"]), port_of(host, options, self._path))
        files = [*known_hosts_files(options, self._home), self._pinned]
        return [path for path in files if self._keys(path).lookup(name) is not None]

    def _keys(self, path: Path) -> paramiko.HostKeys:
        if path not in self._read:
            self._read[path] = keys_in(path)
        return self._read[path]
