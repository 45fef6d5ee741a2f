"""The transport over the user's own OpenSSH client: its master connections and their sockets."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.transport import openssh
from orchestrator.transport.base import Agent
from tests.contract.conftest import MakeDesk, box
from tests.contract.desk import Desk
from tests.helpers import processes
from tests.helpers.sshd import PrivateSshd

pytestmark = pytest.mark.ssh


@pytest.fixture
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runtime folder of the user: short enough for sockets."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture
def muxed(new_desk: MakeDesk, sshd: PrivateSshd, runtime: Path) -> Desk:
    host = box(sshd, transport="openssh")
    desk = new_desk(host=host, ssh_config=sshd.client_config)
    desk.env["XDG_RUNTIME_DIR"] = str(runtime)
    return desk


def masters(runtime: Path) -> list[Path]:
    return [path for path in (runtime / "orch-ssh").iterdir() if path.is_socket()]


def master_pids(desk: Desk) -> list[int]:
    return [
        pid
        for pid in processes.with_environment("HOME", str(desk.home))
        if processes.name_of(pid) == "ssh"
    ]


def test_f10_many_commands_share_one_login(muxed: Desk, sshd: PrivateSshd, runtime: Path) -> None:
    before = sshd.log().count("Accepted publickey")
    for _ in range(3):
        muxed.orch("submit", "train", "-f")
    assert sshd.log().count("Accepted publickey") == before + 1
    (path,) = masters(runtime)
    assert (runtime / "orch-ssh").stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o077 == 0
    assert len(str(path)) + 17 < 108


UNFIT = [
    "StdinNull yes", "ForkAfterAuthentication yes", "SessionType none", "SessionType subsystem",
    "RemoteCommand echo hi", "RequestTTY force", "EscapeChar x", "VisualHostKey yes",
    "StreamLocalBindUnlink yes", "PermitLocalCommand yes\n    LocalCommand echo hi",
    "LocalForward 1 localhost:1", "Tunnel yes", "LogLevel DEBUG3", "ControlMaster auto",
]  # fmt: skip


@pytest.mark.parametrize("line", UNFIT)
def test_what_is_for_sessions_of_people_does_not_reach_ours(
    line: str, new_desk: MakeDesk, sshd: PrivateSshd, runtime: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(f"{sshd.client_config.read_text()}    {line}\n")
    desk = new_desk(host=box(sshd, transport="openssh"), ssh_config=config)
    desk.env["XDG_RUNTIME_DIR"] = str(runtime)
    for _ in ("makes a master", "finds it"):
        assert "ok  connection" in desk.orch("doctor", "box").stdout


def test_f11_a_master_that_was_killed_or_frozen_is_replaced(
    muxed: Desk, sshd: PrivateSshd, runtime: Path
) -> None:
    muxed.orch("doctor", "box")
    (killed,) = master_pids(muxed)
    processes.end([killed])
    (path,) = masters(runtime)
    muxed.orch("doctor", "box")
    assert masters(runtime) == [path]
    (frozen,) = master_pids(muxed)
    os.kill(frozen, signal.SIGSTOP)
    began = time.monotonic()
    muxed.orch("doctor", "box")
    assert time.monotonic() - began < 40
    assert len({*master_pids(muxed)} - {frozen}) == 1
    processes.end([frozen])


def test_f11_what_is_in_the_way_and_is_no_socket_of_ours_is_left_alone(
    muxed: Desk, runtime: Path
) -> None:
    muxed.orch("doctor", "box")
    (path,) = masters(runtime)
    processes.end(master_pids(muxed))
    path.unlink()
    path.write_text("precious")
    done = muxed.orch("doctor", "box", code=6)
    assert "in the way" in done.stdout
    assert path.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder of another user needs root")
def test_f11_a_folder_another_user_prepared_is_not_used(muxed: Desk, runtime: Path) -> None:
    (runtime / "orch-ssh").mkdir(mode=0o700)
    os.chown(runtime / "orch-ssh", 12345, 12345)
    muxed.orch("doctor", "box")
    assert list((runtime / "orch-ssh").iterdir()) == []


def test_f11_a_home_of_any_length_makes_a_short_socket(
    new_desk: MakeDesk, sshd: PrivateSshd, tmp_path: Path
) -> None:
    desk = new_desk(host=box(sshd, transport="openssh"), ssh_config=sshd.client_config)
    desk.env["XDG_RUNTIME_DIR"] = str(tmp_path / ("long" * 40))
    desk.orch("doctor", "box")


def test_a_master_the_user_opened_is_used_and_left_open(
    new_desk: MakeDesk, sshd: PrivateSshd, runtime: Path, tmp_path: Path
) -> None:
    """For logins that ask for a second factor: they are made once, by hand."""
    mine = runtime / "mine"
    config = sshd.write_client_config(tmp_path / "client", extra=f"    ControlPath {mine}\n")
    subprocess.run(["ssh", "-F", str(config), "-fNM", sshd.alias], check=True, timeout=30)
    desk = new_desk(host=box(sshd, transport="openssh"), ssh_config=config)
    try:
        text = config.read_text().replace(str(sshd.identity), "/nonexistent")
        config.write_text(text)  # no login is possible any more
        desk.orch("submit", "train", "-f")
        assert mine.is_socket()
    finally:
        subprocess.run(["ssh", "-F", str(config), "-O", "exit", sshd.alias], check=True, timeout=30)
    assert "login refused" in desk.orch("doctor", "box", code=8).stdout


def test_nothing_heavy_is_loaded_for_it(muxed: Desk) -> None:
    told = muxed.orch("doctor", "box", PYTHONPROFILEIMPORTTIME="1").stderr
    assert "orchestrator.transport.openssh" in told
    assert "paramiko" not in told


def test_without_an_ssh_client_that_is_said(muxed: Desk, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = muxed.orch("submit", "train", code=2, PATH=str(tmp_path / "bin"))
    assert "OpenSSH client" in done.stderr


# --- what ssh says --------------------------------------------------------------------------------

SAYINGS = [
    ("ssh: Could not resolve hostname nowhere: Name or service not known",
     errors.ConnectFailed, "does not resolve"),
    ("ssh: connect to host h port 22: Connection timed out", errors.ConnectFailed, "in time"),
    ("ssh: connect to host h port 22: Connection refused", errors.ConnectFailed, "refused"),
    ("Connection closed by UNKNOWN port 65535", errors.ConnectFailed, "closed"),
    ("kex_exchange_identification: read: Connection reset by peer", errors.ConnectFailed, "reset"),
    ("me@h: Permission denied (publickey,keyboard-interactive).", errors.AuthFailed, "refused"),
    ("Received disconnect from 1.2.3.4 port 22:2: Too many authentication failures",
     errors.AuthFailed, "Too many"),
    ("WARNING: UNPROTECTED PRIVATE KEY FILE!\nme@h: Permission denied", errors.AuthFailed,
     "denied"),
    ("No ED25519 host key is known for h and you have requested strict checking.\n"
     "Host key verification failed.", errors.HostKeyUnknown, "not known"),
    ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nSHA256:abc\n"
     "Host key verification failed.", errors.HostKeyChanged, "SHA256:abc"),
    ("/home/me/.ssh/config: line 3: Bad configuration option: frob", errors.UsageError, "frob"),
    ("Bad owner or permissions on /home/me/.ssh/config", errors.UsageError, "permissions"),
    ("", errors.ConnectFailed, "without a word"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "kind", "word"), SAYINGS)
def test_f90_whatever_ssh_says_is_one_of_our_errors_with_a_next_step(
    said: str, kind: type[errors.OrchError], word: str
) -> None:
    found = openssh.translated(Host("h", transport="openssh"), said)
    assert type(found) is kind
    assert word in found.message
    assert found.hint


LAST_WORDS = [
    ("me@h: Permission denied (publickey,password).", errors.AuthFailed),
    ("debug\nHost key verification failed.\r\n", errors.HostKeyUnknown),
    ("Received disconnect from ::1 port 22:2: Too many authentication failures\r\n"
     "Disconnected from ::1 port 22", errors.AuthFailed),
    ("kex_exchange_identification: read: Connection reset by peer", errors.ConnectFailed),
    ("bash: /etc/profile.d/x.sh: Permission denied", None),
    ("me@h: Permission denied (publickey).\nclient_loop: send disconnect", None),
    ("me@backup: Permission denied (publickey).\nwelcome, no quota is near", None),
    ("Bad owner or permissions on /home/me/x", None),
    ("", None),
]  # fmt: skip


@pytest.mark.parametrize(("said", "kind"), LAST_WORDS)
def test_f09_what_a_login_said_before_its_link_ended_is_no_refusal_of_it(
    said: str, kind: type[errors.OrchError] | None
) -> None:
    with tempfile.TemporaryFile() as stderr:
        argv = ["/bin/sh", "-c", 'printf %s "$0" >&2; exit 255', said]
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
        )
        pipe = openssh._Pipe(Host("h", transport="openssh"), process, stderr)
        try:
            if kind is None:
                assert pipe.closing_words() == (None, said)
            else:
                with pytest.raises(errors.OrchError) as caught:
                    pipe.closing_words()
                assert type(caught.value) is kind
        finally:
            pipe.close()


def test_f05_a_frozen_host_is_a_timeout(
    make_sshd: Callable[..., PrivateSshd], runtime: Path, tmp_path: Path
) -> None:
    server = make_sshd()
    host = Host(server.alias, root=str(server.root_dir), transport="openssh")
    env = {"XDG_RUNTIME_DIR": str(runtime), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    opened = openssh.OpenSshTransport.open(host, server.client_config, tmp_path / "none", env)
    with Agent(host, opened) as agent:
        agent.call("status", {"run_ids": []})
        frozen = server.session_pids()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(errors.CallTimeout):
            agent.call("status", {"run_ids": []}, deadline=1.0)
        assert time.monotonic() - began < 30
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
    processes.end(processes.with_environment("HOME", str(tmp_path)))
