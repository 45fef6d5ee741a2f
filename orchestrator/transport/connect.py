"""From a host to an agent on it. The SSH libraries are imported only when they are needed."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.domain import Host
from orchestrator.paths import LocalLayout, home_of, ssh_config
from orchestrator.transport.base import Agent
from orchestrator.transport.local import LocalTransport
from orchestrator.transport.pipe import Transport


def connect(host: Host, env: Mapping[str, str]) -> Agent:
    """An agent to call. Connecting is done; the agent starts with the first call."""
    return Agent(host, open_transport(host, env))


def check_name(host: Host, env: Mapping[str, str]) -> None:
    """NotFound for a host nobody has ever heard of; before a run is recorded for it."""
    if host.transport == "ssh":
        from orchestrator.transport import ssh_names

        ssh_names.check_name(host, ssh_config(env), home_of(env))


def open_transport(host: Host, env: Mapping[str, str]) -> Transport:
    if host.is_local:
        return LocalTransport(host, env)
    pinned = LocalLayout.from_environment(env).known_hosts
    if host.transport == "openssh":
        from orchestrator.transport.openssh import OpenSshTransport

        return OpenSshTransport.open(host, ssh_config(env), pinned, env)
    from orchestrator.retry import when_let_in
    from orchestrator.transport.ssh import SshTransport

    home = home_of(env)
    return when_let_in(lambda: SshTransport.open(host, ssh_config(env), pinned, home))
