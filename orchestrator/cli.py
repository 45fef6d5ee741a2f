"""The commands, put together. Each parses, calls one use case and renders; see `commands`.

What is heavy is imported where it is used.
"""

from __future__ import annotations

import typer

from orchestrator.commands import (
    account,
    agreement,
    following,
    hosts,
    ledger,
    listing,
    now,
    project,
    runs,
    starting,
)
from orchestrator.console import run_main

app = typer.Typer(
    name="orch",
    help="Runs training jobs on GPU hosts over SSH, and keeps account of what came of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
host_app = typer.Typer(help="Hosts: list them, pin their keys.", no_args_is_help=True)
ledger_app = typer.Typer(help="The ledger as a whole.", no_args_is_help=True)
app.add_typer(host_app, name="host", rich_help_panel=None)
app.add_typer(ledger_app, name="ledger", rich_help_panel=None)
# In the order of a day's work, which is that of `orch --help`.
for command in (
    project.init,
    project.jobs,
    project.check,
    starting.submit,
    following.tail,
    following.wait,
    listing.ls,
    runs.show,
    now.top,
    now.gpus,
    runs.fetch_results,
    account.compare,
    account.report,
    account.tensorboard,
    runs.cancel,
    starting.resume,
    starting.retry,
    following.attach,
    listing.tag,
    listing.note,
    agreement.reconcile,
    hosts.doctor,
):
    app.command()(command)
host_app.command("ls")(hosts.host_list)
host_app.command("trust")(hosts.host_trust)
ledger_app.command()(ledger.export)
ledger_app.command()(ledger.verify)
ledger_app.command("import")(ledger.take_in)
ledger_app.command("rebuild")(agreement.ledger_rebuild)


def main() -> None:
    run_main(app)
