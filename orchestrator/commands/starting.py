"""Commands that start something: submit, resume, retry."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import complete
from orchestrator.commands.arguments import (
    DryRun,
    DryRunJson,
    Follow,
    Force,
    HostOption,
    Job,
    NoCanary,
    Note,
    Profile,
    Queue,
    RunNeeded,
    Sets,
    Share,
    Tags,
    Text,
)
from orchestrator.commands.following import follow_to_end
from orchestrator.console import context, fail_softly

if TYPE_CHECKING:
    from orchestrator.domain import Run
    from orchestrator.usecases.context import Context
    from orchestrator.usecases.plan import Plan, Request


@fail_softly
def submit(
    job: Job,
    host: HostOption = None,
    profile: Profile = None,
    set_: Sets = None,
    follow: Follow = False,
    dry_run: DryRun = False,
    force: Force = False,
    no_canary: NoCanary = False,
    share: Share = False,
    queue: Queue = False,
    unique: Annotated[
        bool,
        typer.Option("--unique", help="Refuse if the host has this config open or succeeded."),
    ] = False,
    tag: Tags = None,
    note: Note = None,
    json: DryRunJson = False,
) -> None:
    """Check, send the code, start a run detached. Prints the run id."""
    from orchestrator import names
    from orchestrator.usecases.plan import Request, make_plan

    _refuse_json(json, dry_run)
    tags = dict(names.tag(item) for item in tag or [])
    request = Request(
        job,
        host,
        profile,
        set_ or [],
        tags,
        note,
        force,
        canary=not no_canary,
        gpu_use=_gpu_use(share, queue),
        unique=unique,
    )
    ctx = context()
    _submit(ctx, make_plan(ctx, request), request, follow, dry_run, json)


def _refuse_json(json: bool, dry_run: bool) -> None:
    from orchestrator.errors import UsageError

    if json and not dry_run:
        raise UsageError(
            "--json goes with --dry-run: what is started prints the run's id",
            hint="`orch show --json` tells of a run that was started",
        )


def _gpu_use(share: bool, queue: bool) -> str:
    from orchestrator.errors import UsageError

    if share and queue:
        raise UsageError("--share and --queue exclude each other: run beside others, or wait")
    return "share" if share else "queue" if queue else "alone"


def _submit(
    ctx: Context, plan: Plan, request: Request, follow: bool, dry_run: bool, json: bool
) -> None:
    from orchestrator import output, render
    from orchestrator.domain import Severity
    from orchestrator.usecases.plan import unforced
    from orchestrator.usecases.submit import interrupted, submit

    notable = [item for item in plan.found.findings if item.severity is not Severity.INFO]
    bad = unforced(plan, request)
    if not dry_run:  # the refusal names them
        notable = [item for item in notable if item not in bad]
    if notable:
        ctx.say(render.findings(notable).rstrip("\n"))
    if dry_run:
        if json:
            output.document(output.plan_document(plan))
        else:
            render.emit(output.plan_text(plan))
        if bad:
            raise typer.Exit(5)
        return
    if plan.canary is not None:
        from orchestrator.usecases import canary

        plan = canary.passed(ctx, plan, request)
        ctx.say(render.findings(canary.told(plan)).rstrip("\n"))
    recorded: list[Run] = []
    try:
        run, agent = submit(ctx, plan, request, recorded.append)
        _print_id(run)
        if run.state.is_open or not follow:  # how it ended is said where following ends
            ctx.say(output.started_line(run))
        if not follow:
            agent.close()
            return
    except KeyboardInterrupt:
        if not recorded:
            raise
        raise interrupted(recorded[0], sent=True) from None
    with ctx.ledger() as ledger:
        follow_to_end(ctx, ledger, run, agent=agent)


def _print_id(run: Run) -> None:
    """The id is all that a script learns of a run: when it cannot be told, the run goes on."""
    from orchestrator import render
    from orchestrator.errors import StdoutLost

    try:
        render.emit(run.run_id + "\n")
    except (StdoutLost, BrokenPipeError) as exc:
        why = exc.message if isinstance(exc, StdoutLost) else "stdout is closed"
        raise StdoutLost(
            f"{why}; {run.run_id} was started on {run.host} and goes on",
            hint=f"`orch tail {run.run_id}` follows it, `orch cancel {run.run_id}` ends it",
        ) from None


@fail_softly
def resume(run: RunNeeded, follow: Follow = False) -> None:
    """Go on with a run that ended badly, from its checkpoint. Its next attempt."""
    from orchestrator import output
    from orchestrator.usecases.resume import resume as run_resume

    ctx = context()
    with ctx.ledger() as ledger:
        known, agent = run_resume(ctx, ledger, ctx.run(ledger, run, to_change=True))
        _print_id(known)
        if known.state.is_open or not follow:
            ctx.say(output.started_line(known))
        if not follow:
            agent.close()
            return
        follow_to_end(ctx, ledger, known, agent=agent)


@fail_softly
def retry(
    run: RunNeeded,
    host: Annotated[
        Text,
        typer.Option("--host", help="Where; default: where it was.", autocompletion=complete.hosts),
    ] = None,
    follow: Follow = False,
    dry_run: DryRun = False,
    force: Force = False,
    no_canary: NoCanary = False,
    share: Share = False,
    queue: Queue = False,
    tag: Tags = None,
    note: Note = None,
    json: DryRunJson = False,
) -> None:
    """A new run of an old run's job, as that job is today.

    The job is that of the run's own project, wherever this is called. It supersedes the old run and
    has its profile, --set, host and tags; what of the config has changed since is said. The note
    is not kept.
    Findings forced then stay forced if they are the very same; new ones refuse.
    """
    from orchestrator import names
    from orchestrator.usecases.plan import make_plan, unforced
    from orchestrator.usecases.retry import changes, in_its_project, request_for

    _refuse_json(json, dry_run)
    ctx = context()
    with ctx.ledger(readonly=True) as ledger:
        old = ctx.run(ledger, run, to_change=True)
    ctx = in_its_project(ctx, old)
    tags = dict(names.tag(item) for item in tag or [])
    request = request_for(old, host, tags, note, force, _gpu_use(share, queue))
    request = replace(request, canary=not no_canary)
    plan = make_plan(ctx, request)
    changed = changes(old, plan.spec.config)
    if changed:
        ctx.say("\n  ".join([f"the config has changed since {old.run_id}:", *changed]))
    if not plan.found.ok and not unforced(plan, request) and not force:
        ctx.say(f"what refuses it was forced for {old.run_id} too, and stays forced")
    _submit(ctx, plan, request, follow, dry_run, json)
