"""The files OpenSSH reads: server configuration, client Host blocks, key pairs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

ConfigValue = str | list[str]


def server_config(
    base: Path,
    port: int,
    key_types: Iterable[str],
    *,
    env: Mapping[str, str],
    overrides: Mapping[str, ConfigValue],
) -> str:
    """The text of sshd_config for a server whose files lie in `base`.

    A keyword in `overrides` replaces the default here; a list gives it several times.
    """
    settings: dict[str, ConfigValue] = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": [str(base / f"host_{kind}") for kind in key_types],
        "AuthorizedKeysFile": str(base / "authorized_keys"),
        "PidFile": "none",
        "LogLevel": "VERBOSE",
        "UsePAM": "no",
        "StrictModes": "no",
        "PermitRootLogin": "yes",
        "AuthenticationMethods": "publickey",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PrintMotd": "no",
        "PrintLastLog": "no",
        "UseDNS": "no",
        "Subsystem": "sftp internal-sftp",
        # One line: of several SetEnv lines sshd takes the first only.
        "SetEnv": " ".join(f'"{name}={value}"' for name, value in env.items()),
    }
    settings.update(overrides)
    lines: list[str] = []
    for keyword, value in settings.items():
        values = [value] if isinstance(value, str) else value
        lines += [f"{keyword} {one}\n" for one in values]
    return "".join(lines)


def host_block(alias: str, *, port: int, user: str, identity: Path, known_hosts: Path) -> str:
    """An ssh_config Host block that trusts only `known_hosts` and offers only `identity`."""
    options = {
        "HostName": "127.0.0.1",
        "Port": str(port),
        "User": user,
        "IdentityFile": str(identity),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
    }
    return f"Host {alias}\n" + "".join(f"    {key} {value}\n" for key, value in options.items())


def make_key(path: Path, kind: str) -> None:
    """A new key pair without passphrase at `path` and `path`.pub."""
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "orch-test", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=60)
