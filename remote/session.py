"""A place to watch a run: tmux, screen, or none. Losing it loses the view, never the run."""

from __future__ import annotations

import os
import sys
from typing import Dict, List, Optional, Tuple

from remote import files, procs
from remote.layout import RunFiles

DEADLINE = 5.0
# `tail` where there is none: a log from its start, and with "on" whatever comes, by name.
SHOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
place, more = sys.argv[1:]
at = 0
while True:
    try:
        with open(place, "rb") as log:
            if log.seek(0, 2) < at:
                at = 0
            log.seek(at)
            for piece in iter(lambda: log.read(65536), b""):
                sys.stdout.buffer.write(piece)
            at = log.tell()
        sys.stdout.buffer.flush()
    except OSError as exc:
        if more != "on":
            sys.exit("%s: %s" % (place, exc.strerror))
    if more != "on":
        break
    time.sleep(0.5)
"""


def choose(wanted: str) -> str:
    """The kind that will be used: `wanted` if it is there, else the next best, else "plain"."""
    order = {"auto": ["tmux", "screen"], "tmux": ["tmux", "screen"], "screen": ["screen", "tmux"]}
    for kind in order.get(wanted, []):
        if procs.which(kind):
            return kind
    return "plain"


def name_of(run_id: str) -> str:
    """Free of `.` and `:`, which tmux rewrites."""
    return "orch-" + run_id


def open_view(kind: str, run: RunFiles, env: Dict[str, str]) -> bool:
    """Start a detached session that shows the run's log; True if it stands."""
    viewer = log_argv(run, "on")
    name = name_of(run.run_id)
    if kind == "tmux":
        argv = ["tmux", "new-session", "-d", "-x", "200", "-y", "50", "-s", name, "--", *viewer]
    elif kind == "screen":
        argv = ["screen", "-dmS", name, *viewer]
    else:
        return True
    return procs.run_quiet(argv, env, DEADLINE) == 0


def close(run: RunFiles) -> None:
    """The session on record for the run does not stand any more."""
    known = files.read_json(run.session)
    if known:
        close_view(str(known.get("kind")), run.run_id, plain_env())


def close_any(run_id: str) -> None:
    """No session stands of a run of which there is no record any more."""
    for kind in ("tmux", "screen"):
        if procs.which(kind):
            close_view(kind, run_id, plain_env())


def close_view(kind: str, run_id: str, env: Dict[str, str]) -> None:
    name = name_of(run_id)
    if kind == "tmux":
        procs.run_quiet(["tmux", "kill-session", "-t", "=" + name], env, DEADLINE)
    elif kind == "screen":
        procs.run_quiet(["screen", "-S", name, "-X", "quit"], env, DEADLINE)


def is_open(kind: str, run: RunFiles, env: Dict[str, str]) -> bool:
    name = name_of(run.run_id)
    if kind == "tmux":
        return procs.run_quiet(["tmux", "has-session", "-t", "=" + name], env, DEADLINE) == 0
    if kind == "screen":
        return procs.run_quiet(["screen", "-S", name, "-Q", "info"], env, DEADLINE) == 0
    return False


def attach_argv(kind: str, run: RunFiles) -> Tuple[str, ...]:
    name = name_of(run.run_id)
    if kind == "tmux":
        return ("tmux", "attach-session", "-t", "=" + name)
    if kind == "screen":
        return ("screen", "-x", name)
    return log_argv(run, "on")


def log_argv(run: RunFiles, more: str) -> Tuple[str, ...]:
    """What shows the log; `more`: "on" if more of it may come, or "none"."""
    if procs.which("tail"):
        return ("tail", "-n", "+1", "-F" if more == "on" else "--", run.log)
    in_a_line = "exec(%r)" % SHOW  # a login shell such as tcsh takes no word of several lines
    return (sys.executable, "-ISXutf8", "-c", in_a_line, run.log, more)


def plain_env(environ: Optional[Dict[str, str]] = None) -> Dict[str, str]:
    """The environment for sessions: nothing of the job's, no agent sockets, no nested tmux."""
    source: Dict[str, str] = dict(os.environ) if environ is None else environ
    dropped: List[str] = ["TMUX", "STY", "SSH_AUTH_SOCK", "TMUX_PANE"]
    env = {key: value for key, value in source.items() if key not in dropped}
    env.setdefault("TERM", "xterm-256color")
    return env
