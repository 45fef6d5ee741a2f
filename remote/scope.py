"""Out of the login: what logind ends at logout is the login's scope, so a run takes one of its own.

`StartTransientUnit` with a pid is what `systemd-run --user --scope` asks of the user's manager
before it executes its command; asked for by `busctl`, it moves a process that runs already, so that
a supervisor stays a fork of its agent. What is below the process from then on is in the scope too.
"""

from __future__ import annotations

import os
import time
from typing import Optional

from remote import logind, procs

DEADLINE = 5.0  # seconds for the manager's answer, and again for the move
MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
METHOD = ("org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))")


def is_needed() -> bool:
    """This process would be killed at logout, and the user's manager will outlive the login."""
    user = logind.user_name()
    return bool(
        logind.login() is not None and logind.kills_at_logout(user) and logind.lingers(user)
    )


def leave_login(run_id: str) -> Optional[str]:
    """Put this process into a scope of its own below the user's manager where that saves it.

    None once it is there, and where it need not be; else why not, with nothing changed. What the
    manager says is not enough: the kernel must say that the login is left.
    """
    if not is_needed():
        return None
    pid = os.getpid()
    unit = "orch-%s-%d.scope" % (run_id, pid)  # an attempt and a watcher each have their own
    properties = ("2", "PIDs", "au", "1", str(pid), "CollectMode", "s", "inactive-or-failed", "0")
    argv = ("busctl", "--user", "call", *MANAGER, *METHOD, unit, "fail", *properties)
    env = dict(os.environ)
    env.setdefault("XDG_RUNTIME_DIR", "/run/user/%d" % os.getuid())
    code = procs.run_quiet(argv, env, DEADLINE)
    if code != 0:
        return {None: "busctl did not answer", 127: "no busctl on this host"}.get(
            code, "the user's systemd refused (busctl ended with %s)" % code
        )
    end = time.monotonic() + DEADLINE
    while logind.login() is not None:  # the manager answers before it has moved us
        if time.monotonic() >= end:
            return "the user's systemd did not move it"
        time.sleep(0.01)
    return None
