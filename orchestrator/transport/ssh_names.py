"""Hosts by the names that the user's ssh config has; nobody is connected to."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.transport.ssh_keys import Vouched
from orchestrator.transport.ssh_libraries import paramiko


def check_name(host: Host, ssh_config: Path) -> None:
    """NotFound for a bare name that is no alias of the ssh config and does not resolve."""
    if host.ssh is not None:
        return
    if host.name in aliases(ssh_config) or _looked_up(ssh_config, host.name) != host.name:
        return
    try:
        socket.getaddrinfo(host.name, 22)
    except OSError:
        raise errors.NotFound(
            f"host {host.name!r} is no alias in {ssh_config}, not in orch.yaml, "
            "and does not resolve",
            hint="`orch host ls` lists the hosts",
        ) from None


def aliases(ssh_config: Path) -> list[str]:
    """Host names of the ssh config, without patterns, in the order of the file."""
    if not ssh_config.exists():
        return []
    with _config_errors(ssh_config):
        names = paramiko.SSHConfig.from_path(str(ssh_config)).get_hostnames()
    return sorted(name for name in names if not set(name) & set("*?!"))


def are_known(
    hosts: Iterable[Host], ssh_config: Path, pinned: Path, home: Path
) -> dict[Host, bool]:
    """Whether a key of each host is known; nobody is connected to."""
    with _config_errors(ssh_config):
        vouched = Vouched(ssh_config, pinned, home)
        return {host: host in vouched for host in hosts}


def _looked_up(ssh_config: Path, name: str) -> str:
    if not ssh_config.exists():
        return name
    with _config_errors(ssh_config):
        found = paramiko.SSHConfig.from_path(str(ssh_config)).lookup(name)
    return str(found.get("hostname", name))


@contextlib.contextmanager
def _config_errors(ssh_config: Path) -> Iterator[None]:
    try:
        yield
    except (paramiko.ConfigParseError, OSError, UnicodeDecodeError) as exc:
        raise errors.UsageError(f"{ssh_config}: {exc}") from None
