"""Host keys that somebody vouched for: in the user's known_hosts, the system's, or pinned here. The
user's own keys that ssh-agent holds.

A line that is none, or of an authority (`@cert-authority`), vouches for no key and hides no other.
"""

from __future__ import annotations

import base64
import binascii
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchestrator.transport.ssh_libraries import paramiko
from orchestrator.transport.ssh_options import Destination

ANSWER = 30.0


class Vouched:
    """Whose keys are known, by the files as they are when they are first needed."""

    def __init__(self, pinned: Path) -> None:
        self._pinned = pinned
        self._read: dict[Path, list[list[str]]] = {}

    def keys(self, there: Destination) -> dict[str, paramiko.PKey]:
        """kind -> the host's key; what is pinned counts where the user's own files name none."""
        return self._of(there.known_hosts, there) or self._of((self._pinned,), there)

    def _of(self, paths: tuple[Path, ...], there: Destination) -> dict[str, paramiko.PKey]:
        found: dict[str, paramiko.PKey] = {}
        for path in paths:
            for kind, key in self.keys_in(path, there.known_as).items():
                if self.revoked_by(there, key) is None:
                    found.setdefault(kind, key)
        return found

    def keys_in(self, path: Path, name: str) -> dict[str, paramiko.PKey]:
        """kind -> the key by which that file alone knows the host."""
        found: dict[str, paramiko.PKey] = {}
        for names, kind, text, *_ in self._lines(path):
            if any(_is_name(name, each) for each in names.split(",")):
                key = _key(f"{name} {kind} {text}")
                if key is not None:
                    found.setdefault(key.get_name(), key)
        return found

    def revoked_by(self, there: Destination, key: paramiko.PKey) -> Path | None:
        """The file that revokes the key, whichever hosts its line is about."""
        revoked = ["@revoked", key.get_name(), key.get_base64()]
        for path in (*there.known_hosts, self._pinned):
            if any([line[0], *line[2:4]] == revoked for line in self._lines(path)):
                return path
        return None

    def _lines(self, path: Path) -> list[list[str]]:
        if path not in self._read:
            self._read[path] = [words for words in _lines_in(path) if len(words) >= 3]
        return self._read[path]


def _lines_in(path: Path) -> Iterator[list[str]]:
    """The words of each line; none of a file that is absent or unreadable."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    for line in text.split("\n"):
        words = line.split()
        if words and not words[0].startswith("#"):
            yield words


def _is_name(name: str, told: str) -> bool:
    hashed = re.fullmatch(r"\|1\|[A-Za-z0-9+/]{27}=\|[A-Za-z0-9+/]{27}=", told)
    return told == name or (hashed is not None and paramiko.HostKeys.hash_host(name, told) == told)


def _key(line: str) -> paramiko.PKey | None:
    """The line's key; None for what paramiko cannot read, for which it has many exceptions."""
    try:
        entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
    except Exception:
        return None
    return None if entry is None else entry.key


class Agent(paramiko.agent.AgentSSH):
    """ssh-agent at a socket; paramiko's own class knows none but that of the environment. OSError
    or SSHException when nothing answers there as an agent does, or not within ANSWER seconds."""

    _connect: Callable[[socket.socket], None]  # of paramiko, told to the type checker
    _close: Callable[[], None]

    def __init__(self, path: str) -> None:
        super().__init__()
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(ANSWER)
            connected.connect(path)
            self._connect(connected)
            connected.settimeout(None)  # to sign, it may ask its user
        except BaseException:
            connected.close()
            raise

    def close(self) -> None:
        self._close()


def named_key(agent: Agent, files: Sequence[str]) -> paramiko.PKey | None:
    """The agent's key that the first of the files names that it has one of: by its public half,
    which lies beside the file or in it."""
    held = {key.blob: key for key in agent.get_keys()}
    for name in files:
        for path in (Path(name + ".pub"), Path(name)):
            for words in _lines_in(path):
                key = held.get(_decoded(words[1])) if len(words) > 1 else None
                if key is not None:
                    return key
    return None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return b""
