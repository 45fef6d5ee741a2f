"""The commands, put together. Each parses, calls one use case and renders; see `commands`.

A call that begins with a command's name has this one built and no other: to read all signatures
takes longer than most commands do. What else is heavy is imported where it is used.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer

from orchestrator.console import run_main, tell
from orchestrator.errors import UsageError

# By the module of `commands`, in the order of a day's work, which is that of `orch --help`.
COMMANDS = {
    "init": "project",
    "jobs": "project",
    "check": "project",
    "submit": "starting",
    "tail": "following",
    "wait": "following",
    "ls": "listing",
    "show": "runs",
    "top": "now",
    "gpus": "now",
    "fetch-results": "runs",
    "compare": "account",
    "report": "account",
    "tensorboard": "account",
    "cancel": "runs",
    "resume": "starting",
    "retry": "starting",
    "attach": "following",
    "tag": "listing",
    "note": "listing",
    "reconcile": "agreement",
    "doctor": "hosts",
}
GROUPS = {
    "host": (
        "Hosts: list them, pin their keys.",
        {"ls": "hosts.host_list", "trust": "hosts.host_trust"},
    ),
    "ledger": (
        "The ledger as a whole.",
        {
            "export": "ledger.export",
            "verify": "ledger.verify",
            "import": "ledger.take_in",
            "rebuild": "agreement.ledger_rebuild",
        },
    ),
}


def built(only: str | None = None) -> typer.Typer:
    """The whole command line, or what the command or group `only` needs of it."""
    app = typer.Typer(
        name="orch",
        help="Runs training jobs on GPU hosts over SSH, and keeps account of what came of them.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)  # a group, also when it has one command alone
    for name, module in COMMANDS.items():
        if only in (None, name):
            app.command(name)(_function(f"{module}.{name.replace('-', '_')}"))
    for group, (about, places) in GROUPS.items():
        if only in (None, group):
            inner = typer.Typer(help=about, no_args_is_help=True)
            app.add_typer(inner, name=group, rich_help_panel=None)
            for name, place in places.items():
                inner.command(name)(_function(place))
    return app


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"orch {version('orch')}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Show it and exit."),
    ] = False,
) -> None:
    pass


def _function(place: str) -> Any:
    module, name = place.split(".")
    return getattr(import_module(f"orchestrator.commands.{module}"), name)


def main() -> None:
    first, *more = sys.argv[1:] or [""]
    if first in ("--install-completion", "--show-completion") and more:
        tell(  # typer asks which shell this is called from, and would pass over the name of another
            UsageError(
                f"{first} takes no word: it is for the shell that it is called from",
                hint="call it from bash, zsh or fish",
            )
        )
        sys.exit(UsageError.exit_code)
    named = first in COMMANDS or first in GROUPS
    run_main(built(first if named and "_ORCH_COMPLETE" not in os.environ else None))
