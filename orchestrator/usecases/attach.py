"""The command that shows a run's session: tmux or screen, rebuilt if lost, or the plain log."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from orchestrator.domain import Host, Run
from orchestrator.errors import NotFound
from orchestrator.paths import ssh_config
from orchestrator.transport.replies import unlawful, words
from orchestrator.usecases.context import Context


@dataclass(frozen=True, slots=True)
class View:
    argv: tuple[str, ...]  # to be executed in place of this process
    notice: str | None = None


def view(ctx: Context, run: Run) -> View:
    host = ctx.host_of(run)
    with ctx.connect(host) as agent:
        reply = agent.call("view", {"run_id": run.run_id})
    if reply.get("phase") == "absent":
        raise NotFound(f"{run.run_id}: {run.host} has no such run")
    argv = words(reply.get("argv"))
    if not argv or argv[0] not in ("tmux", "screen", "tail"):
        raise unlawful("a way to attach that is none")
    notice = None
    found = reply.get("view")
    if isinstance(found, dict) and found.get("rebuilt"):
        notice = "the session had been lost (the run was not affected); it was built again"
    elif reply.get("phase") == "finished":
        notice = f"the run has ended; this is its log. `orch show {run.run_id}` tells how it ended"
    elif argv[0] == "tail":
        notice = "no tmux or screen session stands; showing the log. Ctrl-C leaves, the run goes on"
    return View(tuple(argv) if host.is_local else _over_ssh(ctx, host, argv), notice)


def _over_ssh(ctx: Context, host: Host, argv: list[str]) -> tuple[str, ...]:
    """The user's own ssh: a terminal needs a real client, and it asks by its own rules."""
    command = ["ssh", "-t"]
    config = ssh_config(ctx.env)
    if ctx.env.get("ORCH_SSH_CONFIG"):
        command += ["-F", str(config)]
    if ctx.layout.known_hosts.exists():
        known = f"~/.ssh/known_hosts {ctx.layout.known_hosts}"
        command += ["-o", f"UserKnownHostsFile={known}"]
    target = host.ssh or host.name
    if host.ssh and ":" in host.ssh.rpartition("@")[2]:
        target, _, port = host.ssh.rpartition(":")
        command += ["-p", port]
    return (*command, target, "--", *(shlex.quote(item) for item in argv))
