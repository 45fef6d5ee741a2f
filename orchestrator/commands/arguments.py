"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from orchestrator import complete

Text = Optional[str]  # noqa: UP045 - typer resolves these at run time, also on 3.10
RunArg = Annotated[
    Text,
    typer.Argument(
        help="A run id, a piece of one, or a job name (job~1: the run before); default: latest.",
        autocompletion=complete.runs,
    ),
]
RunNeeded = Annotated[  # of a run that the command changes
    str,
    typer.Argument(
        help="A run id, a piece of one of this project, or a job name (job~1: the run before).",
        autocompletion=complete.runs,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Job = Annotated[str, typer.Argument(help="A job of this project.", autocompletion=complete.jobs)]
RunList = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(help="Runs; nothing: the latest one.", autocompletion=complete.runs),
]
HostOption = Annotated[
    Text, typer.Option("--host", help="Where; default: ORCH_HOST, then orch.yaml, then `local`.",
                       autocompletion=complete.hosts)
]  # fmt: skip
Profile = Annotated[
    Text,
    typer.Option("--profile", help="A named overlay of the job's spec.",
                 autocompletion=complete.profiles),
]  # fmt: skip
Sets = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", metavar="k.e.y=value", help="Override a config key; repeatable.",
                 autocompletion=complete.overrides),
]  # fmt: skip
Tags = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--tag", metavar="key=value", help="Label the run; repeatable."),
]
Note = Annotated[Text, typer.Option("--note", help="A remark kept with the run.")]
Force = Annotated[bool, typer.Option("--force", help="Submit in spite of findings; recorded.")]
NoCanary = Annotated[
    bool, typer.Option("--no-canary", help="Start at once, without the spec's canary.")
]
Share = Annotated[
    bool, typer.Option("--share", help="Take GPUs that others use too, if the memory suffices.")
]
Queue = Annotated[bool, typer.Option("--queue", help="Wait while others use the GPUs.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Follow the log until the run ends.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and stop.")]
DryRunJson = Annotated[
    bool, typer.Option("--json", help="With --dry-run: one JSON document on stdout.")
]
