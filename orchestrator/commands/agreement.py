"""Commands that make the ledger agree with the hosts: reconcile, ledger rebuild."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from orchestrator import complete
from orchestrator.commands.arguments import Json, Text
from orchestrator.console import context, fail_softly
from orchestrator.errors import shared_code

if TYPE_CHECKING:
    from orchestrator.usecases.context import Context
    from orchestrator.usecases.rebuild import Asked
    from orchestrator.usecases.reconcile import HostAccount


@fail_softly
def reconcile(
    runs: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Runs; nothing: every open one.", autocompletion=complete.runs),
    ] = None,
    host: Annotated[
        Text, typer.Option("--host", help="Only this host.", autocompletion=complete.hosts)
    ] = None,
    take: Annotated[
        bool, typer.Option("--import", help="Take runs into the ledger that it does not know.")
    ] = False,
    json: Json = False,
) -> None:
    """Ask the hosts what became of open runs, and write it down."""
    from orchestrator.usecases.rebuild import Asked, known_projects, whom_to_ask
    from orchestrator.usecases.reconcile import reconcile as run_reconcile

    ctx = context()
    with ctx.ledger() as ledger:
        chosen = [ctx.run(ledger, each) for each in runs] if runs else None
        asked = Asked(() if host is None else (ctx.host(host),))
        places = ledger.places() if take else []
        if take and host is None and not runs:
            asked = whom_to_ask(ctx, places)
        projects = known_projects(ctx, places) if take else None
        accounts = run_reconcile(ctx, ledger, chosen, asked.hosts, take=projects)
    if take and not runs:
        _tell_asked(ctx, asked, "orch reconcile --import")
    _tell_accounts(ctx, accounts, json)


@fail_softly
def ledger_rebuild(
    hosts: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--host",
            help="Repeatable; default: those of orch.yaml, config.yaml, ORCH_HOST and known runs.",
            autocompletion=complete.hosts,
        ),
    ] = None,
    json: Json = False,
) -> None:  # fmt: skip
    """Make the ledger anew from the hosts. A damaged one is kept aside."""
    from orchestrator.usecases.rebuild import Asked, fresh_ledger, known_projects, whom_to_ask
    from orchestrator.usecases.reconcile import reconcile as run_reconcile

    ctx = context()
    named = tuple(ctx.host(name) for name in dict.fromkeys(hosts or ()))
    ledger, places = fresh_ledger(ctx)
    with ledger:
        asked = Asked(named) if named else whom_to_ask(ctx, places)
        projects = known_projects(ctx, places)
        accounts = run_reconcile(ctx, ledger, None, asked.hosts, take=projects)
    _tell_asked(ctx, asked, "orch ledger rebuild")
    _tell_accounts(ctx, accounts, json)


def _tell_asked(ctx: Context, asked: Asked, command: str) -> None:
    """Whom a command asked that looks for unknown runs, and whom it did not."""
    ctx.say(f"asked {', '.join(dict.fromkeys(host.name for host in asked.hosts))}")
    if asked.not_asked:
        more = f" and {len(asked.not_asked) - 10} more" if len(asked.not_asked) > 10 else ""
        ctx.say(
            f"not asked: {', '.join(asked.not_asked[:10])}{more} (named by the ssh config only); "
            f"for runs there: {command} --host {asked.not_asked[0]}"
        )


def _tell_accounts(ctx: Context, accounts: Sequence[HostAccount], json: bool) -> None:
    from orchestrator import output, render
    from orchestrator.wording import without_name

    if json:
        output.document(output.accounts_document(accounts))
    else:
        render.emit(output.accounts_text(accounts, ctx.clock.now()))
    errors = []
    for each in accounts:
        if each.error is not None:
            errors.append(each.error)
            why = without_name(each.host, each.error.message)
            ctx.say(f"{each.host}: {why}; nothing of its runs was changed")
            if each.error.hint:
                ctx.say(f"      {each.error.hint}")
    if errors:
        raise typer.Exit(shared_code(errors))
