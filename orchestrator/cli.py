"""The commands: parse, one use case, render. What is heavy is imported where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from orchestrator import complete
from orchestrator.commands import account, agreement, ledger, listing
from orchestrator.commands.arguments import Json, RunArg, RunNeeded, Text
from orchestrator.console import INTERRUPTED, context, fail_softly, run_main

if TYPE_CHECKING:
    from orchestrator.domain import Run
    from orchestrator.ledger.store import Ledger
    from orchestrator.transport.base import Agent
    from orchestrator.usecases.context import Context
    from orchestrator.usecases.submit import Request

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

Job = Annotated[str, typer.Argument(help="A job of this project.", autocompletion=complete.jobs)]
RunList = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(help="Runs; nothing: the latest one.", autocompletion=complete.runs),
]
HostOption = Annotated[
    Text, typer.Option("--host", help="Where; default: ORCH_HOST, then orch.yaml, then `local`.",
                       autocompletion=complete.hosts)
]  # fmt: skip
Profile = Annotated[Text, typer.Option("--profile", help="A named overlay of the job's spec.")]
Sets = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="k.e.y=value", help="Override a config key; repeatable."),
]
Tags = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--tag", metavar="key=value", help="Label the run; repeatable."),
]
Note = Annotated[Text, typer.Option("--note", help="A remark kept with the run.")]
Force = Annotated[bool, typer.Option("--force", help="Submit in spite of findings; recorded.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Follow the log until the run ends.")]


@app.command()
@fail_softly
def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make into a project.")] = Path("."),
) -> None:
    """Make a folder into a project with one example job."""
    from orchestrator.projectfile import init_project

    ctx = context()
    told = init_project(ctx.cwd / folder)
    for line in told:
        ctx.say(line)
    ctx.say("next: `orch submit hello -f` runs the example on this machine")


@app.command()
@fail_softly
def jobs(json: Json = False) -> None:
    """List the jobs of this project."""
    from orchestrator import output, render
    from orchestrator.usecases.jobs import list_jobs

    ctx = context()
    found = list_jobs(ctx)
    if json:
        output.document(output.jobs_document(found))
    else:
        render.emit(output.jobs_text(found, ctx.clock.now()))


@app.command()
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
    """Preflight without starting: spec, config against reference, history, the canary if asked."""
    from orchestrator import output, render
    from orchestrator.usecases.check import check as run_check

    if canary:
        from orchestrator.usecases.canary import checked

        found = checked(context(), job, profile, set_ or [], host)
    else:
        found = run_check(context(), job, profile, set_ or [], host)
    if json:
        output.document(output.preflight_document(found))
    else:
        render.emit(output.preflight_text(found))
    if not found.ok:
        raise typer.Exit(5)


@app.command()
@fail_softly
def submit(
    job: Job,
    host: HostOption = None,
    profile: Profile = None,
    set_: Sets = None,
    follow: Follow = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and stop.")
    ] = False,
    force: Force = False,
    no_canary: Annotated[
        bool, typer.Option("--no-canary", help="Start at once, without the spec's canary.")
    ] = False,
    tag: Tags = None,
    note: Note = None,
) -> None:
    """Check, freeze the code, send it, start the run detached. Prints the run id."""
    from orchestrator import names
    from orchestrator.usecases.submit import Request

    tags = dict(names.tag(item) for item in tag or [])
    request = Request(job, host, profile, set_ or [], tags, note, force, canary=not no_canary)
    _submit(context(), request, follow, dry_run)


def _submit(ctx: Context, request: Request, follow: bool, dry_run: bool) -> None:
    from orchestrator import output, render
    from orchestrator.domain import Severity
    from orchestrator.usecases.submit import interrupted, make_plan, submit

    plan = make_plan(ctx, request)
    notable = [item for item in plan.found.findings if item.severity is not Severity.INFO]
    if notable:
        ctx.say(render.findings(notable).rstrip("\n"))
    if dry_run:
        render.emit(output.plan_text(plan))
        if not plan.found.ok and not request.force:
            raise typer.Exit(5)
        return
    if plan.spec.canary is not None and request.canary:
        from orchestrator.usecases import canary

        plan = canary.passed(ctx, plan, request)
        ctx.say(render.findings(canary.told(plan)).rstrip("\n"))
    recorded: list[Run] = []
    try:
        run, agent = submit(ctx, plan, request, recorded.append)
        render.emit(run.run_id + "\n")
        ctx.say(output.started_line(run))
        if not follow:
            agent.close()
            return
    except KeyboardInterrupt:
        if not recorded:
            raise
        raise interrupted(recorded[0], sent=True) from None
    with ctx.ledger() as ledger:
        _follow_to_end(ctx, ledger, run, agent=agent)


def _follow_to_end(
    ctx: Context,
    ledger: Ledger,
    run: Run,
    *,
    agent: Agent | None = None,
    lines: int | None = None,
    live: bool = True,
    raw: bool = False,
) -> None:
    """Follow, then leave with the code that tells how the run ended."""
    from orchestrator import output
    from orchestrator.usecases import tell
    from orchestrator.usecases.follow import Cursor, follow
    from orchestrator.usecases.settle import exit_code_of

    try:
        with output.log_sink(raw) as sink:
            known = follow(
                ctx, ledger, run, sink, cursor=Cursor(lines=lines), live=live, agent=agent
            )
    except KeyboardInterrupt:
        ctx.say(output.detached_line(run))
        raise typer.Exit(INTERRUPTED) from None
    if live and not known.state.is_open:
        tell.of_end(ctx, ledger, known)
        ctx.say(output.ended_line(known))
        raise typer.Exit(exit_code_of(known))


@app.command()
@fail_softly
def tail(
    runs: RunList = None,
    follow: Annotated[
        bool, typer.Option("-f/", "--follow/--no-follow", help="Go on while the run is open.")
    ] = True,
    lines: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("-n", "--lines", min=0, help="Begin at the last N lines."),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="The log's bytes as they are.")] = False,
) -> None:
    """The log of a run from its start, then live; of several, line by line behind their names.

    Ctrl-C leaves; the runs go on.
    """
    ctx = context()
    with ctx.ledger() as ledger:
        selectors: list[str | None] = list(runs) if runs else [None]
        chosen = [ctx.run(ledger, each) for each in selectors]
        chosen = list({run.run_id: run for run in chosen}.values())
        if len(chosen) == 1:
            _follow_to_end(ctx, ledger, chosen[0], lines=lines, live=follow, raw=raw)
        else:
            _follow_all(ctx, ledger, chosen, lines=lines, live=follow, raw=raw)


def _follow_all(
    ctx: Context, ledger: Ledger, runs: list[Run], *, lines: int | None, live: bool, raw: bool
) -> None:
    """Follow all, then leave with the code of the one that ended worst."""
    from orchestrator.manylogs import ManyLogs
    from orchestrator.usecases.followmany import follow_many
    from orchestrator.usecases.settle import exit_code_of

    sink = ManyLogs(runs, raw)
    try:
        known = follow_many(ctx, ledger, runs, sink, lines=lines, live=live)
    except KeyboardInterrupt:
        sink.close()
        ctx.say("detached; the runs go on. `orch ls` lists them, `orch tail RUN` comes back")
        raise typer.Exit(INTERRUPTED) from None
    codes = {exit_code_of(run) for run in known if not run.state.is_open} if live else set()
    raise typer.Exit(1 if 1 in codes else 7 if 7 in codes else 0)


@app.command()
@fail_softly
def wait(
    run: RunArg = None,
    timeout: Annotated[Text, typer.Option("--timeout", help="Such as 30m, 2h or 90.")] = None,
    json: Json = False,
) -> None:
    """Wait until a run ends; the exit code tells how it did."""
    from orchestrator import output, units
    from orchestrator.errors import NotFinished
    from orchestrator.usecases import follow, tell
    from orchestrator.usecases.settle import exit_code_of

    ctx = context()
    seconds = None if timeout is None else units.timeout(timeout)
    with ctx.ledger() as ledger:
        chosen = ctx.run(ledger, run)
        try:
            ended = follow.wait(ctx, ledger, chosen, seconds, ctx.say)
        except NotFinished:
            if json:
                known = ledger.get(chosen.run_id)
                output.run_document(known, ledger.events(known.run_id))
            raise
        except KeyboardInterrupt:
            ctx.say(output.detached_line(chosen))
            raise typer.Exit(INTERRUPTED) from None
        tell.of_end(ctx, ledger, ended)
        if json:
            output.run_document(ended, ledger.events(ended.run_id))
    ctx.say(output.ended_line(ended))
    raise typer.Exit(exit_code_of(ended))


@app.command()
@fail_softly
def show(run: RunArg = None, json: Json = False) -> None:
    """One run whole; an open one is asked after on its host."""
    from orchestrator import output, render, runtext
    from orchestrator.usecases.listing import one

    ctx = context()
    with ctx.ledger(readonly=True) as ledger:
        known, silent = one(ctx, ledger, run)
        events = ledger.events(known.run_id)
    if silent:
        ctx.say(silent)
    if json:
        output.run_document(known, events)
    else:
        now, style = ctx.clock.now(), output.STDOUT
        render.emit(runtext.show_text(known, events, now, style, unreachable=bool(silent)))


@app.command()
@fail_softly
def cancel(run: RunNeeded, json: Json = False) -> None:
    """End a run: TERM, grace, KILL, down to the last grandchild."""
    from orchestrator import output
    from orchestrator.usecases.cancel import cancel as run_cancel

    ctx = context()
    with ctx.ledger() as ledger:
        ended, already = run_cancel(ctx, ledger, ctx.run(ledger, run))
        if json:
            output.run_document(ended, ledger.events(ended.run_id))
    ctx.say(("it had ended before: " if already else "") + output.ended_line(ended))


@app.command()
@fail_softly
def resume(run: RunNeeded, follow: Follow = False) -> None:
    """Go on with a run that ended badly, from the job's own checkpoint: its next attempt."""
    from orchestrator import output, render
    from orchestrator.usecases.resume import resume as run_resume

    ctx = context()
    with ctx.ledger() as ledger:
        known, agent = run_resume(ctx, ledger, ctx.run(ledger, run))
        render.emit(known.run_id + "\n")
        ctx.say(output.started_line(known))
        if not follow:
            agent.close()
            return
        _follow_to_end(ctx, ledger, known, agent=agent)


@app.command()
@fail_softly
def retry(
    run: RunNeeded,
    host: HostOption = None,
    follow: Follow = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
    force: Force = False,
    tag: Tags = None,
    note: Note = None,
) -> None:
    """A new run of the same job, profile and overrides; it supersedes the old one."""
    from orchestrator import names
    from orchestrator.usecases.retry import request_for

    ctx = context()
    with ctx.ledger(readonly=True) as ledger:
        old = ctx.run(ledger, run)
    tags = dict(names.tag(item) for item in tag or [])
    _submit(ctx, request_for(old, host, tags, note, force), follow, dry_run)


@app.command("fetch-results")
@fail_softly
def fetch_results(runs: RunList = None, json: Json = False) -> None:
    """Pull result folders, verified and resumable; record the accuracy."""
    from orchestrator import output, render, runtext
    from orchestrator.usecases.fetch import fetch
    from orchestrator.usecases.settle import exit_code_of

    ctx = context()
    selectors: list[str | None] = list(runs) if runs else [None]
    fetched = []
    with ctx.ledger() as ledger:
        for chosen in [ctx.run(ledger, selector) for selector in selectors]:
            with output.fetch_progress() as progress:
                known, report = fetch(ctx, ledger, chosen, progress)
            ctx.say(output.fetched_line(known, report))
            fetched.append(known)
    if json:
        output.runs_document(fetched)
    else:
        rows = [runtext.ledger_row(known, output.STDOUT) for known in fetched]
        render.emit("\n".join(rows))
    if any(exit_code_of(known) == 7 for known in fetched):
        raise typer.Exit(7)


@app.command()
@fail_softly
def attach(run: RunArg = None) -> None:
    """Enter the run's tmux or screen session; leaving it does not end the run."""
    import os

    from orchestrator.errors import OrchError
    from orchestrator.usecases.attach import view

    ctx = context()
    with ctx.ledger(readonly=True) as ledger:
        chosen = ctx.run(ledger, run)
    found = view(ctx, chosen)
    if found.notice:
        ctx.say(found.notice)
    try:
        os.execvp(found.argv[0], list(found.argv))
    except OSError as exc:
        raise OrchError(f"{found.argv[0]}: {exc.strerror}", hint="`orch tail` shows it") from None


@app.command()
@fail_softly
def doctor(
    host: Annotated[
        Text, typer.Argument(help="A host; default as for submit.", autocompletion=complete.hosts)
    ] = None,
    json: Json = False,
) -> None:
    """Test what will bite later: ssh, python, tmux, logout, disk, GPUs, clock."""
    from orchestrator import output, render
    from orchestrator.usecases.hosts import doctor as run_doctor

    found, checks = run_doctor(context(), host)
    if json:
        output.document(output.doctor_document(found, checks))
    else:
        report = [(item.level, item.name, item.text) for item in checks]
        render.emit(f"{found.name}\n" + render.doctor_report(report, output.STDOUT))
    failed = [item.exit_code for item in checks if item.level == "fail"]
    if failed:
        raise typer.Exit(failed[0])


@host_app.command("ls")
@fail_softly
def host_list(json: Json = False) -> None:
    """The hosts that can be named: `local`, orch.yaml's, the ssh config's aliases."""
    from orchestrator import output, render
    from orchestrator.usecases.hosts import known_hosts

    found = known_hosts(context())
    if json:
        output.document(output.hosts_document(found))
    else:
        lines = [render.HostLine(host, source) for host, source in found]
        render.emit(render.hosts_table(lines, output.STDOUT))


@host_app.command("trust")
@fail_softly
def host_trust(
    name: Annotated[str, typer.Argument(help="A host.", autocompletion=complete.hosts)],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Show a host's key fingerprint and pin it."""
    from orchestrator.console import ask
    from orchestrator.usecases.hosts import trust

    ctx = context()

    def confirm(known_as: str, fingerprint: str) -> bool:
        ctx.say(f"{name} ({known_as}) offers {fingerprint}")
        return yes or ask("Does that agree with the host's own `ssh-keygen -lf`? Pin it?")

    shown, pinned = trust(ctx, name, confirm)
    ctx.say(f"{name}: {shown} {'is pinned' if pinned else 'was NOT pinned'}")
    if not pinned:
        raise typer.Exit(8)


def main() -> None:
    run_main(app)
