"""Following many runs at once: one connection and one channel a host, whatever their number."""

from __future__ import annotations

import functools
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.domain import Host, Run, RunState
from orchestrator.errors import FrameGarbled, NotFound, OrchError
from orchestrator.ledger.store import Ledger
from orchestrator.transport.base import STREAM_DEADLINE, Agent, End
from orchestrator.transport.connect import check_name
from orchestrator.transport.replies import offset
from orchestrator.usecases.asking import by_host, refresh_quietly
from orchestrator.usecases.context import Context
from orchestrator.usecases.follow import Cursor, settle_open, tell_gone
from orchestrator.usecases.link import Moved, persistently, unmoved
from orchestrator.usecases.settle import settle
from remote import wire

WAITING = 16  # pieces of logs that may wait to be shown: a slow terminal slows the hosts down


class ManySink(Protocol):
    """Where the logs go; `run_id` says whose a piece is."""

    def log(self, run_id: str, data: bytes) -> None: ...

    def marker(self, run_id: str, text: str) -> None: ...

    def ended(self, run: Run) -> None: ...

    def notice(self, text: str) -> None: ...

    def look(self) -> None:
        """BrokenPipeError when nobody reads it any more; asked while there is nothing to show."""


@dataclass(slots=True)
class _Follower:
    """The runs of one host; works on a thread of its own and tells by `tell`."""

    ctx: Context
    host: Host
    live: bool
    tell: Callable[[str, str, Any], None]  # (what, run id or "", value)
    cursors: dict[str, Cursor]
    ended: set[str] = field(default_factory=set)

    def work(self) -> None:
        try:
            check_name(self.host, self.ctx.env)
            self._work()
        except OrchError as exc:
            unread = [run_id for run_id in self.cursors if run_id not in self.ended]
            exc.message += f"; not read to the end: {', '.join(unread)}"
            self.tell("failed", "", exc)
        except Exception as exc:  # must not end in silence: the others would be waited for
            self.tell("failed", "", FrameGarbled(f"{self.host.name}: {type(exc).__name__}: {exc}"))
        else:
            self.tell("through", "", None)

    def _work(self) -> None:
        if self.live:
            told = functools.partial(self.tell, "notice", "")
            persistently(self.ctx, self.host, self._once, told)
            return
        with self.ctx.connect(self.host) as agent:
            self._once(agent, unmoved)

    def _once(self, agent: Agent, moved: Moved) -> None:
        ids = [run_id for run_id in self.cursors if run_id not in self.ended]
        asked = [self.cursors[run_id].request(run_id, self.live) for run_id in ids]
        whose: str | None = None
        body = {"runs": asked, "follow": self.live}
        for frame in agent.exchange("streams", body, deadline=STREAM_DEADLINE):
            if isinstance(frame, End):
                if frame.body.get("detached") is not False or not self.ended.issuperset(ids):
                    raise FrameGarbled(f"{self.host.name} ended before the runs did")
                return
            if frame.kind == wire.DATA:
                if whose is None:
                    raise FrameGarbled(f"{self.host.name} sent a log and not whose it is")
                self.cursors[whose].offset += len(frame.payload)
                self.cursors[whose].moved = True
                self.tell("log", whose, frame.payload)
                moved()
                continue
            item = frame.json()
            moved(isinstance(item, dict) and "ended" in item)
            if isinstance(item, dict):
                whose = self._item(ids, whose, item)

    def _item(self, ids: Sequence[str], whose: str | None, item: dict[str, Any]) -> str | None:
        number = item.get("run")
        if number is not None:
            if not isinstance(number, int) or number not in range(len(ids)):
                raise FrameGarbled(f"{self.host.name} sent a log of no run that was asked for")
            return ids[number]
        if whose is None:
            return None
        self.cursors[whose].learn(item, offset(item.get("offset")))
        if "marker" in item:
            self.tell("marker", whose, str(item["marker"])[:200])
        if isinstance(item.get("status"), dict):
            self.tell("status", whose, item["status"])
        if isinstance(item.get("ended"), dict):
            self.ended.add(whose)
            self.tell("ended", whose, item["ended"])
            if self.cursors[whose].file is None:
                self.tell("no log", whose, item["ended"])
        return whose


def follow_many(
    ctx: Context, ledger: Ledger, runs: Sequence[Run], sink: ManySink, *, lines: int | None,
    live: bool, raw: bool,
) -> list[Run]:  # fmt: skip
    """The logs of all of them, to the end of each when `live`; the runs as they are known then.

    A host that cannot be reached at all is told of at the end, after the others' runs are through.
    """

    def silent(host: str, why: str) -> None:
        sink.notice(f"{host}: {why}")

    met = {run.run_id: run for run in refresh_quietly(ctx, ledger, runs, silent)}
    waiting: queue.Queue[tuple[str, str, Any]] = queue.Queue(WAITING)
    for run in filter(lambda each: each.reached_no_host, met.values()):
        sink.ended(run)
    asked = [run for run in met.values() if not run.reached_no_host]
    groups = by_host(ctx, asked, lambda host, exc: silent(host, exc.message))
    for host, group in groups.items():
        cursors = {run.run_id: Cursor(lines=lines, raw=raw) for run in group}
        follower = _Follower(
            ctx, host, live, lambda what, whose, value: waiting.put((what, whose, value)), cursors
        )
        threading.Thread(target=follower.work, daemon=True).start()
    failures: list[OrchError] = []
    left = len(groups)
    while left:
        what, whose, value = _next(waiting, sink)
        if what in ("through", "failed"):
            left -= 1
            failures += [value] if what == "failed" else []
        else:
            _take(ctx, ledger, met, sink, what, whose, value)
    for failure in failures[1:]:
        sink.notice(failure.message)
    if failures:
        raise failures[0]
    return [met[run.run_id] for run in runs]


def _next(waiting: queue.Queue[tuple[str, str, Any]], sink: ManySink) -> tuple[str, str, Any]:
    while True:
        try:
            return waiting.get(timeout=1.0)  # in steps: Ctrl-C must come through
        except queue.Empty:
            sink.look()


def _take(
    ctx: Context, ledger: Ledger, met: dict[str, Run], sink: ManySink, what: str, whose: str,
    value: Any,
) -> None:  # fmt: skip
    if what == "log":
        sink.log(whose, value)
    elif what == "marker":
        sink.marker(whose, value)
    elif what == "notice":
        sink.notice(value)
    elif what == "status":
        settle_open(ctx, ledger, met[whose], value)
    elif what == "no log":
        tell_gone(met[whose], value, sink.notice)
    elif what == "ended":
        met[whose] = settle(ledger, ledger.get(whose), value, ctx.now())
        if value.get("phase") == "absent" and met[whose].state is not RunState.FINISHED:
            raise NotFound(
                f"{whose}: {met[whose].host} has no such run",
                hint=f"`orch reconcile {whose}` settles it",
            )
        sink.ended(met[whose])
