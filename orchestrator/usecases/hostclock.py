"""A run's moments by our clock: its host's may be off by days, and what is shown beside them, how
long it has been running and how long ago it ended, is measured by ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from orchestrator import lawful
from orchestrator.clock import iso, parse_iso, seconds_between
from orchestrator.domain import Run
from orchestrator.ledger.store import Ledger

SKEW_MAX = 60.0  # seconds that a clock may be off without a word


def ours(
    ledger: Ledger, run: Run, status: Mapping[str, Any], at: str, *told: str | None
) -> list[str | None]:
    """The moments `told` in the host's status, which was heard `at`.

    Those that lie between the run's creation, or its resume, and now are taken as they are: an
    answer may have been on its way for hours, to a laptop that slept, and tells nothing of the
    host's clock then. If one cannot be, that clock is off, by what it showed at the answer.
    """
    there = lawful.moment(status.get("host_time"))
    resumed = [each.at for each in ledger.events(run.run_id) if each.kind == "resuming"]
    first = max([run.created_at, *resumed])
    least, most = _later(first, -SKEW_MAX), _later(at, SKEW_MAX)
    if there is None or all(each is None or least <= each <= most for each in told):
        return list(told)
    ahead = seconds_between(at, there)
    return [each and min(max(_later(each, -ahead), first), at) for each in told]


def _later(moment: str, seconds: float) -> str:
    try:
        return iso(parse_iso(moment) + timedelta(seconds=seconds))
    except OverflowError:
        return moment
