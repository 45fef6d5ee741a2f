"""SSH through fabric and paramiko, which this module and the `ssh_` ones beside it alone know.

Host keys are rejected unless known_hosts or `orch host trust` vouches for them; no agent, X11 or
port is ever forwarded; nobody is prompted. Every exception of paramiko becomes one of ours.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.retry import when_let_in
from orchestrator.transport.pipe import CONNECT_TIMEOUT, SEND_DEADLINE
from orchestrator.transport.ssh_errors import fingerprint, revoked, translated
from orchestrator.transport.ssh_keys import Vouched
from orchestrator.transport.ssh_libraries import paramiko
from orchestrator.transport.ssh_options import Destination, destination
from orchestrator.transport.ssh_route import Route
from orchestrator.transport.sshconfig import SshConfig

SESSION_WITHIN = 3.0
# A wide window and large packets: with paramiko's defaults a pull is bound by its packet rate.
WINDOW = 16 * 1024 * 1024
PACKET = 256 * 1024


class SshTransport:
    """One connection to one host; opened by `open`, closed by `close`."""

    def __init__(self, there: Destination, transport: paramiko.Transport, route: Route) -> None:
        self._there, self._transport, self._route = there, transport, route

    @classmethod
    def open(cls, host: Host, ssh_config: Path, pinned: Path, home: Path) -> SshTransport:
        """Connected and authenticated, or a TransportError or TrustError says why not."""
        config = SshConfig(ssh_config, home)
        there, route = destination(host, config), Route(config, pinned)
        try:
            transport = route.login(there).transport
        except BaseException:
            route.close()
            raise
        transport.set_keepalive(15)
        return cls(there, transport, route)

    def run(self, command: str) -> SshPipe:
        # A session that we have just closed may count on the host for a moment longer.
        channel = when_let_in(self._session, SESSION_WITHIN)
        with translated(self._there):
            channel.settimeout(CONNECT_TIMEOUT)
            channel.exec_command(command)
        return SshPipe(self._there.name, channel)

    def _session(self) -> paramiko.Channel:
        with translated(self._there):
            channel: paramiko.Channel = self._transport.open_session(
                window_size=WINDOW, max_packet_size=PACKET, timeout=CONNECT_TIMEOUT
            )
            return channel

    def close(self) -> None:
        self._route.close()


class SshPipe:
    def __init__(self, host: str, channel: paramiko.Channel) -> None:
        self._host = host
        self._channel = channel

    def send(self, data: bytes) -> bool:
        self._channel.settimeout(SEND_DEADLINE)
        try:
            self._channel.sendall(data)
        except TimeoutError:
            raise errors.CallTimeout(
                f"{self._host}: the host took no data for {SEND_DEADLINE:g} s"
            ) from None
        except OSError:
            return False
        return True

    def recv(self, count: int, timeout: float) -> bytes:
        self._channel.settimeout(timeout)
        try:
            # All there is: taking less makes paramiko copy what stays, over and over.
            return self._channel.recv(max(count, WINDOW))
        except TimeoutError:
            raise errors.CallTimeout(f"{self._host}: no answer within {timeout:g} s") from None
        except (OSError, EOFError, paramiko.SSHException):
            return b""

    def closing_words(self) -> tuple[int | None, str]:
        self._channel.settimeout(5.0)
        words = b""
        with contextlib.suppress(Exception):
            self._channel.shutdown_write()
        with contextlib.suppress(Exception):
            words = self._channel.recv_stderr(4096)
        code: int | None = None
        if self._channel.status_event.wait(5.0) and self._channel.exit_status >= 0:
            code = self._channel.exit_status
        return code, words.decode("utf-8", "replace")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._channel.close()


class Offered(NamedTuple):
    """The key a host offers: the host's name and its line in known_hosts files; `known_in` is the
    first of the user's own such files that has this key."""

    known_as: str
    fingerprint: str
    line: str
    known_in: Path | None


def offered_key(host: Host, ssh_config: Path, pinned: Path, home: Path) -> Offered:
    """The key the host offers now.

    Only the key exchange takes place: no login is tried, nothing is sent. TrustError when the
    user's own known_hosts revoke it or name another key: that word goes before what is pinned.
    """
    config = SshConfig(ssh_config, home)
    there, route = destination(host, config), Route(config, pinned)
    with contextlib.closing(route):
        sock = route.socket(there)
        with translated(there), contextlib.closing(paramiko.Transport(sock)) as transport:
            transport.start_client(timeout=CONNECT_TIMEOUT)
            key = transport.get_remote_server_key()
    name, vouched = there.known_as, Vouched(pinned)
    by = vouched.revoked_by(there, key)
    if by is not None:
        raise revoked(there, key, by)
    known_in = None
    for path in there.known_hosts:
        known = vouched.keys_in(path, name).get(key.get_name())
        if known == key:
            known_in = known_in or path
        elif known is not None:
            raise errors.HostKeyChanged(
                f"{host.name} ({name}): {path} names {fingerprint(known)}, the host offers "
                f"{fingerprint(key)}; nothing was pinned",
                hint=f"if the host was reinstalled: `ssh-keygen -R '{name}' -f {path}`, "
                "then this command again",
            )
    line = f"{name} {key.get_name()} {key.get_base64()}\n"
    return Offered(name, fingerprint(key), line, known_in)
