"""Commands that give an account of runs: compare, report, tensorboard."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from orchestrator import complete
from orchestrator.commands.arguments import Json, RunArg, Text
from orchestrator.console import context, fail_softly


@fail_softly
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Two runs or more, such as: train~1 train.", autocompletion=complete.runs
        ),
    ],
    all_: Annotated[bool, typer.Option("--all", help="Also what is the same.")] = False,
    json: Json = False,
) -> None:
    """What differs between runs, from config to results."""
    from orchestrator import compare as pure
    from orchestrator import comparetext, output, render
    from orchestrator.usecases.compare import compare as run_compare

    found = run_compare(context(), runs)
    if json:
        output.document(pure.document(found, all_))
    else:
        render.emit(comparetext.compare_text(found, output.STDOUT, everything=all_))


@fail_softly
def report(
    run: RunArg = None,
    against: Annotated[
        Text,
        typer.Option(
            "--against",
            help="Compare with this run; default: the one it supersedes, else the job's last.",
            autocompletion=complete.runs,
        ),
    ] = None,
    output: Annotated[
        Text, typer.Option("-o", "--output", help="A file: .html or .md; default: one of each.")
    ] = None,
    json: Json = False,
) -> None:
    """Write a run's report as HTML and Markdown. Prints the files' names."""
    from orchestrator import output as out
    from orchestrator import render
    from orchestrator.usecases.report import report as run_report

    account, paths = run_report(context(), run, against, output)
    if json:
        out.document(out.report_document(account, paths))
        return
    for path in paths:
        render.emit(f"{path}\n")


@fail_softly
def tensorboard(
    runs: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Runs; nothing: the latest one.", autocompletion=complete.runs),
    ] = None,
    port: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--port", min=1, max=65535, help="Default: TensorBoard's own."),
    ] = None,
) -> None:
    """Show runs in TensorBoard. Fetches their event files, on and on while a run goes on."""
    from orchestrator.usecases.tensorboard import serve

    ctx = context()
    try:
        code = serve(ctx, list(runs) if runs else [None], port)
    except KeyboardInterrupt:
        ctx.say("TensorBoard was ended; the runs go on")
        return
    raise typer.Exit(code)
