"""Host keys: pinned whole whoever else pins, and found under the names that ssh gives hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.clock import SystemClock
from orchestrator.domain import Host
from orchestrator.errors import UsageError
from orchestrator.transport import ssh, ssh_names
from orchestrator.usecases.context import Context
from orchestrator.usecases.hosts import trust

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ5GQZkHV3Ck8Gjh2ivvGLIbkMEOk8BxzJMXX3bX9fGe"


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """Every host offers a key of its own."""
    monkeypatch.setattr(
        ssh,
        "offered_key",
        lambda host, *_: ssh.Offered(host.name, "shown", f"{host.name} {KEY}\n", None),
    )
    monkeypatch.setattr(ssh_names, "check_name", lambda *_: None)
    env = {"HOME": str(tmp_path), "ORCH_HOME": str(tmp_path / "orch")}
    return Context(env=env, cwd=tmp_path, clock=SystemClock(), say=lambda _text: None)


def test_a_pin_made_while_another_is_asked_about_stays(ctx: Context) -> None:
    def meanwhile(_known_as: str, _shown: str) -> bool:
        return trust(ctx, "second", lambda *_: True)[1]

    trust(ctx, "first", meanwhile)
    trust(ctx, "third", lambda *_: True)
    trust(ctx, "first", lambda *_: True)
    pinned = ctx.layout.known_hosts
    assert sorted(pinned.read_text().splitlines()) == [
        f"{name} {KEY}" for name in ("first", "second", "third")
    ]
    assert pinned.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("line", "host", "known"),
    [
        ("real.example", Host("nigel"), True),
        ("[real.example]:2200", Host("nigel"), False),
        ("[far.example]:2200", Host("far"), True),
        ("far.example", Host("far"), False),
        ("[far.example]:7", Host("box", ssh="me@far:7"), True),
        ("plain.example", Host("box", ssh="me@plain.example"), True),
        ("[::1]:2222", Host("box", ssh="me@[::1]:2222"), True),
        ("other.example", Host("box", ssh="me@plain.example"), False),
    ],
)
def test_a_host_s_key_is_looked_for_under_its_name_in_the_ssh_config(
    line: str, host: Host, known: bool, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host nigel\n  HostName real.example\nHost far\n  HostName far.example\n  Port 2200\n"
        "Host *\n  GlobalKnownHostsFile none\n"
    )
    pinned = tmp_path / "pinned"
    pinned.write_text(f"{line} {KEY}\n")
    said: list[UsageError] = []
    assert ssh_names.are_known([host], config, pinned, tmp_path, said.append) == {host: known}
    absent, none = tmp_path / "absent", tmp_path / "none"
    assert ssh_names.are_known([host], absent, none, tmp_path, said.append) == {host: False}
    assert said == []


@pytest.mark.parametrize("port", ["abc", "0", "-1", "65536", "22x"])
def test_a_port_that_is_none_is_told_of_its_host_alone(port: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host weird\n  Port {port}\nHost good\n  Port 2200\n")
    said: list[UsageError] = []
    weird, good = Host("weird"), Host("good")
    known = ssh_names.are_known([weird, good], config, tmp_path / "none", tmp_path, said.append)
    assert known == {good: False}
    (error,) = said
    assert f"weird: its Port in {config} is `{port}`" in error.message
    assert "`weird`" in str(error.hint)
    with pytest.raises(UsageError, match=f"weird: its Port in {config} is `{port}`"):
        ssh.SshTransport.open(weird, config, tmp_path / "none", tmp_path)


def test_an_ssh_config_that_is_a_folder_is_named_with_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path} cannot be read: Is a directory") as caught:
        ssh_names.aliases(tmp_path, tmp_path)
    assert "ORCH_SSH_CONFIG" in str(caught.value.hint)
