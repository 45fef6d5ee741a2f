"""A private, real OpenSSH server for tests: own keys, own port on 127.0.0.1, own account and home.

As root a unix account is made for the server, because sshd starts every session in the home that
the password file names: nothing a test does can then reach the caller's own home. Without root a
session runs as the caller and starts in the real home (only $HOME is private); such a test must
give the host a `root:` of `PrivateSshd.root_dir`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from tests.helpers import processes, sshfiles, unixuser
from tests.helpers.programs import require_program
from tests.helpers.sshfiles import ConfigValue

MARK = "ORCH_TEST_SSHD"
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
START_ATTEMPTS = 5


class PrivateSshd:
    """One server. `start` it or use it as a context manager; `stop` leaves nothing behind.

    config: sshd_config keywords that replace the defaults below; a list repeats the keyword.
    set_env: variables of every session. `path`: the session's PATH after the private `bin_dir`.
    shell: the login shell; needs root. `as_root`: log in as uid 0 (needs root).
    host_keys: key types, the first is what `known_hosts` pins.
    """

    def __init__(
        self,
        *,
        config: Mapping[str, ConfigValue] | None = None,
        set_env: Mapping[str, str] | None = None,
        path: str = SYSTEM_PATH,
        shell: str = "/bin/bash",
        as_root: bool = False,
        host_keys: Iterable[str] = ("ed25519",),
        alias: str = "testhost",
    ) -> None:
        self.alias = alias
        self.token = secrets.token_hex(4)
        self.port = 0
        self.key_types = tuple(host_keys)
        self._overrides = dict(config or {})
        self._set_env = dict(set_env or {})
        self._path = path
        self._shell = shell
        self._as_root = as_root
        self._listener: subprocess.Popen[bytes] | None = None
        self._old_sessions: dict[int, int | None] = {}
        self._account: unixuser.Account | None = None
        self.base = Path()

    # -- life ---------------------------------------------------------------------------------

    def start(self) -> PrivateSshd:
        """The server listens and the client files are written."""
        try:
            if self._account is None:
                self._prepare()
            self._listen()
        except BaseException:
            self.stop()
            raise
        self.client_config = self.write_client_config(self.base)
        return self

    def stop(self) -> None:
        """Listener, sessions, everything sessions left running, account and files are gone."""
        self.stop_listener()
        if self.base == Path():
            return
        processes.end(self.session_pids())
        processes.end(processes.with_environment(MARK, self.token))
        processes.end(processes.with_environment("HOME", str(self.home)))
        if self._account is not None:
            unixuser.remove(self._account)
        shutil.rmtree(self.base, ignore_errors=True)
        self._account, self.base = None, Path()

    def stop_listener(self) -> None:
        """New connections are refused; sessions that are open go on."""
        if self._listener is None:
            return
        self._old_sessions |= {pid: processes.start_time(pid) for pid in self._children()}
        self._listener.terminate()
        self._listener.wait(timeout=60)
        self._listener = None

    def restart(self) -> None:
        """A new listener with the present configuration and keys serves the same port."""
        self.stop_listener()
        self._listen()

    def reconfigure(self, **config: ConfigValue) -> None:
        """The keywords hold for connections made from now on."""
        self._overrides.update(config)
        self.restart()

    def rotate_host_keys(self, key_types: Iterable[str] | None = None) -> None:
        """The server has new host keys; known_hosts files written before name the old ones."""
        self.key_types = tuple(key_types or self.key_types)
        for old in self.base.glob("host_*"):
            old.unlink()
        self._make_host_keys()
        self.restart()

    def __enter__(self) -> PrivateSshd:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # -- what a test asks -----------------------------------------------------------------------

    @property
    def user(self) -> str:
        """The account sessions run as."""
        assert self._account is not None, "the server is not started"
        return self._account.name

    @property
    def uid(self) -> int:
        """The uid sessions run as."""
        assert self._account is not None, "the server is not started"
        return self._account.uid

    @property
    def private_home(self) -> bool:
        """True when sessions also *start* in `home` (the tests run as root)."""
        assert self._account is not None, "the server is not started"
        return self._account.temporary

    @property
    def home(self) -> Path:
        """$HOME of every session."""
        return self.base / "home"

    @property
    def root_dir(self) -> Path:
        """Where orch may keep its files on this host: `~/.orch`, private in either mode."""
        return self.home / ".orch"

    @property
    def bin_dir(self) -> Path:
        """First on the PATH of every session; put programs here to shadow the system's."""
        return self.base / "bin"

    @property
    def known_hosts(self) -> Path:
        """Beside `client_config`, which names it."""
        return self.base / "known_hosts"

    @property
    def identity(self) -> Path:
        """The private client key."""
        return self.base / "client_key"

    @property
    def listener_pid(self) -> int:
        """The listening process; not its sessions."""
        assert self._listener is not None, "the server is not listening"
        return self._listener.pid

    def log(self) -> str:
        """All that the server has logged so far."""
        path = self.base / "sshd.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def session_pids(self) -> list[int]:
        """The sshd processes of the open connections, also of a listener since replaced."""
        old = [p for p, born in self._old_sessions.items() if processes.start_time(p) == born]
        found = [*old, *self._children()]
        for pid in old:
            found += processes.descendants(pid)
        alive = {pid for pid in found if processes.is_alive(pid)}
        return sorted(pid for pid in alive if processes.name_of(pid).startswith("sshd"))

    def kill_sessions(self) -> None:
        """Open connections are broken; programs started in them are left to themselves."""
        left = processes.end(self.session_pids())
        assert not left, f"sshd processes {left} did not end"

    def host_key_line(self, port: int | None = None, key_type: str | None = None) -> str:
        """A known_hosts line for the present key, for this port or that of a proxy."""
        name = f"host_{key_type or self.key_types[0]}.pub"
        kind, blob = (self.base / name).read_text().split()[:2]
        return f"[127.0.0.1]:{port or self.port} {kind} {blob}\n"

    def host_block(
        self, alias: str | None = None, *, port: int | None = None, known_hosts: Path | None = None
    ) -> str:
        """An ssh_config Host block that logs in here and trusts only `known_hosts`."""
        return sshfiles.host_block(
            alias or self.alias,
            port=port or self.port,
            user=self.user,
            identity=self.identity,
            known_hosts=known_hosts or self.known_hosts,
        )

    def write_client_config(
        self, folder: Path, *, port: int | None = None, trusted: bool = True, extra: str = ""
    ) -> Path:
        """`folder/ssh_config` and `folder/known_hosts` are written; return the former.

        port: of a proxy in front. trusted: whether known_hosts names this server at all.
        extra: further option lines for the Host block.
        """
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "known_hosts"
        known.write_text(self.host_key_line(port) if trusted else "")
        config = folder / "ssh_config"
        config.write_text(self.host_block(port=port, known_hosts=known) + extra)
        return config

    def run(
        self,
        command: str,
        *,
        config: Path | None = None,
        input: str | None = None,
        timeout: float = 30,
    ) -> subprocess.CompletedProcess[str]:
        """The result of `command` run by the login shell, over the plain ssh client."""
        argv = ["ssh", "-F", str(config or self.client_config), "-o", "BatchMode=yes", "-T"]
        return subprocess.run(
            [*argv, self.alias, command],
            capture_output=True,
            text=True,
            timeout=timeout,
            **({"stdin": subprocess.DEVNULL} if input is None else {"input": input}),
        )

    # -- preparation ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Folder, account, keys and the session's python exist."""
        # Not pytest's tmp_path: that is closed to other accounts, and this one must enter.
        self.base = Path(tempfile.mkdtemp(prefix=f"orch-sshd-{self.token}-"))
        self.base.chmod(0o755)
        self.home.mkdir(mode=0o700)
        self.bin_dir.mkdir(mode=0o755)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
            self._account = unixuser.create(
                self.home, self.token, shell=self._shell, root=self._as_root
            )
            os.chown(self.home, self._account.uid, self._account.gid)
        else:
            self._account = unixuser.current()
        self._make_host_keys()
        sshfiles.make_key(self.identity, "ed25519")
        shutil.copy(self.base / "client_key.pub", self.base / "authorized_keys")
        (self.base / "authorized_keys").chmod(0o644)
        if shutil.which("python3", path=self._path) is None:
            (self.bin_dir / "python3").symlink_to(Path(sys.executable).resolve())

    def _make_host_keys(self) -> None:
        for kind in self.key_types:
            sshfiles.make_key(self.base / f"host_{kind}", kind)

    def _config_text(self) -> str:
        env = {
            MARK: self.token,
            "HOME": str(self.home),
            "PATH": f"{self.bin_dir}:{self._path}",
            **self._set_env,
        }
        return sshfiles.server_config(
            self.base, self.port, self.key_types, env=env, overrides=self._overrides
        )

    def _listen(self) -> None:
        """A listener answers on `port`; a free one is picked the first time, with retry."""
        keep = self.port != 0
        for _ in range(START_ATTEMPTS):
            self.port = self.port if keep else _free_port()
            config = self.base / "sshd_config"
            config.write_text(self._config_text())
            log_from = len(self.log())
            log = self.base / "sshd.log"
            argv = [require_program("sshd"), "-D", "-f", str(config), "-E", str(log)]
            self._listener = self._execute(argv, log)
            if self._answers(log_from):
                return
            self.stop_listener()
        raise RuntimeError(f"sshd did not start on port {self.port}:\n{self.log()}")

    def _execute(self, argv: list[str], log: Path) -> subprocess.Popen[bytes]:
        # What it says before it opens its log, a bad keyword for one, belongs there too.
        with log.open("ab") as early:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=early, stderr=early)

    def _answers(self, log_from: int, deadline_s: float = 10.0) -> bool:
        until = time.monotonic() + deadline_s
        while time.monotonic() < until:
            assert self._listener is not None
            # Its own log, not a connect: another program may hold the port, and a probing
            # connection would count as a session.
            if "Server listening on" in self.log()[log_from:]:
                return True
            if self._listener.poll() is not None:
                return False
            time.sleep(0.01)
        return False

    def _children(self) -> list[int]:
        return processes.descendants(self._listener.pid) if self._listener else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
