"""The private test server: real logins, private home, cut and rotate, and nothing left behind."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import processes
from tests.helpers.proxy import Proxy
from tests.helpers.sshd import PrivateSshd

pytestmark = pytest.mark.ssh

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs an account of its own: root")


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateSshd]:
    with PrivateSshd() as running:
        yield running


def test_a_session_has_a_private_home_and_a_python(server: PrivateSshd) -> None:
    done = server.run("echo $HOME; python3 -c 'import sys; print(sys.version_info >= (3, 8))'")
    assert done.stdout.split() == [str(server.home), "True"], done.stderr
    assert server.root_dir.is_relative_to(server.home)


@needs_root
def test_a_session_starts_in_the_private_home_and_is_not_root(server: PrivateSshd) -> None:
    done = server.run("pwd; id -u; touch made-here")
    assert done.stdout.split() == [str(server.home), str(server.uid)]
    assert server.uid != 0
    assert (server.home / "made-here").stat().st_uid == server.uid


@needs_root
def test_a_root_session_has_a_private_home_too() -> None:
    with PrivateSshd(as_root=True) as server:
        done = server.run("pwd; id -u; echo ~")
        assert done.stdout.split() == [str(server.home), "0", str(server.home)], done.stderr


@needs_root
@pytest.mark.shells
@pytest.mark.parametrize(
    ("shell", "ask"),
    [("/usr/bin/fish", "echo (status fish-path)"), ("/usr/bin/tcsh", "echo $tcsh")],
)
def test_the_login_shell_can_be_chosen(shell: str, ask: str) -> None:
    with PrivateSshd(shell=shell) as server:
        done = server.run(ask)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()


def test_stdin_reaches_the_command(server: PrivateSshd) -> None:
    assert server.run("wc -c", input="x" * 1000).stdout.strip() == "1000"


def test_an_untrusted_host_key_is_refused(server: PrivateSshd, tmp_path: Path) -> None:
    config = server.write_client_config(tmp_path, trusted=False)
    done = server.run("true", config=config)
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_a_login_through_a_proxy_is_trusted_by_its_port(
    server: PrivateSshd, tmp_path: Path
) -> None:
    with Proxy(("127.0.0.1", server.port), fragment=True, seed=3) as proxy:
        config = server.write_client_config(tmp_path, port=proxy.port)
        done = server.run("echo through", config=config)
        assert done.stdout == "through\n", done.stderr
        assert proxy.connections == 1


def test_config_overrides_and_session_variables_hold() -> None:
    with PrivateSshd(
        config={"ForceCommand": 'echo "forced:$WHO"'}, set_env={"WHO": "me"}
    ) as server:
        assert server.run("anything").stdout == "forced:me\n"
        server.reconfigure(ForceCommand="echo other")
        assert server.run("anything").stdout == "other\n"


def test_a_rotated_host_key_is_seen_as_changed() -> None:
    with PrivateSshd(host_keys=["ed25519", "ecdsa"]) as server:
        before = server.host_key_line()
        server.rotate_host_keys()
        assert server.host_key_line() != before
        done = server.run("true")
        assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in done.stderr
        server.write_client_config(server.base)
        assert server.run("true").returncode == 0


def test_an_open_session_survives_a_restart_and_dies_by_its_pid(server: PrivateSshd) -> None:
    argv = ["ssh", "-F", str(server.client_config), server.alias, "echo up; cat"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as open_session:
        assert open_session.stdin
        assert open_session.stdout
        assert open_session.stdout.readline() == b"up\n"
        old_listener, port = server.listener_pid, server.port
        server.restart()
        assert (server.port, server.listener_pid != old_listener) == (port, True)
        open_session.stdin.write(b"still here\n")
        open_session.stdin.flush()
        assert open_session.stdout.readline() == b"still here\n"
        assert server.session_pids()
        server.kill_sessions()
        assert open_session.wait(timeout=60) == 255
    assert server.session_pids() == []
    assert "Accepted publickey" in server.log()


def test_stop_ends_detached_programs_and_removes_account_and_files() -> None:
    server = PrivateSshd().start()
    user, base = server.user, server.base
    server.run("setsid sleep 300 </dev/null >/dev/null 2>&1 & echo $! > pid; mv pid ~/pid")
    pid = _pid_in(server.home / "pid")
    assert processes.is_alive(pid)
    server.stop()
    assert not processes.is_alive(pid)
    assert not base.exists()
    if os.geteuid() == 0:
        with pytest.raises(KeyError):
            pwd.getpwnam(user)


def _pid_in(path: Path) -> int:
    until = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < until, f"{path} was not written"
        time.sleep(0.01)
    return int(path.read_text())


@needs_root
def test_a_server_that_cannot_start_leaves_nothing() -> None:
    server = PrivateSshd(config={"NoSuchKeyword": "yes"})
    with pytest.raises(RuntimeError, match="Bad configuration option: NoSuchKeyword"):
        server.start()
    with pytest.raises(KeyError):
        pwd.getpwnam(f"orch-test-{server.token}")
    assert not list(Path(tempfile.gettempdir()).glob(f"orch-sshd-{server.token}*"))
