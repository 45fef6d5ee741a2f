"""Ask the hosts what really happened, one round trip a host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from orchestrator.domain import Run
from orchestrator.errors import OrchError, TransportError
from orchestrator.ledger.store import Ledger
from orchestrator.transport.replies import only_status, run_statuses
from orchestrator.usecases.context import Context
from orchestrator.usecases.settle import settle


def refresh(ctx: Context, ledger: Ledger, run: Run) -> Run:
    """The run by its host's latest word; raises when the host is silent."""
    with ctx.connect(ctx.host_of(run)) as agent:
        reply = agent.call("status", {"run_ids": [run.run_id]})
    return settle(ledger, run, only_status(reply, run.run_id), ctx.now())


def refresh_quietly(
    ctx: Context, ledger: Ledger, runs: Sequence[Run], silent: Callable[[str, str], None]
) -> list[Run]:
    """The runs, open ones by their hosts' latest word. A host that does not answer changes nothing:
    `silent(host, why)` is told and what was last known stays."""
    known = {run.run_id: run for run in runs}
    for name, group in _by_host(run for run in runs if run.state.is_open).items():
        try:
            host = ctx.host_of(group[0])
            with ctx.connect(host) as agent:
                reply = agent.call("status", {"run_ids": [run.run_id for run in group]})
            statuses = run_statuses(reply)
        except OrchError as exc:
            if not isinstance(exc, TransportError):
                silent(name, exc.message)
            else:
                silent(name, "host unreachable")
            continue
        for status in statuses:
            run = known.get(status["run_id"])
            if run is not None:
                known[run.run_id] = settle(ledger, run, status, ctx.now())
    return [known[run.run_id] for run in runs]


def _by_host(runs: Iterable[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.host, []).append(run)
    return groups
