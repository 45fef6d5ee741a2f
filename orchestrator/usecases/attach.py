"""The command that shows a run's session: tmux or screen, rebuilt if lost, or the plain log."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.domain import Host, Run
from orchestrator.errors import ConnectFailed, NotFound, UsageError
from orchestrator.ledger.store import Ledger
from orchestrator.paths import ssh_config
from orchestrator.transport.openssh import effective, known_hosts
from orchestrator.transport.replies import unlawful, words
from orchestrator.transport.sshargs import address, client, quoted, vouching
from orchestrator.usecases import silence
from orchestrator.usecases.context import Context

SSH_FAILED = 255  # ssh's own word; any other code is that of the program on the host
FAILED = 1  # of tmux, screen, tail and python alike; as our own code it would be a run's bad end
SESSIONS = ("tmux", "screen")  # else the log is shown, by tail or, where there is none, by python
# What the caller's shell says of sessions: the run's was opened without, see transport.local.
PLACES = ("TMUX", "TMUX_PANE", "TMUX_TMPDIR", "STY", "SCREENDIR")


@dataclass(frozen=True, slots=True)
class View:
    argv: tuple[str, ...]
    env: Mapping[str, str]
    notice: str | None = None


def view(ctx: Context, ledger: Ledger, run: Run, *, terminal: bool = True) -> View:
    """How to watch the run; UsageError for one that goes on where there is no terminal."""
    if run.state.is_open and not terminal:
        raise UsageError(
            "attach shows a session, and there is no terminal here to show it on",
            hint=f"`orch tail {run.run_id}` follows the log without one",
        )
    if run.reached_no_host:
        raise NotFound(
            f"{run.run_id} never started; there is nothing to attach to",
            hint=f"`orch show {run.run_id}` says why, `orch retry {run.run_id}` makes a new run",
        )
    host = ctx.host_of(run)
    with silence.of(ctx, ledger, run, "its session was not entered"), ctx.connect(host) as agent:
        reply = agent.call("view", {"run_id": run.run_id})
    if reply.get("phase") == "absent":
        raise NotFound(
            f"{run.run_id}: {run.host} has no such run, so no session and no log",
            hint=f"`orch reconcile {run.run_id}` settles what became of it"
            if run.state.is_open
            else f"`orch show {run.run_id}` tells what is known of it",
        )
    argv = words(reply.get("argv"))
    if not argv or not (argv[0] in (*SESSIONS, "tail") or argv[1:3] == ["-ISXutf8", "-c"]):
        raise unlawful("a way to attach that is none")
    notice = None
    found = reply.get("view")
    if isinstance(found, dict) and found.get("rebuilt"):
        notice = "the session had been lost (the run was not affected); it was built again"
        if run.session is not None and run.session.kind == "plain":
            notice = "the run had no session; one was opened to watch it"
    elif reply.get("phase") == "finished":
        notice = f"the run has ended; this is its log. `orch show {run.run_id}` tells how it ended"
    elif argv[0] not in SESSIONS:
        notice = "no tmux or screen session stands; showing the log. Ctrl-C leaves, the run goes on"
    if not host.is_local:
        return View(_over_ssh(ctx, host, argv, terminal), ctx.env, notice)
    if argv[0] == "tmux" and ctx.env.get("TMUX"):
        return _from_within(ctx, run, argv[-1])
    env = {name: value for name, value in ctx.env.items() if name not in PLACES}
    return View(tuple(argv), env, notice)


def _from_within(ctx: Context, run: Run, session: str) -> View:
    """How to watch a session of this machine from inside tmux, which shows no tmux in itself."""
    asked = subprocess.run(
        ["tmux", "has-session", "-t", session], env=dict(ctx.env), capture_output=True, check=False
    )
    if asked.returncode != 0:
        raise UsageError(
            f"{run.run_id}: this terminal is inside a tmux of its own, which cannot show the run's",
            hint=f"attach from a terminal outside tmux; `orch tail {run.run_id}` follows it here",
        )
    notice = "this tmux shows the run's session now; its prefix key and L lead back"
    return View(("tmux", "switch-client", "-t", session), ctx.env, notice)


def enter(found: View, run: Run) -> int:
    """The exit code of what shows the run, when it has ended. Ctrl-C is for it alone."""
    before = signal.signal(signal.SIGINT, lambda _number, _frame: None)  # a child has its default
    try:
        code = subprocess.Popen(found.argv, env=dict(found.env)).wait()
    except OSError as exc:
        raise UsageError(
            f"{found.argv[0]}: {exc.strerror}", hint=f"`orch tail {run.run_id}` shows the log"
        ) from None
    finally:
        signal.signal(signal.SIGINT, before)
    if found.argv[0] == "ssh" and code == SSH_FAILED:
        raise ConnectFailed(
            f"{run.run_id}: ssh could not show it, or lost {run.host}; the run is not affected",
            hint=f"`orch tail {run.run_id}` shows the log, `orch doctor {run.host}` tests the host",
        )
    if code == FAILED:
        raise UsageError(
            f"{run.run_id}: {found.argv[0]} could not show it; the run is not affected",
            hint=f"`orch tail {run.run_id}` shows the log, `orch show {run.run_id}` the run",
        )
    return 128 - code if code < 0 else code


def _over_ssh(ctx: Context, host: Host, command: list[str], terminal: bool) -> tuple[str, ...]:
    """The user's own ssh: a terminal needs a real client, and it asks by its own rules."""
    # A command of the user's configuration for this host would refuse ours.
    argv = [*client(host, ssh_config(ctx.env)), "-o", "RemoteCommand=none"]
    pinned = ctx.layout.known_hosts
    if pinned.exists():
        argv += vouching(known_hosts(effective(host, argv, ctx.env)), pinned)
    way = "-t" if terminal else "-T"
    return ("ssh", way, *argv[1:], address(host).target, "--", *map(quoted, command))
