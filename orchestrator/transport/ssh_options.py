"""The user's ssh config, and what is wrong with it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.domain import Host
from orchestrator.errors import UsageError
from orchestrator.transport.ssh_libraries import paramiko
from orchestrator.transport.sshargs import address


def parsed(path: Path) -> paramiko.SSHConfig:
    """What the file says; nothing where there is none. UsageError for one that is not lawful."""
    if not path.exists():
        return paramiko.SSHConfig()
    with reading(path):
        return paramiko.SSHConfig.from_path(str(path))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """UsageError when what is read within is not lawful."""
    try:
        yield
    except OSError as exc:
        raise UsageError(
            f"the ssh config {path} cannot be read: {exc.strerror or exc}",
            hint="it must be a file; ORCH_SSH_CONFIG names another than ~/.ssh/config",
        ) from None
    except (paramiko.ConfigParseError, ValueError) as exc:
        raise UsageError(
            f"the ssh config {path} is not lawful: {exc}",
            hint="mend it there; `ssh -G HOST` tells what ssh makes of it",
        ) from None


def port_of(host: Host, options: Mapping[str, Any], path: Path) -> int:
    """The port that the host's address names, or its entry in the ssh config; UsageError for one
    that is no port, which is no matter of other hosts."""
    named = address(host)
    given = str(named.port or options.get("port", 22))
    if given.isdecimal() and 0 < int(given) < 65536:
        return int(given)
    raise UsageError(
        f"{host.name}: its Port in {path} is `{given}`, which is no number from 1 to 65535",
        hint=f"mend `Port` where that file says it for `{named.name}`",
    )
