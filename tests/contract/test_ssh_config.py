"""Hosts that are reached as the lines of an ssh config say, over a real server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import Desk, assert_clear
from tests.helpers.sshd import PrivateSshd

pytestmark = pytest.mark.ssh

# `@/` is a folder in which lie `entry`, the host's block, `keys of hosts`, its key under its own
# name, `alias`, the same under the name `nigel`, and `key-USER`, what logs in.
CONFIGS = {
    "an included file": "Include @/entry\n",
    "no jump": "Include @/entry\nHost *\n  ProxyJump none\n",
    "a final match": "Include @/entry\nMatch final all\n  ServerAliveInterval 5\n",
    "a host that is not canonical": "CanonicalizeHostname yes\nCanonicalDomains x.invalid\n"
    "CanonicalizeFallbackLocal yes\nInclude @/entry\n",
    "quoted files": 'Host box\n  UserKnownHostsFile "@/keys of hosts" /dev/null\nInclude @/entry\n',
    "a key by another name": "Host box\n  HostKeyAlias nigel\n  UserKnownHostsFile @/alias\n"
    "Include @/entry\n",
    "a key by a token": "Host box\n  IdentityFile @/key-%r\n  IdentityFile none\nInclude @/rest\n",
    "a proxy command of a shell": "Include @/entry\nHost *\n"
    "  ProxyCommand ssh -F @/entry -W %h:%p box 2>/dev/null\n",
}


def a_desk(new_desk: MakeDesk, sshd: PrivateSshd, folder: Path, text: str) -> Desk:
    """Its ssh config has that text."""
    entry = sshd.host_block("box")
    (folder / "entry").write_text(entry)
    (folder / "rest").write_text(entry.replace(f"    IdentityFile {sshd.identity}\n", ""))
    shutil.copy(sshd.known_hosts, folder / "keys of hosts")
    (folder / "alias").write_text(f"nigel {sshd.host_key_line().split(None, 1)[1]}")
    shutil.copy(sshd.identity, folder / f"key-{sshd.user}")
    (folder / "config").write_text(text.replace("@/", f"{folder}/"))
    return new_desk(host=box(sshd, ssh="box"), ssh_config=folder / "config")


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_f89_a_host_is_reached_as_the_config_says(
    text: str, new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    desk = a_desk(new_desk, sshd, tmp_path, text)
    assert "ok  connection" in desk.orch("doctor", "box").stdout
    listed = {each["name"]: each for each in json.loads(desk.orch("host", "ls", "--json").stdout)}
    assert listed["box"]["trusted"] is True
    assert "is known already" in desk.orch("host", "trust", "box").stderr


def test_f89_what_cannot_be_followed_is_told_with_its_line_and_what_follows_it(
    new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    desk = a_desk(new_desk, sshd, tmp_path, "Include @/entry\nMatch tagged x\n  Port 1\n")
    done = desk.orch("submit", "train", code=2)
    assert_clear(done, "`tagged`", f"{tmp_path}/config, line 2", "`transport: openssh`")
    assert "tagged" in desk.orch("host", "ls").stderr


def test_f86_a_jump_host_must_be_known_too(
    new_desk: MakeDesk, make_sshd: Callable[..., PrivateSshd], sshd: PrivateSshd, tmp_path: Path
) -> None:
    gate = make_sshd(alias="gate")
    stranger = gate.write_client_config(tmp_path / "client", trusted=False).read_text()
    text = f"Include @/entry\nHost box\n  ProxyJump gate\n{stranger}"
    desk = a_desk(new_desk, sshd, tmp_path, text)
    done = desk.orch("doctor", "box", code=8)
    assert "box, by way of gate" in done.stdout
    assert "`orch host trust gate`" in done.stdout
    assert "Accepted" not in gate.log()
    desk.orch("host", "trust", "--yes", "gate")
    assert "ok  connection" in desk.orch("doctor", "box").stdout
    assert "Accepted publickey" in gate.log()
    (tmp_path / "config").write_text("Host box\n  Port 1\n" + (tmp_path / "config").read_text())
    refused = desk.orch("doctor", "box", code=6)
    assert "its jump host gate cannot reach it" in refused.stdout


@pytest.mark.parametrize(
    "config",
    [
        {"KexAlgorithms": "sntrup761x25519-sha512@openssh.com"},
        {"Ciphers": "chacha20-poly1305@openssh.com"},
    ],
    ids=str,
)
def test_a_host_with_no_algorithm_in_common_is_told_what_has_others(
    config: dict[str, str], new_desk: MakeDesk, make_sshd: Callable[..., PrivateSshd]
) -> None:
    server = make_sshd(config=config)
    desk = new_desk(host=box(server), ssh_config=server.client_config)
    done = desk.orch("submit", "train", code=6)
    assert_clear(done, "box", "none of the algorithms", "set `transport: openssh` for box")
    other = new_desk(host=box(server, transport="openssh"), ssh_config=server.client_config)
    assert "ok  connection" in other.orch("doctor", "box").stdout
