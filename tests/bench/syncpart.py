"""The sync of a submit and nothing else: connect while the tree is scanned, then send it.

    python -m tests.bench.syncpart PROJECT STATE

prints the seconds it took, imports and the agent's start not counted. STATE is a folder for the
cache of hashes and for the manifest last sent.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from orchestrator.background import Background
from orchestrator.domain import Host
from orchestrator.gitlisting import GitListing
from orchestrator.manifest import scan_project
from orchestrator.projectfile import load_project, resolve_host
from orchestrator.transport.base import Agent
from orchestrator.transport.connect import connect
from orchestrator.usecases import sync


def greeted(host: Host) -> Agent:
    """Connected, and the agent runs."""
    agent = connect(host, os.environ)
    agent.call("status", {"run_ids": []})
    return agent


def main() -> None:
    import fabric  # noqa: F401 - before the clock starts

    project, state = Path(sys.argv[1]), Path(sys.argv[2])
    host = resolve_host("gpu", load_project(project, os.environ), os.environ)
    begun = time.perf_counter()
    listing = GitListing(project)
    connecting = Background(lambda: greeted(host))
    scan = scan_project(project, listing, state / "hashes")
    agent = connecting.result()
    sync.push(agent, scan, dataset=False, progress=lambda _sent, _total: None)
    print(time.perf_counter() - begun, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
