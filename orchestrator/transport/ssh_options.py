"""Where a host is and how it is entered, by the user's ssh config."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.domain import Host
from orchestrator.errors import UsageError
from orchestrator.transport.sshargs import address
from orchestrator.transport.sshconfig import Found, Line, SshConfig, in_home, local_tokens

KNOWN_HOSTS = {
    "userknownhostsfile": ("~/.ssh/known_hosts", "~/.ssh/known_hosts2"),
    "globalknownhostsfile": ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"),
}
# To pass over one of these would trust or reach something else than ssh does.
NOT_FOLLOWED = ("revokedhostkeys", "proxyusefdpass")
JUMP = re.compile(r"(?:[^@\s]+@)?(?:\[[^]\s]+\]|[^:\s]+)(?::\d+)?")


@dataclass(frozen=True, slots=True)
class Destination:
    """One host, or one on the way to it."""

    label: str  # in messages
    name: str  # in advice about this host
    origin: str  # the host that it is, or is on the way to
    hostname: str
    port: int
    user: str
    identity_files: tuple[str, ...] | None  # None: none is named, the usual ones are looked for
    agent: str | None  # the socket of the ssh-agent whose keys are offered; None: no agent's
    only_named: bool  # of those that it has none but the ones that identity_files name
    host_key_alias: str | None
    known_hosts: tuple[Path, ...]
    jumps: tuple[str, ...]  # the last is the one next to the host
    command: str | None  # the ProxyCommand

    @property
    def where(self) -> str:
        return f"{self.user}@{self.hostname}:{self.port}"

    @property
    def known_as(self) -> str:
        """The host's name in known_hosts files."""
        if self.host_key_alias:
            return self.host_key_alias
        return self.hostname if self.port == 22 else f"[{self.hostname}]:{self.port}"


def destination(host: Host, config: SshConfig, before: Destination | None = None) -> Destination:
    """What the config makes of the host, which is a hop to `before`; UsageError where its entry
    is not lawful or cannot be followed, which is no matter of other hosts."""
    asked = address(host)
    found = config.lookup(asked.name, asked.user, asked.port)
    for keyword in NOT_FOLLOWED:
        line = found.line(keyword)
        if line and line.words()[0].lower() not in ("none", "no"):
            raise line.error("this cannot be followed here")
    port = _port(host, found)
    alias = found.word("hostkeyalias")
    jumps = tuple(_jumps(found))
    tokens = {
        **found.tokens,
        **local_tokens(),
        "d": str(config.home),
        "j": jumps[-1] if jumps else "",
        "k": alias or found.name,
    }
    known_hosts = [
        Path(name)
        for keyword, usual in KNOWN_HOSTS.items()
        for name in _files(found.values.get(keyword), tokens, config.home, usual)
    ]
    named = found.values.get("identityfile")
    only = (found.word("identitiesonly") or "no").lower() in ("yes", "true")
    return Destination(
        label=f"{before.label}, by way of {host.name}" if before else host.name,
        name=host.name,
        origin=before.origin if before else host.name,
        hostname=found.hostname,
        port=port,
        user=found.user,
        identity_files=tuple(_files(named, tokens, config.home)) if named else None,
        agent=_agent(found.line("identityagent"), tokens, config.home),
        only_named=only,
        host_key_alias=alias,
        known_hosts=tuple(known_hosts),
        jumps=jumps,
        command=_command(found),
    )


def _files(
    lines: list[Line] | None, tokens: dict[str, str], home: Path, usual: tuple[str, ...] = ()
) -> Iterator[str]:
    """The files that the lines name, with `~`, `%` tokens and `${VARIABLES}`; not `none`."""
    if not lines:
        yield from (in_home(name, home) for name in usual)
        return
    for line in lines:
        for word in line.words():
            if word.lower() != "none":
                yield in_home(line.expanded(_with_variables(line, word), tokens), home)


def _agent(line: Line | None, tokens: dict[str, str], home: Path) -> str | None:
    """The socket that the line names, by its path or by a variable that holds it; without a line
    that of the environment."""
    word = line.words()[0] if line else "$SSH_AUTH_SOCK"
    if line is None or word == "SSH_AUTH_SOCK" or re.fullmatch(r"\$\w+", word):
        return os.environ.get(word.removeprefix("$")) or None
    if word.lower() == "none":
        return None
    return in_home(line.expanded(_with_variables(line, word), tokens), home)


def _with_variables(line: Line, text: str) -> str:
    def one(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise line.error(f"the environment variable {found[1]} is not set")
        return os.environ[found[1]].replace("%", "%%")

    return re.sub(r"\$\{(\w+)\}", one, text)


def _port(host: Host, found: Found) -> int:
    given, line = found.port, found.line("port")
    if given.isdecimal() and 0 < int(given) < 65536:
        return int(given)
    place = line.path if line and not found.given_port else "orch.yaml"
    raise UsageError(
        f"{host.name}: its Port in {place} is `{given}`, which is no number from 1 to 65535",
        hint=f"mend `Port` where that file says it for `{found.name}`",
    )


def _jumps(found: Found) -> Iterator[str]:
    line = found.line("proxy")
    if line is None or line.keyword != "proxyjump":
        return
    for word in line.expanded(line.words()[0], found.tokens).split(","):
        jump = word.strip().removeprefix("ssh://").rstrip("/")
        if jump.lower() == "none":
            return
        if not JUMP.fullmatch(jump):
            raise line.error(f"`{word}` is no [user@]host[:port]")
        if address(Host("", jump)).name in (found.name, found.hostname):
            return  # it is itself the jump host of all hosts
        yield jump


def _command(found: Found) -> str | None:
    """The ProxyCommand as the shell is to get it: it is the rest of its line, quotes and all."""
    line = found.line("proxy")
    if line is None or line.keyword != "proxycommand" or line.rest.strip().lower() == "none":
        return None
    return line.expanded(line.rest, found.tokens)
