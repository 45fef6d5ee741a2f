"""A unix account made for one test server and removed with it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.helpers import processes
from tests.helpers.programs import require_program

PREFIX = "orch-test-"


@dataclass(frozen=True, slots=True)
class Account:
    """Who a session runs as. `temporary` accounts are removed by `remove`."""

    name: str
    uid: int
    gid: int
    temporary: bool


def current() -> Account:
    """The account the tests run under."""
    entry = pwd.getpwuid(os.getuid())
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid, temporary=False)


def create(home: Path, token: str, *, shell: str, root: bool) -> Account:
    """A new account `orch-test-<token>` with `home` as its home exists; needs root.

    With `root` it is another name of uid 0 with a home of its own. The password field is `*`: a
    locked account (`!`) would be refused by a server that does not use PAM.
    """
    sweep()
    name = PREFIX + token
    # The pid in the comment lets a later sweep see whether its maker still lives.
    argv = [
        require_program("useradd"),
        "-M",
        "-d",
        str(home),
        "-s",
        shell,
        "-p",
        "*",
        "-c",
        f"pid {os.getpid()}",
    ]
    argv += ["-o", "-u", "0", "-g", "0", "-N"] if root else ["-U"]
    _retry([*argv, name])
    entry = pwd.getpwnam(name)
    return Account(name, entry.pw_uid, entry.pw_gid, temporary=True)


def remove(account: Account) -> None:
    """The account is gone and so are its processes (those of a uid of its own)."""
    if not account.temporary:
        return
    if account.uid != 0:
        processes.end(processes.owned_by(account.uid))
        shutil.rmtree(f"/tmp/tmux-{account.uid}", ignore_errors=True)
    shutil.rmtree(f"/run/screen/S-{account.name}", ignore_errors=True)
    # -f because another name of uid 0 always counts as in use.
    _retry([require_program("userdel"), "-f", account.name])


def sweep() -> None:
    """Accounts left by test processes that were killed are gone."""
    for entry in pwd.getpwall():
        if not entry.pw_name.startswith(PREFIX):
            continue
        word, _, pid = entry.pw_gecos.partition(" ")
        if word == "pid" and pid.isdigit() and not processes.is_alive(int(pid)):
            remove(Account(entry.pw_name, entry.pw_uid, entry.pw_gid, temporary=True))


def _retry(argv: list[str], deadline_s: float = 20.0) -> None:
    """Run an account tool; a password file locked by another one is waited for."""
    until = time.monotonic() + deadline_s
    while True:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        if done.returncode == 0:
            return
        if "lock" not in done.stderr or time.monotonic() > until:
            raise RuntimeError(f"{argv[0]} failed ({done.returncode}): {done.stderr.strip()}")
        time.sleep(0.1)
