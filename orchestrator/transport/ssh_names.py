"""Hosts by the names that the user's ssh config has; nobody is connected to."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.transport.ssh_options import destination
from orchestrator.transport.sshconfig import SshConfig


def check_name(host: Host, ssh_config: Path, home: Path) -> None:
    """NotFound for a bare name that is no alias of the ssh config and does not resolve."""
    if host.ssh is not None:
        return
    config = SshConfig(ssh_config, home)
    if host.name in config.aliases() or config.lookup(host.name).hostname != host.name.lower():
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


def aliases(ssh_config: Path, home: Path) -> list[str]:
    """Host names of the ssh config, without patterns, in the order of the alphabet."""
    return SshConfig(ssh_config, home).aliases()


def are_known(
    hosts: Iterable[Host],
    ssh_config: Path,
    pinned: Path,
    home: Path,
    tell: Callable[[errors.UsageError], None],
) -> dict[Host, bool]:
    """Whether a key of each host is known; nobody is connected to. A host whose entry in the ssh
    config is not lawful is left out, and told of."""
    from orchestrator.transport.ssh_keys import Vouched

    config, vouched = SshConfig(ssh_config, home), Vouched(pinned)
    known = {}
    for host in hosts:
        try:
            known[host] = bool(vouched.keys(destination(host, config)))
        except errors.UsageError as exc:
            tell(exc)
    return known
