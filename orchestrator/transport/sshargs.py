"""How a host is named to SSH: its address taken apart, and the files that vouch for its key."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.domain import Host


class Address(NamedTuple):
    """`user` and `port` are None where the ssh config, or ssh itself, is to say."""

    user: str | None
    name: str  # a host name, an alias of the ssh config, or an IP address without brackets
    port: int | None

    @property
    def target(self) -> str:
        return self.name if self.user is None else f"{self.user}@{self.name}"


def address(host: Host) -> Address:
    """Of `[user@]host[:port]`, where an IPv6 address stands in brackets, or of the alias."""
    user, _, place = (host.ssh or host.name).rpartition("@")
    name, colon, port = place.rpartition(":")
    if not colon or place.endswith("]"):
        name, port = place, ""
    return Address(user or None, name.strip("[]"), int(port) if port else None)


def client(host: Host, ssh_config: Path) -> list[str]:
    """The user's own ssh, with the config that orch uses and the host's port."""
    argv = ["ssh", "-F", str(ssh_config)] if ssh_config.exists() else ["ssh"]
    port = address(host).port
    return argv if port is None else [*argv, "-p", str(port)]


def quoted(word: str) -> str:
    """The word for the login shell of a host, whichever that is: zsh replaces a bare `=word`."""
    plain = re.match("[A-Za-z0-9/-]", word)
    return shlex.quote(word) if plain else "'" + word.replace("'", "'\"'\"'") + "'"


def vouching(known_hosts: str, pinned: Path) -> Sequence[str]:
    """Options by which what `orch host trust` pinned counts beside the user's `known_hosts`."""
    if not pinned.exists():
        return []
    return ["-o", f'UserKnownHostsFile={known_hosts} "{pinned}"']
