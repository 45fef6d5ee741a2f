"""Commands on runs that are there: show, cancel, fetch-results."""

from __future__ import annotations

import typer

from orchestrator.commands.arguments import Json, RunArg, RunList, RunNeeded
from orchestrator.console import context, fail_softly


@fail_softly
def show(run: RunArg = None, json: Json = False) -> None:
    """One run whole; an open one is asked after on its host."""
    from orchestrator import output, render, runtext
    from orchestrator.usecases.listing import is_unreachable, one

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
        render.emit(runtext.show_text(known, events, now, style, unreachable=mute))


@fail_softly
def cancel(run: RunNeeded, json: Json = False) -> None:
    """End a run: TERM, grace, KILL, down to the last grandchild."""
    from orchestrator import output
    from orchestrator.usecases.cancel import cancel as run_cancel

    ctx = context()
    with ctx.ledger() as ledger:
        ended, already = run_cancel(ctx, ledger, ctx.live_run(ledger, run))
        if json:
            output.run_document(ended, ledger.events(ended.run_id))
    ctx.say(("it had ended before: " if already else "") + output.ended_line(ended))


@fail_softly
def fetch_results(runs: RunList = None, json: Json = False) -> None:
    """Pull results, verified and resumable; record the accuracy."""
    from orchestrator import output, render, runtext
    from orchestrator.usecases.fetch import fetch
    from orchestrator.usecases.settle import exit_code_of

    ctx = context()
    selectors: list[str | None] = list(runs) if runs else [None]
    fetched = []
    with ctx.ledger_or_copy() as ledger:
        for chosen in [ctx.run(ledger, selector) for selector in selectors]:
            with output.fetch_progress() as progress:
                known, report = fetch(ctx, ledger, chosen, progress)
            ctx.say(output.fetched_line(known, report))
            fetched.append(known)
    if json:
        output.runs_document(fetched)
    else:
        rows = [runtext.ledger_row(known, output.STDOUT) for known in fetched]
        render.emit("\n".join(rows))
    if any(exit_code_of(known) == 7 for known in fetched):
        raise typer.Exit(7)
