"""What the error of a host that gave no answer says of the run that was asked about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.clock import age_words
from orchestrator.domain import Run, RunState
from orchestrator.errors import TransportError, TrustError
from orchestrator.ledger.store import Ledger
from orchestrator.runtext import age, status_words
from orchestrator.usecases.context import Context


@contextmanager
def of(
    ctx: Context, ledger: Ledger, run: Run, undone: str, told: set[str] | None = None
) -> Iterator[None]:
    """An error of the run's host within, that does not name the run, also says what is `undone` and
    how the run was when it was last heard of. `told`: what was said of hosts before, and need not
    be said again."""
    try:
        yield
    except (TransportError, TrustError) as exc:
        if run.run_id not in exc.message:
            known, said = last_known(ctx, ledger, run), exc.message
            exc.message = f"{said}; {undone}; {known}"
            if told is not None and said in told:
                exc.message, exc.hint = f"{run.host} as before: {undone}; {known}", None
            elif told is not None:
                told.add(said)
        raise


def last_known(ctx: Context, ledger: Ledger, run: Run) -> str:
    """`RUN was running when last heard of, 5 min ago`; of one that has ended: how."""
    known = ledger.find(run.run_id) or run
    if known.state is RunState.FINISHED:
        return f"{run.run_id} has ended: {status_words(known)}"
    if known.last_seen_at is None:
        return f"{run.run_id} is {status_words(known)} here, its host has told nothing of it yet"
    heard = age_words(age(known.last_seen_at, ctx.clock.now()))
    return f"{run.run_id} was {status_words(known)} when last heard of, {heard}"
