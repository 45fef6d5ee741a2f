"""The local record of runs and their timelines; `orch ledger rebuild` can make it anew."""

from __future__ import annotations

from orchestrator.ledger.store import Ledger

__all__ = ["Ledger"]
