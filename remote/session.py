"""A place to watch a run: tmux, screen, or none. Losing it loses the view, never the run."""

from __future__ import annotations

import os
from typing import Dict, List, Optional, Tuple

from remote import files, procs
from remote.layout import RunFiles

DEADLINE = 5.0


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
    viewer = ["tail", "-n", "+1", "-F", run.log]
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
    return ("tail", "-n", "+1", "-F", run.log)


def ended_argv(run: RunFiles) -> Tuple[str, ...]:
    """The log of a run that has ended: nothing more can come."""
    return ("tail", "-n", "+1", "--", run.log)


def plain_env(environ: Optional[Dict[str, str]] = None) -> Dict[str, str]:
    """The environment for sessions: nothing of the job's, no agent sockets, no nested tmux."""
    source: Dict[str, str] = dict(os.environ) if environ is None else environ
    dropped: List[str] = ["TMUX", "STY", "SSH_AUTH_SOCK", "TMUX_PANE"]
    env = {key: value for key, value in source.items() if key not in dropped}
    env.setdefault("TERM", "xterm-256color")
    return env
