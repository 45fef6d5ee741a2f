"""Hosts by the names that the user's ssh config has; nobody is connected to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.transport.ssh_keys import Vouched
from orchestrator.transport.ssh_options import parsed, reading


def check_name(host: Host, ssh_config: Path) -> None:
    """NotFound for a bare name that is no alias of the ssh config and does not resolve."""
    if host.ssh is not None:
        return
    if host.name in aliases(ssh_config) or _looked_up(ssh_config, host.name) != host.name:
        return
    try:
        socket.getaddrinfo(host.name, 22)
    except OSError:
        there = "" if ssh_config.exists() else " (which does not exist)"
        raise errors.NotFound(
            f"host {host.name!r} is no alias in {ssh_config}{there}, not in orch.yaml, "
            "and does not resolve",
            hint="`orch host ls` lists the hosts",
        ) from None


def aliases(ssh_config: Path) -> list[str]:
    """Host names of the ssh config, without patterns, in the order of the alphabet."""
    names = parsed(ssh_config).get_hostnames()
    return sorted(name for name in names if not set(name) & set("*?!"))


def are_known(
    hosts: Iterable[Host],
    ssh_config: Path,
    pinned: Path,
    home: Path,
    tell: Callable[[errors.UsageError], None],
) -> dict[Host, bool]:
    """Whether a key of each host is known; nobody is connected to. A host whose entry in the ssh
    config is not lawful is left out, and told of."""
    vouched = Vouched(ssh_config, pinned, home)
    known = {}
    for host in hosts:
        try:
            known[host] = bool(vouched.by(host))
        except errors.UsageError as exc:
            tell(exc)
    return known


def _looked_up(ssh_config: Path, name: str) -> str:
    with reading(ssh_config):
        found = parsed(ssh_config).lookup(name)
    return str(found.get("hostname", name))
