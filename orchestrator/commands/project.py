"""Commands on the project: init, jobs, check."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from orchestrator import complete
from orchestrator.commands.arguments import Job, Json, Profile, Sets, Text
from orchestrator.console import context, fail_softly


@fail_softly
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make into a project.")] = Path("."),
) -> None:
    """Make a folder into a project with one example job."""
    from orchestrator.projectfile import init_project, keeps_results_out

    ctx = context()
    told = init_project(ctx.cwd / folder)
    for line in told:
        ctx.say(line)
    if not keeps_results_out(ctx.cwd / folder):
        ctx.say(".gitignore was there: add the line `results/` to it, for what runs bring back")
    there = (ctx.cwd / folder).resolve() == ctx.cwd.resolve()
    enter = "" if there else f"`cd {shlex.quote(str(folder))}`, then "
    ctx.say(f"next: {enter}`orch submit hello -f` runs the example on this machine")


@fail_softly
def jobs(json: Json = False) -> None:
    """List the jobs of this project."""
    from orchestrator import output, render
    from orchestrator.spec import no_jobs
    from orchestrator.usecases.jobs import list_jobs

    ctx = context()
    found = list_jobs(ctx)
    if json:
        output.document(output.jobs_document(found))
    else:
        render.emit(output.jobs_text(found, ctx.clock.now()))
    for file, why in no_jobs(ctx.project()):
        ctx.say(f"{file} is no job: {why}")


@fail_softly
def check(
    job: Job,
    profile: Profile = None,
    set_: Sets = None,
    host: Annotated[
        Text, typer.Option("--host", help="Ask this host too.", autocompletion=complete.hosts)
    ] = None,
    canary: Annotated[bool, typer.Option("--canary", help="Run the canary on the host.")] = False,
    json: Json = False,
) -> None:
    """Everything a submit checks, without starting. With --canary, that too."""
    from orchestrator import output, render
    from orchestrator.usecases.check import check as run_check
    from orchestrator.usecases.check import next_steps

    ctx = context()
    if canary:
        from orchestrator.usecases.canary import checked

        found = checked(ctx, job, profile, set_ or [], host)
    else:
        found = run_check(ctx, job, profile, set_ or [], host)
    if json:
        output.document(output.preflight_document(found))
    else:
        render.emit(output.preflight_text(found))
    if not found.ok:
        ctx.say("      " + next_steps([each for each in found.findings if each.refuses]))
        raise typer.Exit(5)
