"""SSH through the user's own OpenSSH client: for what only it can do (hardware keys, GSSAPI, a
master connection that was opened by hand with a second factor, odd ProxyJump chains).

One master connection for each host is shared by all commands and stays for a minute after the last.
The same rules as in `ssh.py`: unknown or changed host keys end it before anything is sent, nothing
is forwarded, nobody is prompted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator import errors
from orchestrator.domain import Host
from orchestrator.transport.process import ProcessPipe
from orchestrator.transport.sshargs import address, client, vouching

CONNECT_DEADLINE = 60.0  # of the whole login, a hardware key's touch included
CHECK_DEADLINE = 3.0
PERSIST = 60
SOCKET_MAX = 80  # sun_path holds 108 bytes; while it makes a socket ssh appends 17 to its name

# What comes from the command line goes before the user's configuration.
OPTIONS: Mapping[str, str] = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
    "Tunnel": "no",
    "LogLevel": "INFO",
    "ConnectTimeout": "20",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
}

# Only newer clients know these, so they are given where the configuration says otherwise.
NEWER_OPTIONS: Mapping[str, str] = {"StdinNull": "no", "ForkAfterAuthentication": "no"}
SESSION_OPTIONS: Mapping[str, str] = {"SessionType": "default"}  # a master has no session

# The last thing that ssh says when it was not let in, or did not go in.
REFUSED = re.compile(
    r"(^\S+@\S+: Permission denied \([^()\n]*\)\.|^Host key verification failed\."
    r"|: Too many authentication failures(\r?\nDisconnected from [^\n]*)?)\s*\Z",
    re.MULTILINE,
)


class OpenSshTransport:
    """A live master connection to one host; `run` starts commands over it."""

    def __init__(
        self,
        host: Host,
        argv: Sequence[str],
        socket: str,
        env: Mapping[str, str],
        told: Mapping[str, str],
    ) -> None:
        self._host, self._env = host, dict(env)
        session = ["-o", "ControlMaster=no", "-S", socket, "-T"]
        self._argv = [*argv, *_needed(SESSION_OPTIONS, told), *session]

    @classmethod
    def open(
        cls, host: Host, ssh_config: Path, pinned: Path, env: Mapping[str, str]
    ) -> OpenSshTransport:
        """Connected and authenticated, or a TransportError or TrustError says why not."""
        environ = {**env, "LC_ALL": "C"}  # what ssh says is read
        bare = _client(host, ssh_config)
        told = effective(host, bare, environ)
        argv = [*bare, *_needed(NEWER_OPTIONS, told), *vouching(known_hosts(told), pinned)]
        own = told.get("controlpath", "none")
        if own != "none" and _answers(argv, own, environ, host):
            return cls(host, argv, own, environ, told)
        socket = str(_folder(env) / _name(host, argv))
        with _locked(socket + ".lock"):
            if not _answers(argv, socket, environ, host):
                _remove_stale(socket)
                _start_master(host, argv, socket, environ, told.get("proxyjump"))
        return cls(host, argv, socket, environ, told)

    def run(self, command: str) -> ProcessPipe:
        errors_file = tempfile.TemporaryFile()  # noqa: SIM115 - the pipe closes it
        process = subprocess.Popen(
            [*self._argv, address(self._host).target, "--", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors_file,
            env=self._env,
            start_new_session=True,
            bufsize=0,
        )
        return _Pipe(self._host, process, errors_file)

    def close(self) -> None:
        """The master stays for the next command and ends by itself."""


class _Pipe(ProcessPipe):
    def closing_words(self) -> tuple[int | None, str]:
        """ssh's own exit status is 255; what it says then is about the connection.

        The words may as well be those of the login, whose connection ended in the middle: only
        ssh's own last line says that there was no login at all, and nothing was begun.
        """
        code, words = super().closing_words()
        if code != 255:
            return code, words
        if not words.strip():
            return None, words
        found = translated(self._host, words)
        if isinstance(found, errors.TransportError) or REFUSED.search(words):
            raise found
        return None, words


# --- the command line -----------------------------------------------------------------------------


def _client(host: Host, ssh_config: Path) -> list[str]:
    return [*client(host, ssh_config), *_given(OPTIONS)]


def _needed(options: Mapping[str, str], told: Mapping[str, str]) -> list[str]:
    """Those of the options for which the configuration says something else."""
    return _given({k: v for k, v in options.items() if told.get(k.lower(), v) != v})


def _given(options: Mapping[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


def effective(host: Host, argv: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """The configuration ssh would use, by lower-case keyword (`ssh -G`)."""
    # Of a command, as `ForkAfterAuthentication` would refuse to tell of any other session.
    done = _asked([*argv, "-G", address(host).target, "true"], env, CHECK_DEADLINE * 5)
    if done is None or done.returncode != 0:
        raise translated(host, done.stderr if done else "ssh -G does not end")
    pairs = (line.partition(" ") for line in done.stdout.splitlines())
    return {name: value for name, _, value in pairs}


def known_hosts(told: Mapping[str, str]) -> str:
    """The user's own files, as `ssh -G` names them."""
    return told.get("userknownhostsfile", "~/.ssh/known_hosts")


def _asked(
    argv: Sequence[str], env: Mapping[str, str], deadline: float
) -> subprocess.CompletedProcess[str] | None:
    """What a short call said; None when it did not end in time. HostUnfit without a client."""
    try:
        return subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=deadline, env=dict(env), start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    except OSError as exc:
        raise errors.UsageError(
            f"{argv[0]}: {exc.strerror}: the OpenSSH client is needed here",
            hint="install it; with `transport: ssh` for this host only `orch attach` needs it",
        ) from None


# --- the master -----------------------------------------------------------------------------------


def _folder(env: Mapping[str, str]) -> Path:
    """A folder of this user alone, with a path short enough for a socket; made if absent.

    Where another user got there first a fresh one is made, for this command only.
    """
    runtime = env.get("XDG_RUNTIME_DIR") or ""
    places = [Path(runtime) / "orch-ssh"] if runtime.startswith("/") else []
    for place in (*places, Path(f"/tmp/orch-ssh-{os.getuid()}")):
        if len(str(place)) <= SOCKET_MAX - 20 and _is_private(place):
            return place
    return Path(tempfile.mkdtemp(prefix="orch-ssh-", dir="/tmp"))


def _is_private(place: Path) -> bool:
    try:
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        info = os.lstat(place)
    except OSError:
        return False
    private = stat.S_ISDIR(info.st_mode) and not info.st_mode & 0o077
    return private and info.st_uid == os.getuid()


def _name(host: Host, argv: Sequence[str]) -> str:
    """Other options, another target or another configuration: another connection."""
    text = "\0".join([*argv, address(host).target])
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Two commands at once make one master: the second would go into the background without."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _answers(argv: Sequence[str], socket: str, env: Mapping[str, str], host: Host) -> bool:
    if not os.path.exists(socket):
        return False
    done = _asked([*argv, "-S", socket, "-O", "check", address(host).target], env, CHECK_DEADLINE)
    return done is not None and done.returncode == 0


def _remove_stale(socket: str) -> None:
    """What a killed or frozen master left behind goes, if it is a socket and ours."""
    try:
        info = os.lstat(socket)
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(info.st_mode) and info.st_uid == os.getuid():
        os.unlink(socket)
        return
    raise errors.ConnectFailed(
        f"{socket} is in the way and is no socket of yours; it was left alone",
        hint="look at it and remove it",
    )


def _start_master(
    host: Host, argv: Sequence[str], socket: str, env: Mapping[str, str], jump: str | None
) -> None:
    master = ["-f", "-N", "-M", "-o", f"ControlPersist={PERSIST}", "-S", socket]
    with tempfile.TemporaryFile() as said:  # a pipe would be held open by the master
        try:
            done = subprocess.run(
                [*argv, *master, address(host).target],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=dict(env),
                timeout=CONNECT_DEADLINE,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise errors.ConnectFailed(
                f"{host.name}: no login within {CONNECT_DEADLINE:g} s", hint=_again(host)
            ) from None
        if done.returncode != 0:
            said.seek(0)
            words = said.read(65536).decode("utf-8", "replace")
            if jump and "UNKNOWN port 65535" in words:  # all that is left of what the jump said
                raise errors.ConnectFailed(
                    f"{host.name}: no connection by way of its jump host {jump}",
                    hint=f"`ssh {jump}` by hand tells why",
                )
            raise translated(host, words)


# --- what ssh says --------------------------------------------------------------------------------


def _again(host: Host) -> str:
    return f"runs that go on there go on; `orch doctor {host.name}` tells when it answers again"


def translated(host: Host, words: str) -> errors.OrchError:
    """ssh's words as one of our errors; the last lines tell most."""
    where = f"{host.name} ({host.ssh or 'ssh config'})"
    lines = [line.strip() for line in words.splitlines() if line.strip(" @\r\n")]
    last = lines[-1] if lines else "ssh ended without a word"
    if "IDENTIFICATION HAS CHANGED" in words or "has changed and you have requested" in words:
        found = re.search(r"SHA256:[A-Za-z0-9+/]+", words)
        offered = f" to {found.group()}" if found else ""
        return errors.HostKeyChanged(
            f"{where}: the host key CHANGED{offered}; nothing was sent",
            hint="if the host was reinstalled, remove the old key from known_hosts "
            f"(`ssh-keygen -R`) and run `orch host trust {host.name}`",
        )
    if "REVOKED HOST KEY" in words:
        return errors.TrustError(
            f"{where}: its host key is REVOKED by a known_hosts file; nothing was sent",
            hint="somebody else may have that key: ask whoever runs the host for its new one",
        )
    if "Host key verification failed" in words or "host key is known for" in words:
        return errors.HostKeyUnknown(
            f"{where}: its host key is not known; nothing was sent",
            hint=f"`orch host trust {host.name}` shows the fingerprint and pins it",
        )
    if re.search(r"Permission denied|Too many authentication failures|UNPROTECTED", words):
        return errors.AuthFailed(
            f"{where}: login refused: {last}",
            hint="check User and IdentityFile in the ssh config; a second factor needs a master "
            "connection of yours (ControlPath in the ssh config), opened by hand",
        )
    if re.search(r"[Bb]ad (owner|configuration|number|yes/no)|extra arguments at end", words):
        return errors.UsageError(f"{where}: {last}", hint="mend the ssh config")
    unknown = re.search(r"Could not resolve hostname ([^\s:]+)", words)
    if unknown:  # its own, or that of a jump host
        told = f"the name {unknown[1]} does not resolve"
        return errors.ConnectFailed(f"{where}: {told}", hint=_again(host))
    if "timed out" in words:
        return errors.ConnectFailed(f"{where}: no connection in time", hint=_again(host))
    return errors.ConnectFailed(f"{where}: cannot connect: {last[:400]}", hint=_again(host))
