"""Commands that give an account of runs: compare, report."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import complete
from orchestrator.commands.arguments import Json
from orchestrator.console import context, fail_softly


def register(app: typer.Typer) -> None:
    app.command()(compare)


@fail_softly
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Two runs or more: ids, pieces of ids, job names.", autocompletion=complete.runs
        ),
    ],
    all_: Annotated[bool, typer.Option("--all", help="Also what is the same.")] = False,
    json: Json = False,
) -> None:
    """What differs between runs: config, code, environment, data, results."""
    from orchestrator import compare as pure
    from orchestrator import comparetext, output, render
    from orchestrator.usecases.compare import compare as run_compare

    found = run_compare(context(), runs)
    if json:
        output.document(pure.document(found, all_))
    else:
        render.emit(comparetext.compare_text(found, output.STDOUT, everything=all_))
