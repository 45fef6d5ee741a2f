"""What fabric and paramiko raise, in words of ours: what failed, where, and what to do next."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from orchestrator import errors
from orchestrator.transport.pipe import CONNECT_TIMEOUT
from orchestrator.transport.ssh_libraries import paramiko
from orchestrator.transport.ssh_options import Destination


@contextlib.contextmanager
def translated(there: Destination) -> Iterator[None]:
    """Every exception of the libraries below becomes one of ours."""
    place = f"{there.label} ({there.where})"
    try:
        yield
    except errors.OrchError:
        raise
    except paramiko.BadHostKeyException as exc:
        raise errors.HostKeyChanged(
            f"{place}: the host key CHANGED: known is "
            f"{fingerprint(exc.expected_key)}, offered is {fingerprint(exc.key)}; nothing was sent",
            hint="if the host was reinstalled, remove the old key from known_hosts "
            f"(`ssh-keygen -R`) and run `orch host trust {there.name}`",
        ) from None
    except paramiko.PasswordRequiredException as exc:
        raise errors.AuthFailed(
            f"{place}: a private key asks for a passphrase ({exc})",
            hint="add it to ssh-agent; orch never prompts. Where `ssh` by hand gets in without "
            f"asking, `transport: openssh` for {there.origin} in orch.yaml does too",
        ) from None
    except paramiko.AuthenticationException as exc:
        raise errors.AuthFailed(
            f"{place}: login refused: {exc}",
            hint="check User and IdentityFile for this host in the ssh config",
        ) from None
    except (paramiko.SSHException, OSError, EOFError, ValueError) as exc:
        if "No authentication methods" in str(exc):
            raise _no_key(there, place) from None
        raise _connect_error(there, place, exc) from None


def _no_key(there: Destination, place: str) -> errors.AuthFailed:
    absent = [name for name in there.identity_files or () if not os.path.exists(name)]
    what = f"; {', '.join(absent)} does not exist" if absent else ""
    return errors.AuthFailed(
        f"{place}: there is no key to log in with{what}",
        hint="name one by IdentityFile in the ssh config, or add one to ssh-agent",
    )


def _connect_error(there: Destination, place: str, exc: Exception) -> errors.OrchError:
    text = str(exc) or type(exc).__name__
    hint = f"runs that go on there go on; `orch doctor {there.origin}` tells when it answers again"
    if "not found in known_hosts" in text:
        return errors.HostKeyUnknown(
            f"{place}: its host key is not known; nothing was sent",
            hint=f"`orch host trust {there.name}` shows the fingerprint and pins it",
        )
    if isinstance(exc, paramiko.ChannelException):
        return errors.HostFull(
            f"{place}: the host refused a session ({text})",
            hint="its MaxSessions may be reached",
        )
    if isinstance(exc, paramiko.ssh_exception.IncompatiblePeer):
        return errors.HostUnfit(
            f"{place}: it takes none of the algorithms that the built-in ssh has: {text}",
            hint=f"set `transport: openssh` for {there.origin} in orch.yaml: your ssh has others",
        )
    if isinstance(exc, socket.gaierror):
        told = f"the name {there.hostname} does not resolve"
        return errors.ConnectFailed(f"{place}: {told}", hint=hint)
    if isinstance(exc, TimeoutError):
        return errors.ConnectFailed(f"{place}: no connection in time", hint=hint)
    if _was_mute(exc):
        told = f"it took the connection and did not answer within {CONNECT_TIMEOUT:g} s"
        return errors.ConnectFailed(f"{place}: {told}", hint=hint)
    if "protocol banner" in text:
        return errors.HostFull(
            f"{place}: it hung up before it said that it speaks SSH",
            hint="many logins at once may exceed its MaxStartups; try again",
        )
    return errors.ConnectFailed(f"{place}: cannot connect: {text}", hint=hint)


def revoked(there: Destination, key: paramiko.PKey, by: Path) -> errors.TrustError:
    return errors.TrustError(
        f"{there.label} ({there.where}): its host key {fingerprint(key)} is REVOKED by {by}; "
        "nothing was sent",
        hint="somebody else may have that key: ask whoever runs the host for its new one",
    )


def _was_mute(exc: Exception) -> bool:
    """Whether a deadline ended the handshake. Two run out at once, and paramiko hides either: in
    an error about the banner, or by a login on a connection that is not made."""
    return isinstance(exc.__context__, TimeoutError) or str(exc) == "No existing session"


def fingerprint(key: paramiko.PKey) -> str:
    """As `ssh-keygen -l` shows it: type and SHA256 in base64 without padding."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode("ascii")
    return f"{key.get_name()} SHA256:{digest.rstrip('=')}"
