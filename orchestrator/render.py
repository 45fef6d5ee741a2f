"""What people and programs read: the tables, the documents, and the only place that prints.

Text from a host, a spec or a user is made safe for the terminal on its way; see `sanitize`. Nothing
here imports a rendering library but the progress displays, when the first of them is drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from orchestrator import outlet, sanitize
from orchestrator.clock import age_words
from orchestrator.domain import Finding, Host, Run, Severity
from orchestrator.runjson import json_text, to_json
from orchestrator.runtext import (
    age,
    ledger_row,
    outcome_colours,
    percent,
    ran_for,
    show_text,
    status_colours,
    status_words,
)
from orchestrator.tables import PLAIN, RUN_ID, Cell, Column, Style, layout, style_of

__all__ = [
    "Cell",
    "Column",
    "FollowProgress",
    "HostLine",
    "JobLine",
    "PLAIN",
    "Style",
    "doctor_report",
    "emit",
    "findings",
    "hosts_table",
    "jobs_table",
    "json_text",
    "layout",
    "ledger_row",
    "ls_table",
    "say",
    "show_text",
    "style_of",
    "to_json",
]

if TYPE_CHECKING:
    from orchestrator.progress import FollowProgress

Level = Literal["ok", "warn", "fail"]


class JobLine(NamedTuple):
    """One job of the project as `orch jobs` lists it; `error`: why its spec cannot be read."""

    name: str
    description: str = ""
    profiles: tuple[str, ...] = ()
    latest: Run | None = None
    error: str | None = None


class HostLine(NamedTuple):
    """One host as `orch host ls` lists it; `source`: the file that names it."""

    host: Host
    source: str = ""
    default: bool = False
    trusted: bool | None = None  # None: cannot be known, or nothing to trust (local)


def __getattr__(name: str) -> Any:
    """The progress display, loaded when a command asks for it."""
    if name == "FollowProgress":
        from orchestrator.progress import FollowProgress

        return FollowProgress
    raise AttributeError(name)


# --- printing -------------------------------------------------------------------------------------


def emit(text: str, stream: TextIO | None = None) -> None:
    """Data, to stdout as it is; the caller has made it safe and ended it with a line feed."""
    if stream is None:
        with outlet.to_stdout():
            emit(text, sys.stdout)
        return
    stream.write(_encodable(text, stream))
    stream.flush()


def say(text: str, stream: TextIO | None = None) -> None:
    """Prose, made safe, as a line of its own on stderr."""
    emit(sanitize.text(text) + "\n", sys.stderr if stream is None else stream)


def _encodable(text: str, stream: TextIO) -> str:
    """The text with escapes for what the stream's encoding (LANG=C: ASCII) cannot hold."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


# --- tables ---------------------------------------------------------------------------------------

_LS = (
    Column("RUN", least=RUN_ID + 2),
    Column("JOB", drop=-2, shrink=True),
    Column("STATUS"),
    Column("OUTCOME"),
    Column("ACCURACY", right=True, drop=-1),
    Column("CONFIG", drop=4),
    Column("HOST", drop=3, shrink=True),
    Column("CREATED", right=True, drop=2),
    Column("RAN FOR", right=True, drop=5),
    Column("TAGS", drop=6, shrink=True),
    Column("NOTE", drop=7, shrink=True),
)


def ls_table(
    runs: Sequence[Run],
    now: datetime,
    style: Style = PLAIN,
    *,
    unreachable: Collection[str] = (),
) -> str:
    """One line a run, in the order given. `unreachable`: names of hosts just found silent."""
    rows = [_ls_row(run, now, unreachable=run.host in unreachable) for run in runs]
    return layout(_LS, rows, style)


def _ls_row(run: Run, now: datetime, *, unreachable: bool) -> list[str | Cell]:
    superseding = " *" if run.supersedes else ""
    return [
        run.run_id + superseding,
        run.job,
        Cell(
            status_words(run, now, unreachable=unreachable and run.state.is_open),
            status_colours(run),
        ),
        Cell(run.outcome.value if run.outcome else "", outcome_colours(run)),
        percent(run.accuracy),
        run.config_hash[:11],
        run.host,
        age_words(age(run.created_at, now)),
        ran_for(run, now),
        " ".join(f"{key}={value}" for key, value in sorted(run.tags.items())),
        run.note or "",
    ]


def jobs_table(jobs: Sequence[JobLine], now: datetime, style: Style = PLAIN) -> str:
    """One line a job: what it is, its profiles, how its latest run went."""
    columns = (
        Column("JOB", shrink=True),
        Column("LATEST RUN", shrink=True),
        Column("ACCURACY", right=True),
        Column("PROFILES", drop=1, shrink=True),
        Column("DESCRIPTION", drop=2, shrink=True),
    )
    rows: list[list[str | Cell]] = []
    for job in jobs:
        latest, accuracy = Cell("never run", ("dim",)), ""
        if job.latest is not None:
            when = age_words(age(job.latest.created_at, now))
            outcome = f", {job.latest.outcome.value}" if job.latest.outcome else ""
            latest = Cell(
                f"{status_words(job.latest)}{outcome}, {when}", status_colours(job.latest)
            )
            accuracy = percent(job.latest.accuracy)
        about = Cell(sanitize.folded(job.description))
        if job.error is not None:
            about = Cell(job.error, ("red",))
        rows.append([job.name, latest, accuracy, " ".join(job.profiles), about])
    return layout(columns, rows, style)


def hosts_table(hosts: Sequence[HostLine], style: Style = PLAIN) -> str:
    """One line a host: how it is reached and where it was named."""
    columns = (
        Column("HOST"),
        Column("REACHED BY"),
        Column("KEY"),
        Column("SESSION", drop=2),
        Column("ROOT", drop=1, shrink=True),
        Column("NAMED IN", drop=3, shrink=True),
    )
    trust = {
        True: Cell("trusted", ("green",)),
        False: Cell("unknown: orch host trust", ("yellow",)),
        None: Cell(""),
    }
    rows: list[list[str | Cell]] = []
    for each in hosts:
        host = each.host
        reached = "this machine" if host.is_local else f"ssh {host.ssh or host.name}"
        name = host.name + (" (default)" if each.default else "")
        key = trust[each.trusted]
        if each.trusted is None and not host.is_local:
            key = Cell("?", ("yellow",))
        rows.append([name, reached, key, host.session, host.root, each.source])
    return layout(columns, rows, style)


_SEVERITIES = {
    Severity.ERROR: ("error", "red"),
    Severity.WARNING: ("warning", "yellow"),
    Severity.INFO: ("info", "dim"),
}


def findings(found: Sequence[Finding], style: Style = PLAIN) -> str:
    """One block a finding, the refusing ones first; empty for none."""
    order = sorted(found, key=lambda f: (not f.refuses, list(Severity).index(f.severity)))
    return "".join(_finding(each, style) for each in order)


def _finding(each: Finding, style: Style) -> str:
    word, colour = _SEVERITIES[each.severity]
    if each.waived is not None:
        word, colour = "waived", "dim"
    key = f" {each.key}:" if each.key and each.key not in each.message else ""
    lines = style.paint(f"{word:<8}", colour) + sanitize.line(f"{each.rule}:{key} {each.message}")
    if each.waived is not None:
        lines += "\n" + " " * 8 + sanitize.line(f"reason: {each.waived}")
    return lines + "\n"


_LEVELS = {"ok": ("ok", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}


def doctor_report(report: Sequence[tuple[Level, str, str]], style: Style = PLAIN) -> str:
    """One line a check: how it went, its name, what was seen; then how many of each."""
    rows: list[list[str | Cell]] = []
    for level, name, text in report:
        word, colour = _LEVELS[level]
        rows.append([Cell(word, (colour,)), name, sanitize.text(text).replace("\n", "; ")])
    table = layout((Column(""), Column("CHECK"), Column("")), rows, Style(style.colour))
    counts = [(sum(r[0] == level for r in report), word) for level, (word, _) in _LEVELS.items()]
    return table + ", ".join(f"{count} {word.lower()}" for count, word in counts) + "\n"
