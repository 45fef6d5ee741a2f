"""What goes on now: open runs and GPUs on all hosts at once, one exchange a host and look."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator import lawful
from orchestrator.background import Background
from orchestrator.clock import seconds_between
from orchestrator.domain import Host, Run
from orchestrator.errors import LedgerError, OrchError, TransportError
from orchestrator.ledger.store import Ledger
from orchestrator.transport.base import Agent
from orchestrator.transport.connect import check_name
from orchestrator.transport.replies import run_statuses, unlawful
from orchestrator.usecases.asking import by_host, question
from orchestrator.usecases.context import Context
from orchestrator.usecases.hosts import named_hosts
from orchestrator.usecases.settle import settle

ANSWER_WITHIN = 15.0  # seconds; nvidia-smi alone is given five for each of two questions
ENDED_WITHIN = 12 * 3600.0  # seconds for which a run that ended stays in sight
CARDS_MAX = 64
PROCESSES_MAX = 200
NAME_MAX = 200


@dataclass(frozen=True, slots=True)
class Process:
    """A process that computes on a GPU. `run_id`: the run of this user's that it belongs to."""

    pid: int
    user: str | None
    name: str
    memory: int | None  # bytes
    run_id: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The run that holds a GPU; `known`: it is in this ledger. `run_id` None: it cannot be told."""

    run_id: str | None
    job: str | None
    project: str | None
    known: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU: memory in bytes, utilisation in per cent; None is what nvidia-smi does not tell."""

    index: int
    uuid: str
    name: str
    memory_used: int | None
    memory_total: int | None
    utilization: int | None
    lease: Lease | None
    processes: tuple[Process, ...] = ()

    @property
    def foreign(self) -> list[Process]:
        """Those that are not the leasing run's."""
        mine = self.lease.run_id if self.lease else None
        return [each for each in self.processes if each.run_id is None or each.run_id != mine]


@dataclass(slots=True)
class Place:
    """One host: its GPUs by its latest answer. `error` says why there is none to the last look."""

    host: Host
    cards: list[Card] | None = None  # None: not known
    cards_error: str | None = None
    error: OrchError | None = None
    answered_at: str | None = None


@dataclass(frozen=True, slots=True)
class Glimpse:
    """A run's last words: the newest record of its metrics.jsonl, the last line of its log."""

    progress: Mapping[str, Any] = field(default_factory=dict)
    line: str | None = None


class _Line:
    """One host's connection, kept from look to look; at most one question is under way."""

    def __init__(self, ctx: Context, host: Host, named: bool) -> None:
        self._ctx = ctx
        self._named = named
        self.place = Place(host)
        self._agent: Agent | None = None
        self.asking: Background[dict[str, Any]] | None = None
        self.asked: Sequence[str] = ()  # the runs the question under way is about

    def ask(self, body: Mapping[str, Any]) -> None:
        def work() -> dict[str, Any]:
            try:
                if self._agent is None:
                    if self._named:
                        check_name(self.place.host, self._ctx.env)
                    self._agent = self._ctx.connect(self.place.host)
                return _glance(self._agent, body)
            except BaseException:
                self.close()
                raise

        self.asked = body.get("run_ids", ())
        self.asking = Background(work)

    def close(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None


def _glance(agent: Agent, body: Mapping[str, Any]) -> dict[str, Any]:
    """The host's reply, with its items as `runs`."""
    found: list[Any] = []
    count = len(body.get("run_ids", ()))
    reply = agent.call("glance", body, deadline=ANSWER_WITHIN, items=count, on_item=found.append)
    return {**reply, "runs": found}


class Board:
    """`look` once, or `ask` and `hear` again and again. What a silent host said last stays.

    `named` hosts only, when there are any; else all that somebody named, and those of open runs.
    """

    def __init__(self, ctx: Context, named: Sequence[str], *, runs: bool = True) -> None:
        self._ctx = ctx
        self._named = [ctx.host(name) for name in named]
        self._with_runs = runs
        self._lines: dict[Host, _Line] = {}
        self.runs: list[Run] = []
        self.ended: list[Run] = []
        self.glimpses: dict[str, Glimpse] = {}
        self.notes: dict[str, str] = {}  # of what could not be done
        self._read(ask=False)
        for host in self._named or named_hosts(ctx):
            self._line(host)

    @property
    def places(self) -> list[Place]:
        return [line.place for line in self._lines.values()]

    @property
    def errors(self) -> list[OrchError]:
        """Why hosts are silent that somebody named; without names, only when all are silent."""
        errors = [place.error for place in self.places if place.error is not None]
        return errors if self._named or len(errors) == len(self.places) else []

    def _line(self, host: Host) -> _Line:
        return self._lines.setdefault(host, _Line(self._ctx, host, host in self._named))

    def ask(self) -> None:
        """A question is under way to every host that does not owe an answer."""
        self._read(ask=True)

    def _read(self, ask: bool) -> None:
        with self._ctx.ledger(readonly=True) as ledger:
            self.runs = self._of_hosts(ledger.runs(open_only=True))
            self.ended = self._of_hosts(self._recent(ledger)) if self._with_runs else []
        groups = by_host(self._ctx, self.runs, self._unread)
        for host in groups:
            self._line(host)
        for host, line in self._lines.items() if ask else ():
            if line.asking is None:
                body = question(self._ctx, groups.get(host, [])) if self._with_runs else {}
                line.ask({**body, "gpus": True})

    def _unread(self, host: str, why: OrchError) -> None:
        self.notes[host] = why.message

    def _of_hosts(self, runs: list[Run]) -> list[Run]:
        names = {host.name for host in self._named}
        return [run for run in runs if not names or run.host in names]

    def _recent(self, ledger: Ledger) -> list[Run]:
        now = self._ctx.now()
        recent = []
        for run in ledger.runs(limit=200):
            if run.ended_at and seconds_between(run.ended_at, now) <= ENDED_WITHIN:
                recent.append(run)
        return sorted(recent, key=lambda run: run.ended_at or "", reverse=True)

    def is_quiet(self) -> bool:
        return all(line.asking is None for line in self._lines.values())

    def hear(self, within: float) -> bool:
        """Take in what was answered, waiting `within` seconds at most for the first that is due."""
        heard = False
        for line in self._lines.values():
            if line.asking is not None and line.asking.is_done_within(0.0 if heard else within):
                self._take(line, line.asking)
                line.asking = None
                heard = True
        return heard

    def look(self) -> None:
        """One look at every host, in parallel; those that do not answer in time are silent."""
        self.ask()
        clock = self._ctx.clock
        end = clock.monotonic() + ANSWER_WITHIN
        while not self.is_quiet() and clock.monotonic() < end:
            self.hear(0.1)
        for line in self._lines.values():
            if line.asking is not None:
                told = f"{line.place.host.name}: no answer within {ANSWER_WITHIN:g} s"
                line.place.error = TransportError(told)

    def _take(self, line: _Line, answer: Background[dict[str, Any]]) -> None:
        place = line.place
        try:
            reply = answer.result()
            place.cards, place.cards_error = self._cards(reply)
            statuses = run_statuses(reply["runs"], line.asked)
        except OrchError as exc:
            place.error = exc
            return
        place.error, place.answered_at = None, self._ctx.now()
        if statuses:
            self._settle(statuses)

    def _settle(self, statuses: Sequence[dict[str, Any]]) -> None:
        for status in statuses:
            told = status.get("line")
            progress = _record(status.get("progress"))
            self.glimpses[status["run_id"]] = Glimpse(
                progress, told[:400] if isinstance(told, str) else None
            )
        try:
            with self._ctx.ledger() as ledger:
                for status in statuses:
                    run = ledger.find(status["run_id"])
                    if run is not None:
                        settle(ledger, run, status, self._ctx.now())
        except LedgerError as exc:
            self.notes["ledger"] = exc.message
            return
        self._read(ask=False)

    def _cards(self, reply: Mapping[str, Any]) -> tuple[list[Card] | None, str | None]:
        why, told = reply.get("cards_error"), reply.get("cards")
        if isinstance(why, str):
            return None, why[:400]
        if not isinstance(told, list):
            raise unlawful("no list of GPUs")
        try:
            cards = [card_of(item) for item in told[:CARDS_MAX]]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise unlawful("a GPU that is none") from None
        known = {run.run_id for run in self.runs}
        return [_marked(card, known) for card in cards], None


# --- a host's words, taken apart with care --------------------------------------------------------


def card_of(item: Mapping[str, Any]) -> Card:
    return Card(
        index=int(item["number"]),
        uuid=str(item["uuid"])[:100],
        name=str(item["name"])[:100],
        memory_used=_bytes(item.get("used")),
        memory_total=_bytes(item.get("total")),
        utilization=lawful.count(item.get("utilization")),
        lease=_lease(item["lease"]),
        processes=tuple(_process(each) for each in item["processes"][:PROCESSES_MAX]),
    )


def _lease(item: Mapping[str, Any] | None) -> Lease | None:
    if item is None:
        return None
    run_id, job, project = (
        lawful.text(item.get(key), NAME_MAX) for key in ("run_id", "job", "project")
    )
    return Lease(run_id, job, project)


def _process(item: Mapping[str, Any]) -> Process:
    return Process(
        pid=int(item["pid"]),
        user=lawful.text(item.get("user"), NAME_MAX),
        name=str(item["name"])[:NAME_MAX],
        memory=_bytes(item.get("memory")),
        run_id=lawful.text(item.get("run_id"), NAME_MAX),
    )


def _marked(card: Card, known: set[str]) -> Card:
    if card.lease is None or card.lease.run_id not in known:
        return card
    return replace(card, lease=replace(card.lease, known=True))


def _record(text: Any) -> Mapping[str, Any]:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _bytes(value: Any) -> int | None:
    return lawful.count(value, 2**63)
