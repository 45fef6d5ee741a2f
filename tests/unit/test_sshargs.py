"""Addresses of hosts: taken apart once, the same for every way to a host."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.domain import Host
from orchestrator.transport import sshargs
from orchestrator.transport.ssh_options import destination
from orchestrator.transport.sshconfig import SshConfig

ADDRESSES = {
    "nigel": (None, "nigel", None),
    "me@nigel.birs.ca": ("me", "nigel.birs.ca", None),
    "me@nigel:2222": ("me", "nigel", 2222),
    "127.0.0.1:22": (None, "127.0.0.1", 22),
    "[::1]": (None, "::1", None),
    "root@[::1]": ("root", "::1", None),
    "root@[fe80::1]:2222": ("root", "fe80::1", 2222),
}


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_address_means_the_same_to_every_transport(text: str, tmp_path: Path) -> None:
    user, name, port = ADDRESSES[text]
    host = Host(name="box", ssh=text)
    assert sshargs.address(host) == (user, name, port)
    config = tmp_path / "config"
    argv = sshargs.client(host, config)
    assert argv == ["ssh"] + ([] if port is None else ["-p", str(port)])
    assert sshargs.address(host).target == (f"{user}@{name}" if user else name)
    there = destination(host, SshConfig(config, tmp_path))
    assert (there.hostname, there.port) == (name, port or 22)
    assert user is None or there.user == user


def test_an_alias_is_its_own_address() -> None:
    assert sshargs.address(Host(name="nigel")) == (None, "nigel", None)


def test_what_is_pinned_counts_beside_the_users_own_files(tmp_path: Path) -> None:
    pinned = tmp_path / "with space" / "known_hosts"
    assert sshargs.vouching("/a /b", pinned) == []
    pinned.parent.mkdir()
    pinned.touch()
    assert sshargs.vouching("/a /b", pinned) == ["-o", f'UserKnownHostsFile=/a /b "{pinned}"']
