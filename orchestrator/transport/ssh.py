"""SSH through fabric and paramiko, which this module and the `ssh_` ones beside it alone know.

Host keys are rejected unless known_hosts or `orch host trust` vouches for them; no agent, X11 or
port is ever forwarded; nobody is prompted. Every exception of paramiko becomes one of ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.retry import when_let_in
from orchestrator.transport.pipe import CONNECT_TIMEOUT, SEND_DEADLINE
from orchestrator.transport.ssh_errors import fingerprint, translated
from orchestrator.transport.ssh_keys import key_in, known_as, known_hosts_files
from orchestrator.transport.ssh_libraries import fabric, paramiko
from orchestrator.transport.ssh_options import parsed, port_of, reading
from orchestrator.transport.sshargs import address

AUTH_TIMEOUT = 30.0
SESSION_WITHIN = 3.0
# A wide window and large packets: with paramiko's defaults a pull is bound by its packet rate.
WINDOW = 16 * 1024 * 1024
PACKET = 256 * 1024


# Linux; elsewhere the kernel decides. The first reads are the handshake's.
QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
HANDSHAKE_READS = 200


class _PromptSocket(socket.socket):
    """Sends and acknowledges at once: the two ends of a handshake otherwise wait for one another
    (Nagle's algorithm here and in sshd, delayed acknowledgement: 40 ms, or a round trip, each)."""

    reads_left = 0

    @classmethod
    def connected(cls, address: tuple[str, int], timeout: float) -> _PromptSocket:
        plain = socket.create_connection(address, timeout)
        made = cls(plain.family, plain.type, plain.proto, plain.detach())
        made.settimeout(timeout)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.reads_left = HANDSHAKE_READS if QUICKACK is not None else 0
        return made

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        data = super().recv(bufsize, flags)
        if self.reads_left > 0 and QUICKACK is not None:
            self.reads_left -= 1
            self.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        return data


def _transport(*args: Any, **kwargs: Any) -> paramiko.Transport:
    """AES-GCM first: its checksum is made with the cipher, in C, and not packet by packet here."""
    made = paramiko.Transport(*args, **kwargs)
    offered = made.get_security_options()
    offered.ciphers = sorted(offered.ciphers, key=lambda name: "gcm" not in name)
    return made


class SshTransport:
    """One connection to one host; opened by `open`, closed by `close`."""

    def __init__(self, host: Host, connection: fabric.Connection) -> None:
        self._host = host
        self._connection = connection

    @classmethod
    def open(cls, host: Host, ssh_config: Path, pinned: Path, home: Path) -> SshTransport:
        """Connected and authenticated, or a TransportError or TrustError says why not."""
        connection = _connection(host, ssh_config, pinned, home)
        sock: socket.socket | None = None
        try:
            with translated(host, connection):
                if not connection.gateway:
                    address = (connection.host, connection.port)
                    sock = _PromptSocket.connected(address, CONNECT_TIMEOUT)
                    connection.connect_kwargs["sock"] = sock
                connection.connect_kwargs["transport_factory"] = _transport
                connection.open()
        except BaseException:
            with contextlib.suppress(Exception):
                connection.close()
            if sock is not None:
                sock.close()
            raise
        raw = connection.transport
        raw.set_keepalive(15)
        return cls(host, connection)

    def run(self, command: str) -> SshPipe:
        # A session that we have just closed may count on the host for a moment longer.
        channel = when_let_in(self._session, SESSION_WITHIN)
        with translated(self._host, self._connection):
            channel.settimeout(CONNECT_TIMEOUT)
            channel.exec_command(command)
        return SshPipe(self._host, channel)

    def _session(self) -> paramiko.Channel:
        with translated(self._host, self._connection):
            channel: paramiko.Channel = self._connection.transport.open_session(
                window_size=WINDOW, max_packet_size=PACKET, timeout=CONNECT_TIMEOUT
            )
            return channel

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._connection.close()


class SshPipe:
    def __init__(self, host: Host, channel: paramiko.Channel) -> None:
        self._host = host
        self._channel = channel

    def send(self, data: bytes) -> bool:
        self._channel.settimeout(SEND_DEADLINE)
        try:
            self._channel.sendall(data)
        except TimeoutError:
            raise errors.CallTimeout(
                f"{self._host.name}: the host took no data for {SEND_DEADLINE:g} s"
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
            raise errors.CallTimeout(f"{self._host.name}: no answer within {timeout:g} s") from None
        except (OSError, EOFError, paramiko.SSHException):
            return b""

    def closing_words(self) -> tuple[int | None, str]:
        self._channel.settimeout(5.0)
        words = b""
        with contextlib.suppress(Exception):
            words = self._channel.recv_stderr(4096)
        code: int | None = None
        if self._channel.status_event.wait(5.0) and self._channel.exit_status >= 0:
            code = self._channel.exit_status
        return code, words.decode("utf-8", "replace")

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._channel.close()


def _connection(host: Host, ssh_config: Path, pinned: Path, home: Path) -> fabric.Connection:
    where = address(host)
    config = fabric.Config(ssh_config=parsed(ssh_config))
    with reading(ssh_config):
        options = config.base_ssh_config.lookup(where.name)
        connection = fabric.Connection(
            where.name,
            user=where.user,
            port=port_of(host, options, ssh_config),
            config=config,
            connect_timeout=CONNECT_TIMEOUT,
            forward_agent=False,
        )
    _reject_unknown_keys(connection, pinned, home)
    _identities(connection)
    return connection


def _reject_unknown_keys(connection: fabric.Connection, pinned: Path, home: Path) -> None:
    """fabric accepts any host key by default; this refuses what nobody vouched for."""
    client = connection.client
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    for path in known_hosts_files(connection.ssh_config, home):
        with contextlib.suppress(OSError, paramiko.SSHException):
            client.load_system_host_keys(str(path))
    if pinned.exists():
        with contextlib.suppress(paramiko.SSHException):
            client.load_host_keys(str(pinned))


def _identities(connection: fabric.Connection) -> None:
    """IdentitiesOnly, and no look round for keys when the config names one: six wrong keys from an
    agent would use up sshd's MaxAuthTries."""
    options = connection.ssh_config
    if str(options.get("identitiesonly", "no")).lower() == "yes":
        connection.connect_kwargs["allow_agent"] = False
    if options.get("identityfile"):
        connection.connect_kwargs["look_for_keys"] = False
        named = [os.path.expanduser(str(item)) for item in options["identityfile"]]
        existing = [name for name in named if os.path.exists(name)]
        # A name that is not there would end the login with an error about a file.
        connection.connect_kwargs["key_filename"] = existing
    connection.connect_kwargs.setdefault("auth_timeout", AUTH_TIMEOUT)
    connection.connect_kwargs.setdefault("banner_timeout", CONNECT_TIMEOUT)


class Offered(NamedTuple):
    """The key a host offers: the host's name and its line in known_hosts files; `known_in` is the
    first of the user's own such files that has this key."""

    known_as: str
    fingerprint: str
    line: str
    known_in: Path | None


def offered_key(host: Host, ssh_config: Path, pinned: Path, home: Path) -> Offered:
    """The key the host offers now.

    Only the key exchange takes place: no login is tried, nothing is sent. HostKeyChanged when the
    user's own known_hosts name another key: that word goes before what is pinned.
    """
    connection = _connection(host, ssh_config, pinned, home)
    with translated(host, connection):
        gateway = connection.gateway
        sock: Any = connection.open_gateway() if gateway else None
        if sock is None:
            sock = socket.create_connection((connection.host, connection.port), CONNECT_TIMEOUT)
        transport = paramiko.Transport(sock)
        try:
            transport.start_client(timeout=CONNECT_TIMEOUT)
            key = transport.get_remote_server_key()
        finally:
            transport.close()
    name = known_as(connection.host, connection.port)
    known_in = None
    for path in known_hosts_files(connection.ssh_config, home):
        known = key_in(path, name, key.get_name())
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
