"""Ask the hosts what really happened, one round trip a host, and write down what they can prove."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestrator import inflight
from orchestrator.background import Background
from orchestrator.domain import Host, Run, RunState
from orchestrator.errors import HostFailed, HostUnfit, OrchError, TransportError
from orchestrator.ledger.store import Ledger
from orchestrator.recorded import Hearsay, hearsay_of
from orchestrator.transport.base import CALL_DEADLINE, Agent
from orchestrator.transport.replies import only_status, run_statuses
from orchestrator.usecases.context import Context
from orchestrator.usecases.settle import is_news, settle
from orchestrator.wording import without_name

ANSWER_WITHIN = 6.0  # seconds a command that only shows runs waits for their hosts
UNREACHABLE = "host unreachable"
GONE = "its host has neither its directory nor a process of it"
UNSETTLED = (RunState.INTENT, RunState.SYNCED, RunState.UNKNOWN)


def question(ctx: Context, runs: Sequence[Run]) -> dict[str, Any]:
    """The request for the runs' states.

    A run whose start is open, while the command that was to start it is gone, is closed by the host
    if it has not started: then no request still on its way can start it.
    """
    return {
        "run_ids": [run.run_id for run in runs],
        "close": [_closing(run) for run in runs if _is_orphan(ctx, run)],
    }


def _is_orphan(ctx: Context, run: Run) -> bool:
    return run.state in UNSETTLED and not inflight.is_held(ctx.layout.inflight(run.run_id))


def _closing(run: Run) -> dict[str, Any]:
    what = "it" if run.attempt == 1 else f"attempt {run.attempt}"
    reason = f"the command that was to start {what} ended before it had reached the host"
    told = {"run_id": run.run_id, "attempt": run.attempt}
    return {**told, "verdict": "never_started", "reason": reason}


def meet(ctx: Context, ledger: Ledger, run: Run, agent: Agent) -> Run:
    """The run by its host's latest word; raises when the host is silent."""
    found = statuses(agent, question(ctx, [run]))
    return settle(ledger, run, only_status(found, run.run_id), ctx.now())


def statuses(
    agent: Agent, body: Mapping[str, Any], deadline: float = CALL_DEADLINE
) -> list[dict[str, Any]]:
    """What the host says of each of the `run_ids`; more of them may take it longer."""
    found: list[Any] = []
    count = len(body["run_ids"])
    agent.call(
        "status",
        body,
        deadline=deadline,
        within=deadline + count,
        items=count,
        on_item=found.append,
    )
    return run_statuses(found, body["run_ids"])


def refresh_quietly(
    ctx: Context,
    ledger: Ledger,
    runs: Sequence[Run],
    silent: Callable[[str, str], None],
    *,
    within: float = ANSWER_WITHIN,
) -> list[Run]:
    """The runs, open ones by their hosts' latest word. A host that does not answer `within` seconds
    changes nothing: `silent(host, why)` is told and what was last known stays."""
    known = {run.run_id: run for run in runs}

    def unread(host: str, exc: OrchError) -> None:
        silent(host, without_name(host, exc.message))

    groups = by_host(ctx, filter(_is_open, runs), unread)
    asked = {host: Background(_asking(ctx, host, group)) for host, group in groups.items()}
    end = ctx.clock.monotonic() + within
    for host, answer in asked.items():
        if not answer.is_done_within(end - ctx.clock.monotonic()):
            silent(host.name, f"{UNREACHABLE}: no answer within {within:g} s")
            continue
        try:
            statuses = answer.result()
        except OrchError as exc:
            answered = (HostFailed, HostUnfit)
            unreachable = isinstance(exc, TransportError) and not isinstance(exc, answered)
            silent(host.name, UNREACHABLE if unreachable else _refusal(host, exc))
            continue
        _write_down(ctx, ledger, known, statuses)
        for run_id in vanished(known.values(), statuses):
            ctx.say(f"{run_id}: {host.name} has its directory no more; `orch reconcile` settles it")
    return [known[run.run_id] for run in runs]


def _refusal(host: Host, exc: OrchError) -> str:
    """Why a host was not asked, and what to do, in one line behind its name."""
    told = without_name(host.name, exc.message)
    return f"{told} ({exc.hint})" if exc.hint else told


def _asking(ctx: Context, host: Host, runs: Sequence[Run]) -> Callable[[], list[dict[str, Any]]]:
    body = question(ctx, runs)

    def ask() -> list[dict[str, Any]]:
        with ctx.connect(host) as agent:
            return statuses(agent, body)

    return ask


def _write_down(
    ctx: Context, ledger: Ledger, known: dict[str, Run], statuses: Iterable[dict[str, Any]]
) -> None:
    """What is new of each run; that the others were seen costs one write in all."""
    seen: list[str] = []
    for status in statuses:
        run = known.get(status["run_id"])
        if run is None:
            continue
        if is_news(run, status):
            known[run.run_id] = settle(ledger, run, status, ctx.now())
        else:
            seen.append(run.run_id)
    if seen:
        ledger.seen_all(seen, ctx.now())
        known.update({run_id: ledger.get(run_id) for run_id in seen})


def vanished(runs: Iterable[Run], statuses: Iterable[Mapping[str, Any]]) -> list[str]:
    """The runs that were seen on their host, which now has no directory of them."""
    seen = {run.run_id for run in runs if run.state in (RunState.QUEUED, RunState.RUNNING)}
    return [
        each["run_id"] for each in statuses if each["phase"] == "absent" and each["run_id"] in seen
    ]


def by_host(
    ctx: Context, runs: Iterable[Run], silent: Callable[[str, OrchError], None]
) -> dict[Host, list[Run]]:
    """Runs by the host they are on, as their project describes it today.

    Those whose project cannot be read are left out, and `silent(host, why)` is told.
    """
    groups: dict[Host, list[Run]] = {}
    described: dict[tuple[str, str, Hearsay | None], Host | None] = {}
    for run in runs:
        key = (run.project, run.host, hearsay_of(run.spec))
        if key not in described:
            try:
                described[key] = ctx.described_host_of(run)
            except OrchError as exc:
                described[key] = None
                silent(run.host, exc)
        host = described[key]
        if host is not None:
            groups.setdefault(host, []).append(run)
    return groups


def _is_open(run: Run) -> bool:
    return run.state.is_open
