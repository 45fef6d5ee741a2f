"""Reading the ledger: many runs, one run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.domain import Run
from orchestrator.errors import LedgerError
from orchestrator.ledger.store import Ledger
from orchestrator.names import did_you_mean
from orchestrator.usecases.context import Context

if TYPE_CHECKING:
    from orchestrator.selection import Selection

SHOWN = 50


@dataclass(frozen=True, slots=True)
class Listing:
    runs: list[Run]
    total: int
    silent: frozenset[str] = frozenset()  # names of hosts that were asked and did not answer
    elsewhere: int = 0  # runs of other projects, counted when this one has none


def listing(
    ctx: Context,
    *,
    job: str | None,
    everywhere: bool,
    limit: int,
    chosen: Selection | None = None,
) -> Listing:
    """The first `limit` runs (0: all) of those chosen, newest first unless they are sorted.

    Open ones are shown, and chosen, by their hosts' latest word if there is one.
    """
    project = None if everywhere else ctx.project_or_none()
    scope = str(project) if project else None
    with ctx.ledger(readonly=True) as ledger:
        most = limit or None if chosen is None else None
        runs = ledger.runs(project=scope, job=job, limit=most)
        total = ledger.count(scope, job) if limit and len(runs) == limit else len(runs)
        if not runs and scope:
            return Listing([], 0, elsewhere=ledger.count(None, job))
    told: dict[str, str] = {}
    runs = met(ctx, runs, told)
    silent = frozenset(host for host, why in told.items() if is_unreachable(why))
    if chosen is not None:
        found = chosen.apply(runs)
        return Listing(found[: limit or None], len(found), silent)
    return Listing(runs, total, silent)


def strangers(
    ctx: Context, jobs: Sequence[str], hosts: Sequence[str], runs: Sequence[Run], everywhere: bool
) -> list[str]:
    """A sentence for each name asked for that no job, host or run here has: it may be a mistake.

    `runs` are those that were found: their names need no looking up.
    """
    jobs = [name for name in dict.fromkeys(jobs) if all(run.job != name for run in runs)]
    hosts = [name for name in dict.fromkeys(hosts) if all(run.host != name for run in runs)]
    if not jobs and not hosts:
        return []
    from orchestrator.spec import job_names
    from orchestrator.usecases.hosts import known_hosts

    project = ctx.project_or_none()
    with ctx.ledger(readonly=True) as ledger:
        recorded = ledger.runs(project=None if everywhere or project is None else str(project))
    told = []
    if jobs:
        known = {run.job for run in recorded}.union(job_names(project) if project else ())
        told += [_stranger("job", name, known) for name in jobs]
    if hosts:
        known = {run.host for run in recorded}.union(host.name for host, _ in known_hosts(ctx))
        told += [_stranger("host", name, known) for name in hosts]
    return [sentence for sentence in told if sentence]


def _stranger(what: str, name: str, known: Collection[str]) -> str | None:
    if name in known:
        return None
    there = f"; known are {', '.join(sorted(known)[:10])}" if known else ""
    return f"no {what} here is called `{name}`{did_you_mean(name, known) or there}"


def met(ctx: Context, runs: list[Run], told: dict[str, str] | None = None) -> list[Run]:
    """The runs, open ones by their hosts' latest word; of a silent host is said that what was last
    known is shown. `told`: silent hosts, and why each was."""
    if not any(run.state.is_open for run in runs):
        return runs
    told = {} if told is None else told
    known = refreshed(ctx, runs, told)
    for host, why in told.items():
        ctx.say(f"{host}: {why}; what was last known is shown")
    return known


def refreshed(ctx: Context, runs: list[Run], told: dict[str, str]) -> list[Run]:
    """The runs by their hosts' latest word; `told`: silent hosts, and why each was silent."""
    from orchestrator.usecases.asking import refresh_quietly

    try:
        with ctx.ledger() as ledger:
            return refresh_quietly(ctx, ledger, runs, told.__setitem__)
    except LedgerError as exc:  # read here a moment ago, so what it holds can be shown
        ctx.say(f"{exc.message}; what was last known is shown")
        return runs


def is_unreachable(why: str | None) -> bool:
    """Whether the host gave no answer; another key, or a login refused, is something else."""
    from orchestrator.usecases.asking import UNREACHABLE

    return why is not None and UNREACHABLE in why


def results_are_gone(run: Run) -> bool:
    """Whether the folder they were fetched to is not there any more; only a fetch records that."""
    return run.results_path is not None and not Path(run.results_path).is_dir()


def one(ctx: Context, ledger: Ledger, selector: str | None) -> tuple[Run, str | None]:
    """(the run by its host's latest word, why that word could not be had)."""
    run = ctx.run(ledger, selector)
    if not run.state.is_open:
        return run, None
    told: dict[str, str] = {}
    (known,) = refreshed(ctx, [run], told)
    return known, next((f"{host}: {why}" for host, why in told.items()), None)
