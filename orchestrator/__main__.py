"""`python -m orchestrator` is `orch`."""

from __future__ import annotations

from orchestrator.cli import main

main()
