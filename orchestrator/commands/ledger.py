"""Commands on the ledger as a whole: export, verify, import."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from orchestrator import complete
from orchestrator.commands.arguments import Json, Text
from orchestrator.console import context, fail_softly

Runs = Optional[list[str]]  # noqa: UP045


@fail_softly
def export(
    format_: Annotated[
        Text,
        typer.Option(
            "--format", help="csv (default), json, mlflow.", autocompletion=complete.formats
        ),
    ] = None,
    output: Annotated[Text, typer.Option("-o", "--output", help="A file; default stdout.")] = None,
    to: Annotated[
        Text, typer.Option("--to", help="For mlflow: a tracking URI; default MLFLOW_TRACKING_URI.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Runs of every project.")] = False,
    json: Json = False,
) -> None:
    """Every run as CSV or JSON, or into an MLflow store."""
    from orchestrator import outlet, render
    from orchestrator.usecases import export as usecase
    from orchestrator.wording import counted

    ctx = context()
    form = usecase.form_of(format_, json=json, to=to, output=output)
    path = None if output is None else usecase.new_file(ctx, output)
    if form == "mlflow":
        uri, written, known = usecase.export_to_mlflow(ctx, to, everywhere=all_)
        there = counted(known, "was there as it is", "were there as they are")
        ctx.say(f"{counted(written, 'run')} written to {uri}, {there}")
        return
    text = usecase.export(ctx, form, everywhere=all_)
    if path is None:
        render.emit(text)
        return
    outlet.write(path, text)
    ctx.say(f"wrote {path}")


@fail_softly
def verify(
    runs: Annotated[
        Runs,
        typer.Argument(help="Runs; nothing: all of this project.", autocompletion=complete.runs),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Runs of every project.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the hosts.")] = False,
    json: Json = False,
) -> None:
    """Hold each row against its evidence. Config hash, host's records, fetched files."""
    from orchestrator import ledgertext, output, render
    from orchestrator.usecases.verify import DIFFERS
    from orchestrator.usecases.verify import verify as run_verify

    checks = run_verify(context(), runs or [], everywhere=all_, offline=offline)
    if json:
        output.document(ledgertext.verify_document(checks))
    else:
        render.emit(ledgertext.verify_text(checks, output.STDOUT))
    if any(check.level == DIFFERS for check in checks):
        raise typer.Exit(11)


@fail_softly
def take_in(
    file: Annotated[str, typer.Argument(help="Another ledger.db; it is not changed.")],
    json: Json = False,
) -> None:
    """Add the runs of another ledger. Runs known here stay."""
    from orchestrator import ledgertext, output, render
    from orchestrator.usecases.takein import take_in as run_take_in

    made = run_take_in(context(), file)
    if json:
        output.document(ledgertext.added_document(made))
    else:
        render.emit(ledgertext.added_text(made))
