"""The user's ssh config, read as ssh_config(5) says: blocks, `Include`, the first value of each
keyword, the second pass of `Match final` and of canonical names. Needs no ssh and no library.

A line that cannot be followed is a UsageError that names it; `transport: openssh` follows it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import getpass
import glob
import os
import re
import shlex
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import UsageError

DEPTH = 16  # of files that include one another, as in ssh
EXEC_DEADLINE = 30.0
QUOTING = frozenset("\"'\\")
LINE = re.compile(r"(\w+)(?:\s*=\s*|\s+)(.*)")


@dataclass(frozen=True, slots=True)
class Line:
    """One setting, and the files that it includes."""

    path: Path
    number: int
    keyword: str  # in lower case
    rest: str
    included: tuple[tuple[Line, ...], ...] = ()

    def words(self) -> list[str]:
        """The arguments, without quotes and without a comment behind them; at least one."""
        words = self.rest.split()
        if not QUOTING.isdisjoint(self.rest):
            lexer = shlex.shlex(self.rest, posix=True)
            lexer.whitespace_split, lexer.commenters = True, ""
            try:
                words = list(lexer)
            except ValueError as exc:
                raise self.error(str(exc)) from None
        comment = next((at for at, word in enumerate(words) if word.startswith("#")), len(words))
        if not comment:
            raise self.error("a value is missing")
        return words[:comment]

    def expanded(self, text: str, tokens: Mapping[str, str]) -> str:
        """`text` of this line with its `%` tokens."""

        def one(found: re.Match[str]) -> str:
            if found[1] not in tokens:
                raise self.error(f"`{found[0]}` is not understood here")
            return tokens[found[1]]

        return re.sub("%(.?)", one, text)

    def error(self, what: str) -> UsageError:
        return UsageError(
            f"the ssh config {self.path}, line {self.number} (`{self.keyword}`): {what}",
            hint="mend it there, or set `transport: openssh` for the host in orch.yaml: then ssh "
            "itself reads the file",
        )


class SshConfig:
    """What `path` and the files that it includes say; nothing where there is none."""

    def __init__(self, path: Path, home: Path) -> None:
        self.home = home
        self._lines = _read(path, home) if path.exists() else ()

    def aliases(self) -> list[str]:
        """The hosts that have a name, no pattern, in the order of the alphabet."""
        words = {word for line in _hosts(self._lines) for word in line.words()}
        return sorted(word for word in words if not set(word) & set("*?!"))

    def lookup(self, name: str, user: str | None = None, port: int | None = None) -> Found:
        """What holds for the host `name`; `user` and `port` go before what the config says."""
        found = Found(name, name, user, port)
        found.take(self._lines)
        canonical = found.canonical_name()
        if canonical is None and not found.has_final:
            return found
        found.settled = found.subject = canonical or found.hostname
        found.final = True
        found.take(self._lines)
        return found


@dataclass(slots=True)
class Found:
    """What the config says of one host."""

    name: str  # as it was asked for
    subject: str  # what `Host` patterns are held against
    given_user: str | None
    given_port: int | None
    values: dict[str, list[Line]] = field(default_factory=dict)
    settled: str | None = None  # the host's name, once a second pass has begun
    final: bool = False  # the second pass
    has_final: bool = False  # some `Match final` asks for one

    @property
    def hostname(self) -> str:
        """The host to connect to."""
        if self.settled is not None:
            return self.settled
        line = self.line("hostname")
        if line is None:
            return self.name.lower()
        return line.expanded(line.words()[0], {"%": "%", "h": self.name}).lower()

    @property
    def user(self) -> str:
        return self.given_user or self.word("user") or local_user()

    @property
    def port(self) -> str:
        """As it is written, a number or not."""
        return str(self.given_port or self.word("port") or 22)

    @property
    def tokens(self) -> dict[str, str]:
        """What stands for `%n` and the like in commands."""
        return {"%": "%", "h": self.hostname, "n": self.name, "p": self.port, "r": self.user}

    def line(self, keyword: str) -> Line | None:
        lines = self.values.get(keyword)
        return lines[0] if lines else None

    def word(self, keyword: str) -> str | None:
        """The first argument of a setting."""
        line = self.line(keyword)
        return line.words()[0] if line else None

    def take(self, lines: Sequence[Line], active: bool = True) -> None:
        """The settings of the blocks that are for this host, those of included files in turn."""
        within = active
        for line in lines:
            if line.keyword == "host":
                active = within and _listed(self.subject, line.words())
            elif line.keyword == "match":
                active = within and self._matches(line)
            elif line.keyword == "include":
                for each in line.included:
                    self.take(each, active)
            elif active:
                # The first of the two ways through a proxy holds.
                key = "proxy" if line.keyword in ("proxyjump", "proxycommand") else line.keyword
                known = self.values.setdefault(key, [])
                if not known or (key == "identityfile" and line not in known):
                    known.append(line)

    def _matches(self, line: Line) -> bool:
        words = line.words()
        result = True
        while words:
            name, equals, value = words.pop(0).partition("=")
            wanted, name = not name.startswith("!"), name.lstrip("!").lower()
            if name in ("final", "canonical"):
                self.has_final |= name == "final"
                holds = self.final
            elif name == "all":
                holds = True
            else:
                if not equals and not words:
                    raise line.error(f"`{name}` has no value")
                value = value if equals else words.pop(0)
                holds = result and self._holds(line, name, value)
            result = result and holds == wanted
        return result

    def _holds(self, line: Line, name: str, value: str) -> bool:
        if name == "exec":
            return self._succeeds(line, value)
        about: dict[str, Callable[[], str]] = {
            "host": lambda: self.hostname,
            "originalhost": lambda: self.name,
            "user": lambda: self.user,
            "localuser": local_user,
        }
        if name not in about:
            raise line.error(f"`{name}` is not understood here")
        return _listed(about[name](), value.split(","))

    def _succeeds(self, line: Line, command: str) -> bool:
        argv = [os.environ.get("SHELL") or "/bin/sh", "-c"]
        tokens = {**self.tokens, "d": os.path.expanduser("~"), **local_tokens()}
        try:
            done = subprocess.run(
                [*argv, line.expanded(command, tokens)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=EXEC_DEADLINE,
            )
        except subprocess.TimeoutExpired:
            raise line.error(f"`{command}` did not end within {EXEC_DEADLINE:g} s") from None
        except OSError as exc:
            raise line.error(f"{argv[0]}: {exc.strerror}") from None
        return done.returncode == 0

    def canonical_name(self) -> str | None:
        """The name that a second pass is about; None where `CanonicalizeHostname` is off."""
        how = (self.word("canonicalizehostname") or "no").lower()
        if how not in ("yes", "always"):
            return None
        host, most = self.hostname, self.line("canonicalizemaxdots")
        if most and not most.words()[0].isdecimal():
            raise most.error("its value is no number")
        proxied = self.word("proxy") not in (None, "none")
        dots = int(most.words()[0]) if most else 1
        if _is_address(host) or (proxied and how == "yes") or host.count(".") > dots:
            return host
        line = self.line("canonicaldomains")
        for domain in line.words() if line else ():
            if _resolves(f"{host}.{domain}"):
                return f"{host}.{domain}"
        fallback = self.line("canonicalizefallbacklocal")
        if fallback and fallback.words()[0].lower() == "no":
            raise fallback.error(f"{host} is in none of the CanonicalDomains")
        return host


def local_user() -> str:
    """Who uses this machine, by name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # OSError since Python 3.13
        raise UsageError(
            f"user id {os.getuid()} has no name on this machine, as ssh needs one",
            hint="give it one (`USER=name orch ...`), as is usual in a container",
        ) from None


def local_tokens() -> dict[str, str]:
    """What stands for this machine and who uses it."""
    here = socket.gethostname()
    return {
        "l": here, "L": here.partition(".")[0], "u": local_user(), "i": str(os.getuid()),
    }  # fmt: skip


def in_home(name: str, home: Path) -> str:
    """`name` with its leading `~`."""
    if name == "~" or name.startswith("~/"):
        return f"{home}{name[1:]}"
    return os.path.expanduser(name)


def _read(path: Path, home: Path, depth: int = 0) -> tuple[Line, ...]:
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as exc:
        raise UsageError(
            f"the ssh config {path} cannot be read: {exc.strerror or exc}",
            hint="it must be a file; ORCH_SSH_CONFIG names another than ~/.ssh/config",
        ) from None
    lines = []
    for number, words in enumerate(text.split("\n"), 1):
        if not words.strip() or words.strip().startswith("#"):
            continue
        found = LINE.fullmatch(words.strip())
        if found is None:
            raise Line(path, number, words.strip(), "").error("a value is missing")
        line = Line(path, number, found[1].lower(), found[2])
        if line.keyword == "include":
            line = dataclasses.replace(line, included=tuple(_included(line, home, depth)))
        lines.append(line)
    return tuple(lines)


def _included(line: Line, home: Path, depth: int) -> Iterator[tuple[Line, ...]]:
    if depth == DEPTH:
        raise line.error(f"more than {DEPTH} files include one another")
    for word in line.words():
        pattern = os.path.join(home, ".ssh", in_home(word, home))
        for name in sorted(glob.glob(pattern)):
            if not os.path.isdir(name):
                yield _read(Path(name), home, depth + 1)


def _hosts(lines: Sequence[Line]) -> Iterator[Line]:
    for line in lines:
        if line.keyword == "host":
            yield line
        for each in line.included:
            yield from _hosts(each)


def _listed(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns is for it, and none of those behind a `!`."""
    against = (pattern[1:] for pattern in patterns if pattern.startswith("!"))
    return any(_like(name, each) for each in patterns) and not any(
        _like(name, each) for each in against
    )


def _like(name: str, pattern: str) -> bool:
    parts = {"*": ".*", "?": "."}
    return bool(re.fullmatch("".join(parts.get(sign, re.escape(sign)) for sign in pattern), name))


def _is_address(name: str) -> bool:
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, name)
            return True
    return False


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True
