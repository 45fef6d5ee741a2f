"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from orchestrator import complete

Text = Optional[str]  # noqa: UP045 - typer resolves these at run time, also on 3.10
RunArg = Annotated[
    Text,
    typer.Argument(
        help="A run id, a prefix or suffix of one, or a job name; nothing: the latest run.",
        autocompletion=complete.runs,
    ),
]
RunNeeded = Annotated[
    str,
    typer.Argument(
        help="A run id, a prefix or suffix of one, or a job name.", autocompletion=complete.runs
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
