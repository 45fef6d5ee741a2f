"""Commands on hosts: doctor, host ls, host trust."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator import complete
from orchestrator.commands.arguments import Json, Text
from orchestrator.console import context, fail_softly


@fail_softly
def doctor(
    host: Annotated[
        Text, typer.Argument(help="A host; default as for submit.", autocompletion=complete.hosts)
    ] = None,
    json: Json = False,
) -> None:
    """Test a host for what bites later. ssh, python, tmux, logout, disk, GPUs, clock."""
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


@fail_softly
def host_list(json: Json = False) -> None:
    """The hosts that can be named. `local`, orch.yaml's, the ssh config's aliases."""
    from orchestrator import output, render
    from orchestrator.usecases.hosts import listed_hosts

    found = listed_hosts(context())
    if json:
        output.document(output.hosts_document(found))
    else:
        lines = [
            render.HostLine(each.host, each.source, each.default, each.trusted) for each in found
        ]
        render.emit(render.hosts_table(lines, output.STDOUT))


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

    told, trusted = trust(ctx, name, confirm)
    ctx.say(f"{name}: {told}")
    if not trusted:
        raise typer.Exit(8)
