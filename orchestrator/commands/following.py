"""Commands that stay with a run: tail, wait, attach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from orchestrator.commands.arguments import Json, RunArg, RunList, Text
from orchestrator.console import INTERRUPTED, context, fail_softly

if TYPE_CHECKING:
    from orchestrator.domain import Run
    from orchestrator.ledger.store import Ledger
    from orchestrator.transport.base import Agent
    from orchestrator.usecases.context import Context


def follow_to_end(
    ctx: Context,
    ledger: Ledger,
    run: Run,
    *,
    agent: Agent | None = None,
    lines: int | None = None,
    live: bool = True,
    raw: bool = False,
) -> None:
    """Follow, then leave with the code that tells how the run ended."""
    from orchestrator import output
    from orchestrator.usecases import tell
    from orchestrator.usecases.follow import Cursor, follow
    from orchestrator.usecases.settle import exit_code_of

    sink = output.LogSink(raw)
    try:
        with sink:
            cursor = Cursor(lines=lines, raw=raw)
            known = follow(ctx, ledger, run, sink, cursor=cursor, live=live, agent=agent)
    except KeyboardInterrupt:
        sink.below()
        ctx.say(output.detached_line(run))
        raise typer.Exit(INTERRUPTED) from None
    if live and not known.state.is_open:
        sink.below()
        tell.of_end(ctx, ledger, known)
        ctx.say(output.ended_line(known))
        raise typer.Exit(exit_code_of(known))


@fail_softly
def tail(
    runs: RunList = None,
    follow: Annotated[
        bool, typer.Option("-f/", "--follow/--no-follow", help="Go on while the run is open.")
    ] = True,
    lines: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("-n", "--lines", min=0, help="Begin at the last N lines."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The log's bytes as they are.")] = False,
) -> None:
    """The log of runs, from its start, then live. Of several, line by line behind their names.

    Ctrl-C leaves; the runs go on.
    """
    ctx = context()
    with ctx.ledger_or_copy() as ledger:
        selectors: list[str | None] = list(runs) if runs else [None]
        chosen = [ctx.live_run(ledger, each) for each in selectors]
        chosen = list({run.run_id: run for run in chosen}.values())
        if len(chosen) == 1:
            follow_to_end(ctx, ledger, chosen[0], lines=lines, live=follow, raw=raw)
        else:
            _follow_all(ctx, ledger, chosen, lines=lines, live=follow, raw=raw)


def _follow_all(
    ctx: Context, ledger: Ledger, runs: list[Run], *, lines: int | None, live: bool, raw: bool
) -> None:
    """Follow all, then leave with the code of the one that ended worst."""
    from orchestrator.manylogs import ManyLogs
    from orchestrator.usecases.followmany import follow_many
    from orchestrator.usecases.settle import exit_code_of

    sink = ManyLogs(runs, raw)
    try:
        known = follow_many(ctx, ledger, runs, sink, lines=lines, live=live, raw=raw)
    except KeyboardInterrupt:
        sink.close()
        ctx.say("detached; the runs go on. `orch ls` lists them, `orch tail RUN` comes back")
        raise typer.Exit(INTERRUPTED) from None
    codes = {exit_code_of(run) for run in known if not run.state.is_open} if live else set()
    raise typer.Exit(1 if 1 in codes else 7 if 7 in codes else 0)


@fail_softly
def wait(
    run: RunArg = None,
    timeout: Annotated[Text, typer.Option("--timeout", help="Such as 30m, 2h or 90.")] = None,
    json: Json = False,
) -> None:
    """Wait until a run ends; the exit code tells how it did.

    Ctrl-C leaves; the run goes on.
    """
    from dataclasses import replace

    from orchestrator import output, units
    from orchestrator.errors import NotFinished
    from orchestrator.usecases import follow, tell
    from orchestrator.usecases.settle import exit_code_of

    ctx = context()
    seconds = None if timeout is None else units.timeout(timeout)
    with ctx.ledger_or_copy() as ledger:
        chosen = ctx.live_run(ledger, run)
        if chosen.state.is_open:
            ctx.say(output.waiting_line(chosen))
        sink = output.LogSink(raw=False)

        def say(text: str) -> None:
            sink.below()
            ctx.say(text)

        try:
            with sink:
                above = replace(ctx, say=say)
                ended = follow.wait(above, ledger, chosen, seconds, say, sink.progress)
        except NotFinished:
            if json:
                known = ledger.get(chosen.run_id)
                output.run_document(known, ledger.events(known.run_id))
            raise
        except KeyboardInterrupt:
            ctx.say(output.detached_line(chosen))
            raise typer.Exit(INTERRUPTED) from None
        tell.of_end(ctx, ledger, ended)
        if json:
            output.run_document(ended, ledger.events(ended.run_id))
    ctx.say(output.ended_line(ended))
    raise typer.Exit(exit_code_of(ended))


@fail_softly
def attach(run: RunArg = None) -> None:
    """Enter a run's tmux or screen session. Leaving it does not end the run."""
    import sys

    from orchestrator.usecases.attach import enter, view

    ctx = context()
    with ctx.ledger(readonly=True) as ledger:
        chosen = ctx.live_run(ledger, run)
        terminal = sys.stdin.isatty() and sys.stdout.isatty()
        found = view(ctx, ledger, chosen, terminal=terminal)
    if found.notice:
        ctx.say(found.notice)
    raise typer.Exit(enter(found, chosen))
