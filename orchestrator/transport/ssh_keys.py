"""Host keys that somebody vouched for: in the user's known_hosts, the system's, or pinned here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.domain import Host
from orchestrator.transport.ssh_libraries import paramiko

_ADDRESS = re.compile(r"(?:.*@)?(\[[^]]*\]|[^:]*)(?::([0-9]+))?")


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
        self._config = paramiko.SSHConfig()
        if ssh_config.exists():
            self._config = paramiko.SSHConfig.from_path(str(ssh_config))
        self._pinned, self._home = pinned, home
        self._read: dict[Path, paramiko.HostKeys] = {}

    def __contains__(self, host: Host) -> bool:
        found = _ADDRESS.fullmatch(host.ssh or host.name)
        if found is None:
            return False
        options = self._config.lookup(found[1].strip("[]"))
        port = int(found[2] or options.get("port", 22))
        name = known_as(str(options["hostname"]), port)
        files = [*known_hosts_files(options, self._home), self._pinned]
        return any(keys.lookup(name) is not None for keys in self._keys(files))

    def _keys(self, files: Iterable[Path]) -> Iterable[paramiko.HostKeys]:
        for path in files:
            if path not in self._read:
                self._read[path] = keys_in(path)
            yield self._read[path]
