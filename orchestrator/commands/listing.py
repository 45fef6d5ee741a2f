"""Commands that find runs and label them: ls, tag, note."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from orchestrator import complete
from orchestrator.commands.arguments import Json, RunNeeded, Text
from orchestrator.console import context, fail_softly

if TYPE_CHECKING:
    from orchestrator.usecases.context import Context
    from orchestrator.usecases.listing import Listing

Texts = Optional[list[str]]  # noqa: UP045


@fail_softly
def ls(
    job: Annotated[
        Texts,
        typer.Option("--job", help="Only this job's runs.", autocompletion=complete.jobs),
    ] = None,
    host: Annotated[
        Texts, typer.Option("--host", help="On this host.", autocompletion=complete.hosts)
    ] = None,
    state: Annotated[
        Texts,
        typer.Option(
            "--state",
            help="A state or verdict: running, failed, ...",
            autocompletion=complete.states,
        ),
    ] = None,
    outcome: Annotated[
        Texts,
        typer.Option(
            "--outcome", help="ok, degenerate, ..., or none.", autocompletion=complete.outcomes
        ),
    ] = None,
    tag: Annotated[Texts, typer.Option("--tag", metavar="key[=value]", help="So labelled.")] = None,
    since: Annotated[
        Text, typer.Option("--since", help="Submitted since: 2d, 3h, 2026-11-23.")
    ] = None,
    where: Annotated[
        Text,
        typer.Option("--where", help="Such as 'accuracy > 0.8 and config.training.lr < 1e-3'."),
    ] = None,
    sort: Annotated[
        Text,
        typer.Option(
            "--sort",
            help="A column or path, ascending; with - first, descending.",
            autocompletion=complete.sorts,
        ),
    ] = None,
    columns: Annotated[
        Text, typer.Option("--columns", help="The table's, such as run,accuracy,config.lr.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Runs of every project.")] = False,
    limit: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("-n", "--limit", min=0, help="Newest N; 0: all. Default 50; JSON: all."),
    ] = None,
    json: Json = False,
) -> None:
    """The ledger as a table, newest first. Options that repeat, and commas, mean `or`."""
    from orchestrator import output
    from orchestrator.names import words as split
    from orchestrator.usecases.listing import SHOWN, listing, strangers

    ctx = context()
    chosen = None
    jobs = split(job or ())
    several = jobs if len(jobs) > 1 else None  # one alone the ledger finds by itself
    if any(each is not None for each in (several, host, state, outcome, tag, since, where, sort)):
        from orchestrator.selection import selection  # the plain list starts without it

        chosen = selection(
            ctx.clock.now(),
            jobs=several or (),
            hosts=host or (),
            states=state or (),
            outcomes=outcome or (),
            tags=tag or (),
            since=since,
            where=where,
            sort=sort,
        )
    if limit is None:
        limit = 0 if json else SHOWN
    names = _columns(columns)
    only = jobs[0] if len(jobs) == 1 else None
    shown = listing(ctx, job=only, everywhere=all_, limit=limit, chosen=chosen)
    for sentence in strangers(ctx, jobs, split(host or ()), shown.runs, all_):
        ctx.say(sentence)
    if json:
        output.runs_document(shown.runs)
        return
    _show_table(ctx, shown, names)
    if shown.elsewhere:
        ctx.say(f"this project has none; `orch ls --all` lists {shown.elsewhere} of other folders")
    if shown.total > len(shown.runs):
        ctx.say(f"{len(shown.runs)} of {shown.total} runs; `-n 0` shows all")


def _show_table(ctx: Context, shown: Listing, names: list[str]) -> None:
    """The table, with the columns called `names` if there are any."""
    from orchestrator import output, render

    if names:
        from orchestrator.columns import columns_table, unknown

        table = columns_table(shown.runs, names, ctx.clock.now(), output.STDOUT)
        render.emit(table)
        for name in unknown(shown.runs, names) if table else names:
            ctx.say(f"none of these runs has `{name}`")
        return
    render.emit(
        render.ls_table(shown.runs, ctx.clock.now(), output.STDOUT, unreachable=shown.silent)
    )
    if output.STDOUT.width is not None and any(run.supersedes for run in shown.runs):
        ctx.say("* supersedes an earlier run")


def _columns(text: str | None) -> list[str]:
    if text is None:
        return []
    from orchestrator.selection import columns

    return columns(text)


@fail_softly
def tag(
    run: RunNeeded,
    labels: Annotated[
        Texts, typer.Argument(metavar="[key=value]...", help="Nothing: show the tags.")
    ] = None,
    delete: Annotated[
        Texts, typer.Option("-d", "--delete", metavar="key", help="Take a tag away; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Label a run with key=value; `orch ls --tag` finds it again."""
    from orchestrator import output, render
    from orchestrator.usecases.labels import retag

    known = retag(context(), run, labels or [], delete or [])
    if json:
        output.document({"run_id": known.run_id, "tags": dict(known.tags)})
    else:
        render.emit(output.tags_text(known))


@fail_softly
def note(
    run: RunNeeded,
    text: Annotated[Text, typer.Argument(help="The remark; empty: take it away.")] = None,
    json: Json = False,
) -> None:
    """Keep a remark with a run; without TEXT, show it."""
    from orchestrator import output, render
    from orchestrator.usecases.labels import annotate

    known = annotate(context(), run, text)
    if json:
        output.document({"run_id": known.run_id, "note": known.note})
    elif known.note:
        render.emit(output.note_text(known))
