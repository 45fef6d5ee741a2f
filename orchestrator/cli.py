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
account.register(app)
listing.register(app)
agreement.register(app, ledger_app)
ledger.register(ledger_app)
for command in (
    project.init,
    project.jobs,
    project.check,
    starting.submit,
    following.tail,
    following.wait,
    runs.show,
    runs.cancel,
    starting.resume,
    starting.retry,
    runs.fetch_results,
    following.attach,
    hosts.doctor,
    now.top,
    now.gpus,
):
    app.command()(command)
host_app.command("ls")(hosts.host_list)
host_app.command("trust")(hosts.host_trust)


def main() -> None:
    run_main(app)
