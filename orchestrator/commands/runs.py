"""Commands on runs that are there: show, cancel, fetch-results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from orchestrator.commands.arguments import Json, RunArg, RunList, RunNeeded
from orchestrator.console import context, fail_softly, tell
from orchestrator.errors import Interrupted, OrchError

if TYPE_CHECKING:
    from orchestrator.domain import Run
    from orchestrator.ledger.store import Ledger
    from orchestrator.usecases.context import Context


@fail_softly
def show(run: RunArg = None, json: Json = False) -> None:
    """One run whole; an open one is asked after on its host."""
    from orchestrator import output, render, runtext
    from orchestrator.usecases.listing import is_unreachable, one, results_are_gone

    ctx = context()
    with ctx.ledger(readonly=True) as ledger:
        known, silent = one(ctx, ledger, run)
        events = ledger.events(known.run_id)
    if silent:
        ctx.say(silent)
    if json:
        output.run_document(known, events)
    else:
        now, style, mute = ctx.clock.now(), output.STDOUT, is_unreachable(silent)
        gone = results_are_gone(known)
        render.emit(runtext.show_text(known, events, now, style, unreachable=mute, gone=gone))


@fail_softly
def cancel(run: RunNeeded, json: Json = False) -> None:
    """End a run: TERM, grace, KILL, down to the last grandchild."""
    from orchestrator import output
    from orchestrator.usecases.cancel import cancel_chosen

    ctx = context()
    with ctx.ledger_or_copy() as ledger:
        ended, already = cancel_chosen(ctx, ledger, run)
        if json:
            output.run_document(ended, ledger.events(ended.run_id))
    ctx.say(("it had ended before: " if already else "") + output.ended_line(ended))


@fail_softly
def fetch_results(runs: RunList = None, json: Json = False) -> None:
    """Pull results, verified and resumable; record the accuracy."""
    from orchestrator import output
    from orchestrator.usecases.settle import exit_code_of

    ctx = context()
    with ctx.ledger_or_copy() as ledger:
        fetched, errors = _fetch_each(ctx, ledger, list(runs) if runs else [None], json)
    if json and (fetched or not errors):
        output.runs_document(fetched)
    if errors:
        raise typer.Exit(errors[0].exit_code)
    if any(exit_code_of(known) == 7 for known in fetched):
        raise typer.Exit(7)


def _interrupted(run: Run | None) -> Interrupted:
    if run is None:
        return Interrupted("interrupted; nothing was fetched")
    return Interrupted(
        f"interrupted; what had come of {run.run_id} is kept; {run.host} is not affected",
        hint=f"`orch fetch-results {run.run_id}` goes on from there",
    )


def _fetch_each(
    ctx: Context, ledger: Ledger, selectors: Sequence[str | None], json: bool
) -> tuple[list[Run], list[OrchError]]:
    """Each run is tried once, whatever became of those before, and what came of it told at once."""
    from orchestrator import output, render, runtext
    from orchestrator.usecases import silence
    from orchestrator.usecases.fetch import fetch

    tried: set[str] = set()
    told: set[str] = set()
    fetched: list[Run] = []
    errors: list[OrchError] = []
    for selector in selectors:
        chosen = None
        try:
            chosen = ctx.run(ledger, selector)
            if chosen.run_id in tried:
                continue
            tried.add(chosen.run_id)
            undone = silence.of(ctx, ledger, chosen, "nothing was fetched", told)
            with undone, output.fetch_progress() as progress:
                known, report = fetch(ctx, ledger, chosen, progress)
        except KeyboardInterrupt:
            raise _interrupted(chosen) from None
        except OrchError as exc:
            tell(exc)
            errors.append(exc)
            continue
        ctx.say(output.fetched_line(known, report))
        if not json:
            render.emit(("\n" if fetched else "") + runtext.ledger_row(known, output.STDOUT))
        fetched.append(known)
    return fetched, errors
