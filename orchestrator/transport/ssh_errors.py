"""What fabric and paramiko raise, in words of ours: what failed, where, and what to do next."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.transport.pipe import CONNECT_TIMEOUT
from orchestrator.transport.ssh_libraries import fabric, paramiko


@contextlib.contextmanager
def translated(host: Host, connection: fabric.Connection) -> Iterator[None]:
    """Every exception of the libraries below becomes one of ours."""
    where = f"{connection.user}@{connection.host}:{connection.port}"
    try:
        yield
    except errors.OrchError:
        raise
    except paramiko.BadHostKeyException as exc:
        raise errors.HostKeyChanged(
            f"{host.name} ({where}): the host key CHANGED: known is "
            f"{fingerprint(exc.expected_key)}, offered is {fingerprint(exc.key)}; nothing was sent",
            hint="if the host was reinstalled, remove the old key from known_hosts "
            f"(`ssh-keygen -R`) and run `orch host trust {host.name}`",
        ) from None
    except paramiko.PasswordRequiredException as exc:
        raise errors.AuthFailed(
            f"{host.name} ({where}): a private key asks for a passphrase ({exc})",
            hint="add it to ssh-agent; orch never prompts",
        ) from None
    except paramiko.AuthenticationException as exc:
        raise errors.AuthFailed(
            f"{host.name} ({where}): login refused: {exc}",
            hint="check User and IdentityFile for this host in the ssh config",
        ) from None
    except (paramiko.SSHException, OSError, EOFError, ValueError) as exc:
        if "No authentication methods" in str(exc):
            raise _no_key(host, where, connection) from None
        raise _connect_error(host, where, exc, _first_hop(connection)) from None


def _first_hop(connection: fabric.Connection) -> str:
    """The host that is connected to from here, the only one whose name is looked up here."""
    while isinstance(connection.gateway, fabric.Connection):
        connection = connection.gateway
    return str(connection.host)


def _no_key(host: Host, where: str, connection: fabric.Connection) -> errors.AuthFailed:
    named = [
        os.path.expanduser(str(item)) for item in connection.ssh_config.get("identityfile", ())
    ]
    absent = [name for name in named if not os.path.exists(name)]
    what = f"; {', '.join(absent)} does not exist" if absent else ""
    return errors.AuthFailed(
        f"{host.name} ({where}): there is no key to log in with{what}",
        hint="name one by IdentityFile in the ssh config, or add one to ssh-agent",
    )


def _connect_error(host: Host, where: str, exc: Exception, first: str) -> errors.OrchError:
    text = str(exc) or type(exc).__name__
    hint = f"runs that go on there go on; `orch doctor {host.name}` tells when it answers again"
    if "not found in known_hosts" in text:
        return errors.HostKeyUnknown(
            f"{host.name} ({where}): its host key is not known; nothing was sent",
            hint=f"`orch host trust {host.name}` shows the fingerprint and pins it",
        )
    if isinstance(exc, paramiko.ChannelException):
        return errors.HostFull(
            f"{host.name} ({where}): the host refused a session ({text})",
            hint="its MaxSessions may be reached",
        )
    if isinstance(exc, socket.gaierror):
        told = f"the name {first} does not resolve"
        return errors.ConnectFailed(f"{host.name} ({where}): {told}", hint=hint)
    if isinstance(exc, TimeoutError):
        return errors.ConnectFailed(f"{host.name} ({where}): no connection in time", hint=hint)
    if _was_mute(exc):
        told = f"it took the connection and did not answer within {CONNECT_TIMEOUT:g} s"
        return errors.ConnectFailed(f"{host.name} ({where}): {told}", hint=hint)
    if "protocol banner" in text:
        return errors.HostFull(
            f"{host.name} ({where}): it hung up before it said that it speaks SSH",
            hint="many logins at once may exceed its MaxStartups; try again",
        )
    return errors.ConnectFailed(f"{host.name} ({where}): cannot connect: {text}", hint=hint)


def _was_mute(exc: Exception) -> bool:
    """Whether a deadline ended the handshake. Two run out at once, and paramiko hides either: in
    an error about the banner, or by a login on a connection that is not made."""
    return isinstance(exc.__context__, TimeoutError) or str(exc) == "No existing session"


def fingerprint(key: paramiko.PKey) -> str:
    """As `ssh-keygen -l` shows it: type and SHA256 in base64 without padding."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode("ascii")
    return f"{key.get_name()} SHA256:{digest.rstrip('=')}"
