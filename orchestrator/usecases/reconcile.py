"""`orch reconcile`: the ledger and the hosts' evidence agree afterwards, in both directions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator import lawful, names
from orchestrator.background import Background
from orchestrator.domain import Fetched, Host, Run, RunState, Verdict
from orchestrator.errors import NotFound, OrchError
from orchestrator.ledger.store import Ledger
from orchestrator.paths import results_of
from orchestrator.transport.base import Agent
from orchestrator.transport.connect import check_name
from orchestrator.transport.replies import words
from orchestrator.usecases import places
from orchestrator.usecases.asking import GONE, by_host, question, statuses, vanished
from orchestrator.usecases.context import Context
from orchestrator.usecases.rebuild import found_run
from orchestrator.usecases.resume import resume_if_due
from orchestrator.usecases.settle import settle, settle_anew
from remote.wire import JOURNAL

DEADLINE = 60.0  # seconds of silence after which a host counts as unreachable
DOUBTFUL = (Verdict.LOST, Verdict.NEVER_STARTED)  # concluded from absence, so asked for again
TEXT_MAX = 200


@dataclass(frozen=True, slots=True)
class Foreign:
    """A run on a host that the ledger does not know, as its submit described it there."""

    run_id: str
    job: str | None
    project: str | None
    created_at: str | None


@dataclass(slots=True)
class HostAccount:
    """What came of one host. `error`: why it could not be asked; nothing changed then."""

    host: str
    error: OrchError | None = None
    settled: list[tuple[Run, Run]] = field(default_factory=list)  # (as it was, as it is)
    foreign: list[Foreign] = field(default_factory=list)
    taken: list[Run] = field(default_factory=list)  # foreign until now, in the ledger from now on
    vanished: list[str] = field(default_factory=list)  # ids: processes live, the directory is gone


@dataclass(frozen=True, slots=True)
class _Answer:
    statuses: list[dict[str, Any]]
    on_host: list[str]
    described: dict[str, Any]
    strange: list[dict[str, Any]]  # statuses of runs that are not recorded for this host


def reconcile(
    ctx: Context,
    ledger: Ledger,
    runs: Sequence[Run] | None,
    hosts: Sequence[Host] = (),
    *,
    take: Collection[str] | None = None,
) -> list[HostAccount]:
    """The runs named, or every open run (of `hosts`), settled by their hosts' evidence.

    Without names the hosts also tell of runs the ledger does not know (with `take`, the projects
    that are known here, they are in the ledger afterwards, as their submit described them there),
    and finished runs whose verdict was concluded from absence are asked after again. Hosts that had
    nothing left of a run are asked for that alone, if they can be reached.
    """
    accounts: list[HostAccount] = []

    def silent(name: str, why: OrchError) -> None:
        accounts.append(HostAccount(name, why))

    groups = _to_ask(ctx, ledger, runs, hosts, silent)
    asked = [
        (place, group, Background(_asking(ctx, ledger, place, group, runs is None)))
        for place, group in groups.items()
    ]
    heard: list[tuple[HostAccount, Host, _Answer]] = []
    for place, group, answer in asked:
        account = HostAccount(place.name)
        accounts.append(account)
        try:
            found = answer.result()
        except OrchError as exc:
            account.error = exc
            if not group and place not in hosts:
                accounts.remove(account)
            continue
        account.settled = _settled(ctx, ledger, group, found)
        account.vanished = vanished((run for _, run in account.settled), found.statuses)
        heard.append((account, place, found))
    # Machines with one home each tell of the other's runs, too: whose they are comes first.
    for elsewhere in (False, True) if take is not None else ():
        for account, place, found in heard:
            account.taken += _taken(ctx, ledger, place, found, take or (), elsewhere)
    for account, _, found in heard:
        account.foreign = _foreign(ledger, found)
    return accounts


def _to_ask(
    ctx: Context,
    ledger: Ledger,
    runs: Sequence[Run] | None,
    hosts: Sequence[Host],
    silent: Callable[[str, OrchError], None],
) -> dict[Host, list[Run]]:
    """Each host to ask, with the runs to ask it about; `silent` is told of one that cannot be."""
    chosen = list(runs) if runs is not None else ledger.runs(open_only=True)
    if hosts:
        named = {host.name for host in hosts}
        chosen = [run for run in chosen if run.host in named]
    groups = by_host(ctx, chosen, silent)
    for host in hosts:
        if host not in groups:
            try:
                check_name(host, ctx.env)
            except NotFound as exc:
                silent(host.name, exc)
            else:
                groups[host] = []
    gone = ledger.gone() if runs is None and not hosts else []
    for place in by_host(ctx, gone, lambda *_: None):
        groups.setdefault(place, [])
    return groups


def _asking(
    ctx: Context, ledger: Ledger, host: Host, runs: Sequence[Run], whole: bool
) -> Callable[[], _Answer]:
    body = {**question(ctx, runs), "search": True}
    recorded = ledger.on_host(host.name) if whole else {}
    doubtful = {run_id for run_id, (_, verdict) in recorded.items() if verdict in DOUBTFUL}
    known = set(recorded)

    def ask() -> _Answer:
        with ctx.connect(host) as agent:
            on_host = _listed(agent, []) if whole else ([], {})
            ids = [run_id for run_id in on_host[0] if names.is_run_id(run_id)]
            body["run_ids"] += sorted(doubtful.intersection(ids))
            found = statuses(agent, body, DEADLINE)
            strange = [run_id for run_id in ids if run_id not in known]
            if not strange:
                return _Answer(found, ids, {}, [])
            described = _listed(agent, strange)[1]
            asked = statuses(agent, {"run_ids": strange}, DEADLINE)
            return _Answer(found, ids, described, asked)

    return ask


def _listed(agent: Agent, describe: list[str]) -> tuple[list[str], dict[str, Any]]:
    described: dict[str, Any] = {}

    def take(item: Any) -> None:
        if isinstance(item, dict) and isinstance(item.get("run_id"), str):
            described[item["run_id"]] = item.get("described")

    count = len(describe)
    reply = agent.call(
        "runs",
        {"describe": describe},
        deadline=DEADLINE,
        within=DEADLINE + count,
        items=count,
        on_item=take,
    )
    return words(reply.get("run_ids")), described


def _settled(
    ctx: Context, ledger: Ledger, asked: Sequence[Run], found: _Answer
) -> list[tuple[Run, Run]]:
    """The runs before and after; those that were finished only where something changed."""
    told = []
    asked_ids = {run.run_id for run in asked}
    were_open = {run.run_id for run in asked if run.state.is_open}
    for status in found.statuses:
        before = ledger.find(status["run_id"])
        if before is None:
            continue
        # What was open when its host was asked may have ended since, as another command wrote down:
        # the answer is then older than the verdict and contradicts nothing.
        take = settle if before.run_id in were_open else settle_anew
        after = take(ledger, before, status, ctx.now())
        after = _gone(ctx, ledger, after, status)
        after = resume_if_due(ctx, ledger, after)
        if before.run_id in asked_ids or after != before:
            told.append((before, after))
    return told


def _gone(ctx: Context, ledger: Ledger, run: Run, status: dict[str, Any]) -> Run:
    """A run that was seen on its host, which has neither its directory nor a process of it now.

    Only the place where it was started can say so.
    """
    seen = run.state in (RunState.QUEUED, RunState.RUNNING)
    if not seen or status["phase"] != "absent" or status.get("living") != 0:
        return run
    if places.is_elsewhere(ledger, run, status):
        where = places.told(ledger, run, status)
        ctx.say(f"{run.run_id}: {where}; nothing was concluded. {places.hint(run)}")
        return run
    ledger.lost(run.run_id, ctx.now(), GONE, run.attempt)
    return ledger.get(run.run_id)


def _taken(
    ctx: Context,
    ledger: Ledger,
    host: Host,
    found: _Answer,
    projects: Collection[str],
    elsewhere: bool,
) -> list[Run]:
    """The foreign runs that their submit described well enough, recorded and settled: those that
    were started on the machine that answers, or `elsewhere`."""
    states = {status["run_id"]: status for status in found.strange}
    told = []
    for run_id in ledger.lacks(found.on_host):
        run = found_run(ctx, host, run_id, found.described.get(run_id), projects)
        status = states.get(run_id)
        if run is None or status is None or ("machine" in status) is not elsewhere:
            continue
        ledger.adopt(run, ctx.now(), {"host": host.name})
        settle(ledger, run, status, ctx.now())
        _find_results(ctx, ledger, run)
        told.append(ledger.get(run_id))
    return told


def _find_results(ctx: Context, ledger: Ledger, run: Run) -> None:
    """What an earlier ledger's fetch left in the project, where its journal lies with it.

    Whether it was all is not in the journal: `partial`, until the next fetch has compared.
    """
    folder = results_of(Path(run.project), run.job, run.run_id)
    if (folder / JOURNAL).is_file():
        ledger.fetched(run.run_id, ctx.now(), Fetched.PARTIAL, str(folder))


def _foreign(ledger: Ledger, found: _Answer) -> list[Foreign]:
    told = []
    for run_id in ledger.lacks(found.on_host):
        about = found.described.get(run_id)
        about = about if isinstance(about, dict) else {}
        job, project = (lawful.text(about.get(name), TEXT_MAX) for name in ("job", "project"))
        told.append(Foreign(run_id, job, project, lawful.moment(about.get("created_at"))))
    return told
