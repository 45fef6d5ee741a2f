"""Whom orch trusts: host keys, logins, and what to do when they are refused."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import Desk, assert_clear, until
from tests.helpers.sshd import PrivateSshd

pytestmark = [pytest.mark.ssh, pytest.mark.usefixtures("over")]

MakeSshd = Callable[..., PrivateSshd]


def never_ran(desk: Desk) -> None:
    """Every run the ledger knows is known not to have run."""
    assert {row[1:] for row in desk.rows()} <= {("finished", "never_started")}


def stranger(new_desk: MakeDesk, server: PrivateSshd, tmp_path: Path) -> Desk:
    """A desk that has never seen the server's key."""
    config = server.write_client_config(tmp_path / "client", trusted=False)
    return new_desk(host=box(server), ssh_config=config)


def test_f86_an_unknown_key_is_refused_shown_and_pinned_once(
    new_desk: MakeDesk, make_sshd: MakeSshd, tmp_path: Path
) -> None:
    sshd = make_sshd()
    desk = stranger(new_desk, sshd, tmp_path)
    done = desk.orch("submit", "train", code=8)
    assert_clear(done, "box", "orch host trust box")
    never_ran(desk)
    assert not sshd.root_dir.exists()
    refused = desk.orch("host", "trust", "box", code=8)
    shown = _fingerprint(sshd)
    assert shown in refused.stderr
    assert key_of(desk, "box") is False
    assert "unknown: orch host trust" in desk.orch("host", "ls").stdout
    trusted = desk.orch("host", "trust", "-y", "box")
    assert key_of(desk, "box") is True
    assert key_of(desk, "local") is None
    assert shown in trusted.stderr
    assert (tmp_path / "client" / "known_hosts").read_text() == ""
    run_id = desk.submit("train")
    desk.orch("wait", run_id)
    desk.orch("fetch-results", run_id)
    assert desk.show(run_id)["accuracy"] == 0.9


def test_a_pin_does_not_join_a_last_line_without_an_end(
    new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    desk = stranger(new_desk, sshd, tmp_path)
    pinned = desk.home / "state" / "orch" / "known_hosts"
    pinned.parent.mkdir(parents=True)
    pinned.write_text("other ssh-ed25519 AAAA")
    desk.orch("host", "trust", "-y", "box")
    assert pinned.read_text().splitlines()[0] == "other ssh-ed25519 AAAA"
    assert key_of(desk, "box") is True


def key_of(desk: Desk, name: str) -> bool | None:
    listed = json.loads(desk.orch("host", "ls", "--json").stdout)
    assert [each["name"] for each in listed if each["default"]] == ["box"]
    return {each["name"]: each["trusted"] for each in listed}[name]


def test_a_key_in_the_user_s_own_known_hosts_is_a_known_one(
    new_desk: MakeDesk, sshd: PrivateSshd
) -> None:
    desk = new_desk(host=box(sshd), ssh_config=sshd.client_config)
    assert key_of(desk, "box") is True
    assert key_of(desk, sshd.alias) is True
    lines = desk.orch("host", "ls").stdout.splitlines()
    assert any("box (default)" in line and " trusted " in line for line in lines)
    done = desk.orch("host", "trust", "box")
    assert f"is known already, by {sshd.known_hosts}" in done.stderr
    assert _fingerprint(sshd) in done.stderr


def test_a_port_that_is_none_is_a_matter_of_its_host_alone(
    new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(sshd.client_config.read_text() + "\nHost weird\n    Port abc\n")
    desk = new_desk(host=box(sshd), ssh_config=config)
    done = desk.orch("host", "ls")
    assert "weird: its Port in" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        "HOST", "local", "box", sshd.alias, "weird",
    ]  # fmt: skip
    for command in (["doctor"], ["submit", "train", "--host"], ["host", "trust"]):
        done = desk.orch(*command, "weird", code=None)
        assert done.returncode == 2, done.stderr
        assert "weird" in done.stdout + done.stderr
        assert "Port" in done.stdout + done.stderr


def _fingerprint(server: PrivateSshd) -> str:
    argv = ["ssh-keygen", "-lf", str(server.base / "host_ed25519.pub")]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1]


def test_f86_lines_of_known_hosts_that_say_nothing_of_a_host_hide_no_other(
    new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    config = sshd.write_client_config(tmp_path / "client", trusted=True)
    known_hosts = tmp_path / "client" / "known_hosts"
    other = " ".join(sshd.host_key_line().split()[1:3])
    odd = f"@cert-authority *.example {other}\nold ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI\nword\n"
    salted = "|1|!|! ssh-rsa AAAA\n# caf\xe9\n"
    known_hosts.write_bytes((odd + known_hosts.read_text() + salted).encode("latin-1"))
    desk = new_desk(host=box(sshd), ssh_config=config)
    assert "ok  connection" in desk.orch("doctor", "box").stdout
    assert key_of(desk, "box") is True
    assert f"is known already, by {known_hosts}" in desk.orch("host", "trust", "box").stderr


@pytest.mark.parametrize("known", [True, False])
def test_f87_a_revoked_key_is_refused_and_is_not_pinned(
    known: bool, new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    config = sshd.write_client_config(tmp_path / "client", trusted=known)
    with (tmp_path / "client" / "known_hosts").open("a") as file:
        file.write(f"@revoked * {' '.join(sshd.host_key_line().split()[1:3])}\n")
    desk = new_desk(host=box(sshd), ssh_config=config)
    done = desk.orch("submit", "train", code=8)
    assert_clear(done, "box", "host key", "REVOKED", "nothing was sent")
    never_ran(desk)
    assert key_of(desk, "box") is False
    assert_clear(desk.orch("host", "trust", "-y", "box", code=8), "REVOKED", "nothing was sent")
    assert "REVOKED" in desk.orch("doctor", "box", code=8).stdout


@pytest.mark.parametrize("pinned_by", ["known_hosts", "orch host trust"])
def test_f87_a_changed_key_is_refused_and_nothing_is_sent(
    pinned_by: str, new_desk: MakeDesk, make_sshd: MakeSshd, tmp_path: Path
) -> None:
    server = make_sshd()
    if pinned_by == "known_hosts":
        desk = new_desk(host=box(server), ssh_config=server.client_config)
    else:
        desk = stranger(new_desk, server, tmp_path)
        desk.orch("host", "trust", "-y", "box")
    desk.orch("doctor", "box")
    server.rotate_host_keys()
    server.kill_sessions()  # a connection that stands was made under the old key
    before = server.log().count("Accepted publickey")
    done = desk.orch("submit", "train", code=8)
    assert_clear(done, "box", "CHANGED", _fingerprint(server))
    assert server.log().count("Accepted publickey") == before
    never_ran(desk)
    desk.orch("doctor", "box", code=8)
    if pinned_by == "orch host trust":
        assert "ANOTHER key is pinned" in desk.orch("host", "trust", "-y", "box").stderr
        desk.submit("train")
    else:
        # The user's own known_hosts goes before what orch pins: a pin would be of no use.
        done = desk.orch("host", "trust", "-y", "box", code=8)
        assert_clear(done, "nothing was pinned", "ssh-keygen -R", str(server.known_hosts))


def test_f87_a_run_behind_a_changed_key_is_shown_with_that_and_not_as_unreachable(
    new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd()
    desk = new_desk({"long": "sleep 600"}, host=box(server), ssh_config=server.client_config)
    run_id = desk.submit("long")
    server.rotate_host_keys()
    server.kill_sessions()
    for command in ("show", "ls"):
        done = desk.orch(command)
        assert run_id in done.stdout
        assert "running" in done.stdout
        assert "unreachable" not in done.stdout + done.stderr
        assert "CHANGED" in done.stderr
        assert "orch host trust box" in done.stderr


def test_f87_a_second_key_type_beside_the_pinned_one_is_no_change(
    new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd(host_keys=["ecdsa"])
    server.rotate_host_keys(["ecdsa"])
    config = server.write_client_config(server.base)
    desk = new_desk(host=box(server), ssh_config=config)
    desk.orch("doctor", "box")
    line = server.host_key_line()
    key = (server.base / "host_ecdsa").read_bytes(), (server.base / "host_ecdsa.pub").read_bytes()
    server.rotate_host_keys(["ed25519", "ecdsa"])
    (server.base / "host_ecdsa").write_bytes(key[0])
    (server.base / "host_ecdsa.pub").write_bytes(key[1])
    server.restart()
    assert server.host_key_line(key_type="ecdsa") == line
    desk.orch("submit", "train", "-f")


@pytest.mark.parametrize("kind", ["another key", "no such user", "key with a passphrase", "no key"])
def test_f90_a_login_that_is_refused_says_why_and_asks_nobody(
    kind: str, new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    config = sshd.write_client_config(tmp_path / "client")
    text = config.read_text()
    other = tmp_path / "other_key"
    phrase = "secret" if kind == "key with a passphrase" else ""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", phrase, "-f", str(other)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    if kind == "no such user":
        text = text.replace(f"User {sshd.user}", "User nobody-at-all")
    elif kind == "no key":
        text = text.replace(str(sshd.identity), str(tmp_path / "absent"))
    else:
        text = text.replace(str(sshd.identity), str(other))
    config.write_text(text)
    desk = new_desk(host=box(sshd), ssh_config=config)
    done = desk.orch("submit", "train", code=8, timeout=40)
    assert_clear(done, "box")
    never_ran(desk)
    report = desk.orch("doctor", "box", "--json", code=None)
    assert report.returncode in (6, 8)
    assert json.loads(report.stdout)


@pytest.mark.parametrize("held", [True, False])
def test_a_key_that_asks_for_a_passphrase_is_used_where_ssh_agent_holds_it(
    held: bool, new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    """The ssh config says `IdentitiesOnly yes`: of the agent's keys only those that it names."""
    server = make_sshd()
    assert "IdentitiesOnly yes" in server.client_config.read_text()
    key = str(server.identity)
    other = server.base / "other_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    with running_agent(server.base / "agent") as socket:
        env = {**os.environ, "SSH_AUTH_SOCK": socket}
        for added in (str(other), *([key] if held else [])):
            subprocess.run(["ssh-add", "-q", added], check=True, env=env)
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", key], check=True)
        desk = new_desk(host=box(server), ssh_config=server.client_config)
        desk.env["SSH_AUTH_SOCK"] = socket
        if held:
            desk.orch("doctor", "box")
        else:
            assert_clear(desk.orch("submit", "train", code=8, timeout=40), "box")


@pytest.mark.parametrize("only_named", ["yes", "no"])
def test_the_agent_is_the_one_that_the_ssh_config_names(
    only_named: str, new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    """As password managers have it: a socket of their own. That of the environment has no key."""
    server = make_sshd()
    key, config = str(server.identity), server.client_config
    with (
        running_agent(server.base / "own agent") as own,
        running_agent(server.base / "usual") as usual,
    ):
        env = {**os.environ, "SSH_AUTH_SOCK": own}
        subprocess.run(["ssh-add", "-q", key], check=True, env=env)
        subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", key], check=True)
        text = config.read_text().replace("IdentitiesOnly yes", f"IdentitiesOnly {only_named}")
        desk = new_desk(host=box(server), ssh_config=config)
        desk.env["SSH_AUTH_SOCK"] = usual
        config.write_text(text)
        assert_clear(desk.orch("submit", "train", code=8, timeout=40), "box")
        config.write_text(text.rstrip("\n") + f'\n    IdentityAgent "{own}"\n')
        desk.orch("doctor", "box")


@pytest.mark.parametrize(
    ("config", "codes"),
    [
        ({"ForceCommand": "echo this account may not"}, (6,)),
        ({"ForceCommand": "/bin/false"}, (6,)),
        ({"MaxSessions": "0"}, (6,)),
        ({"AllowUsers": "somebody-else"}, (8,)),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else "",
)
def test_f67_a_restricted_login_is_named_as_such(
    config: dict[str, str], codes: tuple[int, ...], new_desk: MakeDesk, make_sshd: MakeSshd
) -> None:
    server = make_sshd(config=config)
    desk = new_desk(host=box(server), ssh_config=server.client_config)
    done = desk.orch("submit", "train", code=None)
    assert done.returncode in codes, done.stderr
    assert_clear(done, "box")
    if "echo" in str(config):
        assert "this account may not" in done.stderr
    never_ran(desk)


@pytest.mark.parametrize("kind", ["nobody listens", "not ssh"])
def test_a_host_that_is_not_there_is_unreachable(
    kind: str, new_desk: MakeDesk, tmp_path: Path
) -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if kind == "not ssh":
            listener.listen()
        desk = new_desk(host={"ssh": f"me@127.0.0.1:{port}"})
        running = desk.start("submit", "train")
        if kind == "not ssh":
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        out, said = running.communicate(timeout=60)
    assert (running.returncode, out) == (6, ""), said
    assert "box" in said
    assert "Traceback" not in said
    never_ran(desk)


def test_f88_no_agent_reaches_the_session_whatever_the_config_says(
    new_desk: MakeDesk, make_sshd: MakeSshd, tmp_path: Path
) -> None:
    sshd = make_sshd()
    seen = sshd.home / "seen"
    (sshd.home / ".bashrc").write_text(f"env >{seen}\n")  # bash reads it for sshd, too
    config = sshd.write_client_config(tmp_path / "client", extra="    ForwardAgent yes\n")
    with running_agent(sshd.base / "agent") as socket:
        argv = ["ssh", "-F", str(config), "-o", "BatchMode=yes", sshd.alias, "true"]
        subprocess.run(argv, check=True, timeout=60, env={**os.environ, "SSH_AUTH_SOCK": socket})
        assert "SSH_AUTH_SOCK=" in seen.read_text(), "ssh by hand would have forwarded it"
        seen.unlink()
        desk = new_desk({"env": "env"}, host=box(sshd), ssh_config=config)
        desk.env["SSH_AUTH_SOCK"] = socket
        desk.submit("env")
        desk.orch("wait")
        assert "SSH_AUTH_SOCK" not in desk.orch("tail").stdout
    session = seen.read_text()
    assert f"HOME={sshd.home}" in session
    assert "SSH_AUTH_SOCK=" not in session


@contextmanager
def running_agent(path: Path) -> Iterator[str]:
    """The socket of an ssh-agent without keys."""
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL) as agent:
        try:
            until(path.exists)
            yield str(path)
        finally:
            agent.terminate()


@pytest.mark.parametrize("trusted", [True, False])
def test_attach_trusts_the_keys_that_the_other_commands_trust(
    trusted: bool, new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    remote_command = "    RemoteCommand echo not ours\n"
    config = sshd.write_client_config(tmp_path / "client", trusted=trusted, extra=remote_command)
    desk = new_desk({"short": "echo visible"}, host=box(sshd), ssh_config=config)
    state = tmp_path / "a state"
    desk.env["ORCH_HOME"] = str(state)
    if trusted:
        state.mkdir()
        (state / "known_hosts").write_text("# nothing pinned\n")
    else:
        desk.orch("host", "trust", "-y", "box")
    desk.orch("submit", "short", "-f")
    assert desk.orch("attach").stdout == "visible\n"
