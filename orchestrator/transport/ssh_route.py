"""The way to a host: straight, by its ProxyCommand, or by way of its jump hosts.

Each host on the way must have a key that somebody vouches for, and is logged in to as its own
entry in the ssh config says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import socket
from pathlib import Path
from typing import Any

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.transport.pipe import CONNECT_TIMEOUT
from orchestrator.transport.ssh_errors import revoked, translated
from orchestrator.transport.ssh_keys import Agent, Vouched, named_key
from orchestrator.transport.ssh_libraries import fabric, paramiko
from orchestrator.transport.ssh_options import Destination, destination
from orchestrator.transport.sshargs import address
from orchestrator.transport.sshconfig import SshConfig

AUTH_TIMEOUT = 30.0
BANNER_TIMEOUT = CONNECT_TIMEOUT
HOPS = 8
USUAL = [os.path.expanduser(f"~/.ssh/id_{kind}") for kind in ("rsa", "ecdsa", "ed25519")]

# Linux; elsewhere the kernel decides. The first reads are the handshake's.
QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
HANDSHAKE_READS = 200


class PromptSocket(socket.socket):
    """Sends and acknowledges at once: the two ends of a handshake otherwise wait for one another
    (Nagle's algorithm here and in sshd, delayed acknowledgement: 40 ms, or a round trip, each)."""

    reads_left = 0

    @classmethod
    def connected(cls, address: tuple[str, int], timeout: float) -> PromptSocket:
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


class _Refuse(paramiko.MissingHostKeyPolicy):
    """For a key that nobody vouched for; one that was revoked is not merely unknown."""

    def __init__(self, vouched: Vouched, there: Destination) -> None:
        self._vouched, self._there = vouched, there

    def missing_host_key(self, client: Any, hostname: str, key: paramiko.PKey) -> None:
        by = self._vouched.revoked_by(self._there, key)
        if by is not None:
            raise revoked(self._there, key, by)
        paramiko.RejectPolicy().missing_host_key(client, hostname, key)


class Route:
    """What is open on the way to a host; closed by `close`, the last first."""

    def __init__(self, config: SshConfig, pinned: Path) -> None:
        self._config, self._vouched = config, Vouched(pinned)
        self._opened = contextlib.ExitStack()

    def login(self, there: Destination) -> fabric.Connection:
        """Connected and authenticated, or a TransportError or TrustError says why not."""
        sock = self.socket(there)
        alias, agent = there.host_key_alias, self._agent(there)
        connection = fabric.Connection(
            # With a socket given, name and port only say under which name its key is known.
            alias or there.hostname,
            user=there.user,
            port=22 if alias else there.port,
            config=fabric.Config(ssh_config=paramiko.SSHConfig()),
            gateway=False,
            connect_timeout=CONNECT_TIMEOUT,
            forward_agent=False,
            connect_kwargs={
                "sock": sock,
                "transport_factory": _transport,
                "auth_timeout": AUTH_TIMEOUT,
                "banner_timeout": BANNER_TIMEOUT,
                **_identities(there, agent),
            },
        )
        self._opened.callback(_quietly, connection.close)
        connection.client._agent = agent  # where it has none it asks that of the environment
        self._reject_unknown_keys(connection, there)
        with translated(there):
            connection.open()
        return connection

    def socket(self, there: Destination) -> Any:
        """Connected to the host's sshd, which nobody has spoken to yet."""
        with translated(there):
            sock = self._next_to(there)
        self._opened.callback(_quietly, sock.close)
        return sock

    def _next_to(self, there: Destination) -> Any:
        if there.command:
            shell = os.environ.get("SHELL") or "/bin/sh"
            return paramiko.ProxyCommand(shlex.join([shell, "-c", f"exec {there.command}"]))
        if not there.jumps:
            return PromptSocket.connected((there.hostname, there.port), CONNECT_TIMEOUT)
        hop = self._hop(there)
        between = self.login(hop).transport
        try:
            return between.open_channel(
                "direct-tcpip", (there.hostname, there.port), ("", 0), timeout=CONNECT_TIMEOUT
            )
        except paramiko.ChannelException as exc:
            raise errors.ConnectFailed(
                f"{there.label} ({there.where}): its jump host {hop.name} cannot reach it: "
                f"{exc.text}",
                hint=f"`orch doctor {there.origin}` tells when it answers again",
            ) from None

    def _hop(self, there: Destination) -> Destination:
        if there.label.count("by way of") == HOPS:
            raise errors.UsageError(
                f"{there.label}: that is too far, or a circle of jump hosts",
                hint="mend ProxyJump in the ssh config",
            )
        *before, last = there.jumps
        hop = destination(Host(address(Host("", last)).name, last), self._config, there)
        if before:
            hop = dataclasses.replace(hop, jumps=tuple(before), command=None)
        return hop

    def _reject_unknown_keys(self, connection: fabric.Connection, there: Destination) -> None:
        """fabric accepts any host key by default; this refuses what nobody vouched for."""
        client = connection.client
        client.set_missing_host_key_policy(_Refuse(self._vouched, there))
        for kind, key in self._vouched.keys(there).items():
            client.get_host_keys().add(there.known_as, kind, key)

    def _agent(self, there: Destination) -> Agent | None:
        """None: the config wants none, or none answers."""
        if there.agent is None:
            return None
        with contextlib.suppress(OSError, paramiko.SSHException):
            agent = Agent(there.agent)
            self._opened.callback(_quietly, agent.close)
            return agent
        return None

    def close(self) -> None:
        self._opened.close()


def _identities(there: Destination, agent: Agent | None) -> dict[str, Any]:
    """No look round for keys when the config names one: six wrong keys would use up sshd's
    MaxAuthTries. A file that is not there would end the login with an error about it."""
    named = there.identity_files
    existing = [name for name in named or () if os.path.exists(name)]
    found: dict[str, Any] = {"look_for_keys": named is None, "key_filename": existing}
    if agent is not None and there.only_named:
        found["pkey"] = named_key(agent, USUAL if named is None else named)
    return {**found, "allow_agent": agent is not None and not there.only_named}


def _quietly(close: Any) -> None:
    with contextlib.suppress(Exception):
        close()
