"""Following a run: its log by byte offset, over as many connections as it takes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestrator.background import Background
from orchestrator.domain import Host, Run, RunState, Verdict
from orchestrator.errors import FrameGarbled, NotFinished, NotFound, TransportError
from orchestrator.ledger.store import Ledger
from orchestrator.retry import is_lost_link
from orchestrator.transport.base import STREAM_DEADLINE, Agent, End
from orchestrator.transport.replies import offset, run_status
from orchestrator.usecases import silence
from orchestrator.usecases.asking import UNSETTLED, meet
from orchestrator.usecases.context import Context
from orchestrator.usecases.link import Moved, persistently, unmoved
from orchestrator.usecases.resume import is_due, resume_if_due
from orchestrator.usecases.settle import settle
from remote import wire

LOOK_EVERY = 2.0  # seconds between two looks at how far a run has got that is waited for


class Sink(Protocol):
    """Where a log goes."""

    def log(self, data: bytes) -> None: ...

    def marker(self, text: str) -> None:
        """Something to be seen between two pieces of the log: a gap that cannot be closed."""

    def progress(self, record: dict[str, Any]) -> None: ...

    def notice(self, text: str) -> None: ...

    def look(self) -> None:
        """BrokenPipeError when nobody reads it any more; asked while there is nothing to show."""


@dataclass(slots=True)
class Cursor:
    """How far a log has been read: enough to go on without a gap or a repeat."""

    offset: int = 0
    lines: int | None = None  # on the first request only: begin at the last N lines
    raw: bool = False  # of these lines also what a progress bar has overwritten
    file: list[int] | None = None  # the host's identity of the file the offset belongs to
    moved: bool = field(default=False)

    def request(self, run_id: str, follow: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"run_id": run_id, "follow": follow, "offset": self.offset}
        if self.lines is not None and not self.moved:
            body.update(lines=self.lines, raw=self.raw)
        if self.file is not None:
            body["file"] = self.file
        return body

    def learn(self, item: dict[str, Any], begin: int | None) -> None:
        """The host says which file the offset belongs to, and where in it the log goes on."""
        if isinstance(item.get("file"), list):
            self.file = item["file"]
            if begin is not None:
                self.offset = begin
                self.moved = True


def follow(
    ctx: Context,
    ledger: Ledger,
    run: Run,
    sink: Sink,
    *,
    cursor: Cursor,
    live: bool,
    agent: Agent | None = None,
) -> Run:
    """The log from the cursor on, to the run's end when `live`; the run as it is known then.

    A lost link is taken up where it broke. The end of the run is never concluded from the end of a
    stream, only from the host's word; a run that reached no host is answered from the ledger.
    """
    if run.reached_no_host and agent is None:
        sink.notice(f"{run.run_id} never started; it has no log")
        return run
    host = ctx.host_of(run)

    def work(agent: Agent, moved: Moved) -> Run:
        nonlocal run
        while True:
            if run.state in UNSETTLED:
                run = meet(ctx, ledger, run, agent)
            known = _once(ctx, ledger, run, agent, sink, cursor, live, moved)
            if not live or not is_due(known):
                return known
            run = resume_if_due(ctx, ledger, known)
            if not run.state.is_open:
                return run
            moved()

    with silence.of(ctx, ledger, run, "its log was not read to its end"):
        if live:
            return persistently(ctx, host, work, sink.notice, agent=agent)
        with agent or ctx.connect(host) as line:
            return work(line, unmoved)


def _once(
    ctx: Context,
    ledger: Ledger,
    run: Run,
    agent: Agent,
    sink: Sink,
    cursor: Cursor,
    live: bool,
    moved: Moved,
) -> Run:
    body = cursor.request(run.run_id, live)
    for frame in agent.exchange("stream", body, deadline=STREAM_DEADLINE, look=sink.look):
        if isinstance(frame, End):
            if frame.body.get("phase") == "absent":
                known = _absent(ctx, ledger, run, frame.body)
            else:
                known = settle(ledger, ledger.get(run.run_id), frame.body, ctx.now())
            if cursor.file is None:
                tell_gone(known, frame.body, sink.notice)
            return known
        if frame.kind == wire.DATA:
            cursor.offset += len(frame.payload)
            cursor.moved = True
            sink.log(frame.payload)
            moved()
        else:
            moved(False)
            _item(ctx, ledger, run, frame.json(), sink, cursor)
    raise AssertionError("exchange ends with End or raises")


def tell_gone(run: Run, status: dict[str, Any], notice: Callable[[str], None]) -> None:
    """Of a run that has ended and showed no log: what became of it. One that never started had
    none."""
    if run.state is RunState.FINISHED and run.verdict is not Verdict.NEVER_STARTED:
        what = "folder" if status.get("phase") == "absent" else "log"
        notice(f"{run.run_id}: its {what} is gone from {run.host}, there is no log to show")


def _absent(ctx: Context, ledger: Ledger, run: Run, status: dict[str, Any]) -> Run:
    known = settle(ledger, ledger.get(run.run_id), status, ctx.now())
    if known.state is RunState.FINISHED:
        return known
    if known.state in UNSETTLED:
        raise NotFound(
            f"{run.run_id}: {run.host} has no such run yet; its submit is still going on",
            hint="try again when it is through",
        )
    raise NotFound(
        f"{run.run_id}: {run.host} has no such run; the ledger says {known.state.value}",
        hint=f"`orch reconcile {run.run_id}` settles it",
    )


def _item(ctx: Context, ledger: Ledger, run: Run, item: Any, sink: Sink, cursor: Cursor) -> None:
    if not isinstance(item, dict):
        return
    cursor.learn(item, offset(item.get("offset")))
    if "marker" in item:
        sink.marker(str(item["marker"])[:200])
    _tell_progress(item, sink.progress)
    if isinstance(item.get("status"), dict):
        settle_open(ctx, ledger, run, item["status"])


def settle_open(ctx: Context, ledger: Ledger, run: Run, status: dict[str, Any]) -> None:
    """A status in the middle of a stream; the end is written when the stream has ended."""
    try:
        phase = run_status(status, run.run_id)["phase"]
    except FrameGarbled:
        return  # by the way; the log is what was asked for
    if phase not in ("finished", "absent"):
        settle(ledger, ledger.get(run.run_id), status, ctx.now())


def _tell_progress(item: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> None:
    text = item.get("progress")
    record = _record(text) if isinstance(text, str) else None
    if record is not None:
        show(record)


def _record(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def wait(
    ctx: Context,
    ledger: Ledger,
    run: Run,
    timeout: float | None,
    notice: Callable[[str], None],
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> Run:
    """The finished run; NotFinished after `timeout` seconds. A lost link does not end the wait.

    `progress` is shown the newest record of the run's metrics.jsonl every few seconds.
    """
    if run.state is RunState.FINISHED:
        return run
    end = None if timeout is None else ctx.clock.monotonic() + timeout

    def work(agent: Agent, moved: Moved) -> Run:
        nonlocal run
        if run.state in UNSETTLED:
            run = meet(ctx, ledger, run, agent)
        while True:
            asked = ctx.clock.monotonic()
            left = math.inf if end is None else max(0.0, end - asked)
            pause = left if progress is None else min(LOOK_EVERY, left)
            body = {"run_id": run.run_id, "timeout": None if math.isinf(pause) else pause}
            status = agent.call(
                "wait",
                body,
                deadline=STREAM_DEADLINE,
                within=pause + STREAM_DEADLINE,
                on_beat=lambda: moved(False),
            )
            if status.get("phase") == "absent":
                return _absent(ctx, ledger, run, status)
            known = settle(ledger, ledger.get(run.run_id), status, ctx.now())
            known = resume_if_due(ctx, ledger, known)
            if known.state is RunState.FINISHED:
                return known
            if end is not None and ctx.clock.monotonic() >= end:
                raise _not_finished(known, timeout)
            if progress is not None:
                moved(False)
                _look(agent, run, progress)
            # A host answers when the run has ended or the time is up. One that has answered before
            # (it cannot read how the run ended) would else be asked without a pause.
            time.sleep(max(0.0, asked + min(pause, LOOK_EVERY) - ctx.clock.monotonic()))

    host = ctx.host_of(run)
    with silence.of(ctx, ledger, run, "how it ends was not learnt"):
        first = None if timeout is None else _connected_within(ctx, host, run, timeout)
        try:
            return persistently(ctx, host, work, notice, agent=first, until=end)
        except TransportError as exc:
            in_time = timeout is None or end is None or ctx.clock.monotonic() < end
            if in_time or not is_lost_link(exc):
                raise
            raise _unheard(run, timeout or 0.0) from None


def _look(agent: Agent, run: Run, show: Callable[[dict[str, Any]], None]) -> None:
    found: list[Any] = []
    agent.call("glance", {"run_ids": [run.run_id]}, items=1, on_item=found.append)
    for item in found:
        if isinstance(item, dict):
            _tell_progress(item, show)


def _connected_within(ctx: Context, host: Host, run: Run, seconds: float) -> Agent:
    """NotFinished where that takes longer: a host that freezes takes 20 s to be given up."""
    connecting = Background(lambda: ctx.connect(host))
    if connecting.is_done_within(seconds):
        return connecting.result()
    connecting.discard(lambda agent: agent.close())
    raise _unheard(run, seconds)


def _unheard(run: Run, seconds: float) -> NotFinished:
    return NotFinished(
        f"{run.run_id} was {run.state.value} when {run.host} was last heard of; it did not answer "
        f"within {seconds:g} s",
        hint=f"`orch wait {run.run_id}` without `--timeout`, or with a longer one, tells more",
    )


def _not_finished(run: Run, timeout: float | None) -> NotFinished:
    return NotFinished(
        f"{run.run_id} is {run.state.value} on {run.host}; it did not end within {timeout:g} s",
        hint=f"it goes on; `orch tail {run.run_id}` shows its log",
    )
