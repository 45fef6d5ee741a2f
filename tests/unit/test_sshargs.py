"""Addresses of hosts: taken apart once, the same for every way to a host."""

from __future__ import annotations

import subprocess
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


WORDS = [
    "tmux",
    "-t",
    "=orch-1",
    "=ls",
    "~",
    "%1",
    "+1",
    "",
    "it's",
    "'",
    "a b",
    "$HOME",
    "/x*",
    "é",
]


def test_no_word_for_a_login_shell_that_begins_oddly_is_bare() -> None:
    assert sshargs.quoted("=orch-1") == "'=orch-1'", "zsh would look for a program orch-1"
    assert [sshargs.quoted(word) for word in ("tmux", "-t", "/a/b")] == ["tmux", "-t", "/a/b"]


OTHERS = [pytest.param(shell, marks=pytest.mark.shells) for shell in ("zsh", "fish", "tcsh")]


@pytest.mark.parametrize("shell", ["sh", "bash", *OTHERS])
def test_a_login_shell_takes_quoted_words_as_they_are(shell: str) -> None:
    command = " ".join(["printf", "'%s\\n'", *map(sshargs.quoted, WORDS)])
    told = subprocess.run([shell, "-c", command], capture_output=True, text=True, check=True)
    assert told.stdout.split("\n")[:-1] == WORDS


def test_what_is_pinned_counts_beside_the_users_own_files(tmp_path: Path) -> None:
    pinned = tmp_path / "with space" / "known_hosts"
    assert sshargs.vouching("/a /b", pinned) == []
    pinned.parent.mkdir()
    pinned.touch()
    assert sshargs.vouching("/a /b", pinned) == ["-o", f'UserKnownHostsFile=/a /b "{pinned}"']
