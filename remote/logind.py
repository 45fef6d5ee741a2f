"""What logind does to processes when their user logs out. Files only; no bus, no tool."""

from __future__ import annotations

import os
import pwd
from typing import Dict, List, Optional

# Where its configuration lies, what comes first over what comes later (logind.conf(5)).
FOLDERS = ("/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd")
SESSIONS = "/run/systemd/sessions"
LINGER = "/var/lib/systemd/linger"
CGROUP = "/proc/self/cgroup"


def kills_at_logout(user: str) -> Optional[bool]:
    """Whether what `user`'s logins leave running is killed: KillUserProcesses and its exceptions,
    as configured. None where there is no logind. Lingering does not change it."""
    paths = _config_files()
    if not os.path.isdir(SESSIONS) and not paths:
        return None
    found = {"KillUserProcesses": "no", "KillExcludeUsers": "root", "KillOnlyUsers": ""}
    for path in paths:
        try:
            with open(path, "r") as file:
                lines = file.read().splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        for line in lines:
            key, _, value = line.strip().partition("=")
            if key.strip() in found:
                found[key.strip()] = value.strip()
    if found["KillUserProcesses"].lower() not in ("yes", "true", "1", "on"):
        return False
    only = found["KillOnlyUsers"].split()
    return user not in found["KillExcludeUsers"].split() and (not only or user in only)


def user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return os.environ.get("USER") or str(os.getuid())


def _config_files() -> List[str]:
    """The first main file, then what is dropped in, by name; of one name, the first folder's."""
    mains = [os.path.join(folder, "logind.conf") for folder in FOLDERS]
    dropped: Dict[str, str] = {}
    for main in reversed(mains):
        try:
            names = os.listdir(main + ".d")
        except OSError:
            continue
        dropped.update((name, os.path.join(main + ".d", name)) for name in names)
    parts = [dropped[name] for name in sorted(dropped) if name.endswith(".conf")]
    return [main for main in mains if os.path.exists(main)][:1] + parts


def lingers(user: str) -> Optional[bool]:
    """Whether the user's manager outlives the logins; None where there is no logind."""
    if not os.path.isdir(SESSIONS) and not os.path.isdir(LINGER):
        return None
    return os.path.exists(os.path.join(LINGER, user))


def login() -> Optional[str]:
    """`12` when this process is in `session-12.scope`, which is what a logout ends."""
    try:
        with open(CGROUP, "r") as file:
            parts = file.read().replace("\n", "/").split("/")
    except OSError:
        return None
    for part in parts:
        if part.startswith("session-") and part.endswith(".scope"):
            return part[len("session-") : -len(".scope")]
    return None


def login_is_closing() -> bool:
    """True when the login this process came from is ending or has ended."""
    number = login()
    if number is None:
        return False
    try:
        with open(os.path.join(SESSIONS, number), "r") as file:
            return "STATE=closing" in file.read().split("\n")
    except FileNotFoundError:
        return os.path.isdir(SESSIONS)
    except OSError:
        return False
