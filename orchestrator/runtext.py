"""One run as text for people: all of it, or the short block that ends a retrain. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestrator import sanitize, scalars
from orchestrator.checks.binomial import wilson
from orchestrator.clock import age_words, iso, parse_iso, seconds_between, span_words
from orchestrator.domain import Event, Fetched, Outcome, Run, RunState, Verdict
from orchestrator.nested import leaves
from orchestrator.recorded import examples
from orchestrator.tables import PLAIN, Cell, Column, Style, layout

_STALE = 60.0  # seconds without an answer from the host that are worth a word
_LABEL = 12
_WIDEST = 60  # characters of a value that is shown in brief

VERDICT_COLOURS = {
    Verdict.SUCCEEDED: ("green",),
    Verdict.CANCELLED: ("yellow",),
    Verdict.NEVER_STARTED: ("yellow",),
}
OUTCOME_COLOURS = {
    Outcome.OK: ("green",),
    Outcome.UNVERIFIED: ("dim",),
    Outcome.BELOW_TARGET: ("yellow",),
}


def show_text(
    run: Run,
    events: Sequence[Event],
    now: datetime,
    style: Style = PLAIN,
    *,
    unreachable: bool = False,
    gone: bool = False,
) -> str:
    """Everything about a run, ended by a line feed. `unreachable`: its host was just now silent.

    `gone`: the folder its results were fetched to is not there any more.
    """
    blocks = [
        _head(run, now, style, unreachable)
        + _result(run, style)
        + _origin(run, gone)
        + _times(run, now),
        _matrix(run, style),
        _mapping("config", run.config, style),
        _mapping("metrics", run.metrics, style),
        _mapping("overrides", run.overrides, style),
        _mapping("data", run.data, style),
        _findings(run, style),
        _timeline(events, style),
    ]
    return "\n".join(block for block in blocks if block)


def ledger_row(run: Run, style: Style = PLAIN) -> str:
    """What the ledger ties together, in a few lines: run, config hash, accuracy, outcome."""
    lines = _field("run", run.run_id)
    lines += _field("job", run.job + (f" ({run.profile})" if run.profile else ""))
    lines += _field("config", run.config_hash)
    lines += _field("accuracy", accuracy_words(run))
    lines += _field("outcome", _outcome(run, style), safe=True)
    for reason in run.outcome_reasons:
        lines += _field("", "- " + reason)
    lines += _field("status", style.paint(status_words(run), *status_colours(run)), safe=True)
    lines += _field("supersedes", run.supersedes)
    lines += _field("results", run.results_path)
    return lines


# --- words, shared with the table of runs ---------------------------------------------------------


def status_words(run: Run, now: datetime | None = None, *, unreachable: bool = False) -> str:
    """The verdict of a run that has ended, else its state.

    `running`, `running (last seen 14 min ago, host unreachable)`, `failed (exit 1)`, ...
    """
    if run.state is RunState.FINISHED:
        return _verdict_words(run)
    told = []
    if now is not None and run.last_seen_at is not None and run.state is not RunState.INTENT:
        silent = age(run.last_seen_at, now)
        if unreachable or silent >= _STALE:
            told.append(f"last seen {age_words(silent)}")
    if unreachable:
        told.append("host unreachable")
    return f"{run.state.value} ({', '.join(told)})" if told else str(run.state.value)


def _verdict_words(run: Run) -> str:
    verdict = run.verdict.value if run.verdict else "finished"
    if run.verdict is Verdict.CANCELLED:
        return verdict
    if run.signal is not None and run.cause in (None, "signal", verdict):
        return f"{verdict} (signal {run.signal})"
    if run.exit_code and run.verdict is not Verdict.KILLED:
        return f"{verdict} (exit {run.exit_code})"
    told = run.cause if run.cause not in (None, run.verdict and run.verdict.value) else None
    return f"{verdict} ({told.replace('_', ' ')})" if told else verdict


def status_colours(run: Run) -> tuple[str, ...]:
    if run.verdict is not None:
        return VERDICT_COLOURS.get(run.verdict, ("red",))
    return ("yellow",) if run.state is RunState.UNKNOWN else ("cyan",)


def outcome_colours(run: Run) -> tuple[str, ...]:
    return () if run.outcome is None else OUTCOME_COLOURS.get(run.outcome, ("red",))


def percent(value: float | None) -> str:
    """`87.3 %`; a number outside [0, 1] is no share and stays as it is."""
    if value is None:
        return ""
    return f"{value * 100:.1f} %" if 0.0 <= value <= 1.0 else f"{value:.6g}"


def accuracy_words(run: Run) -> str:
    """`87.3 % (95 % interval 84.9 to 89.3 %, n = 872; best possible 90.1 %)`, or `none`."""
    if run.accuracy is None:
        return "none"
    about = []
    trials = examples(run)
    if trials and 0.0 <= run.accuracy <= 1.0:
        low, high = wilson(run.accuracy, trials)
        about.append(f"95 % interval {low * 100:.1f} to {high * 100:.1f} %, n = {trials}")
    best = run.metrics.get("bayes_accuracy")
    if isinstance(best, (int, float)) and not isinstance(best, bool):
        about.append(f"best possible {percent(float(best))}")
    return percent(run.accuracy) + (f" ({'; '.join(about)})" if about else "")


def age(at: str, now: datetime) -> float:
    """Seconds from the ISO time to now; 0 for a text that is no time."""
    try:
        return (now - parse_iso(at)).total_seconds()
    except ValueError:
        return 0.0


def submit_words(run: Run) -> list[str]:
    """The command that submits the same again."""
    words = ["orch", "submit", run.job]
    words += ["--profile", run.profile] if run.profile else []
    for key, value in run.overrides.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return [*words, "--host", run.host]


def ran_for(run: Run, now: datetime) -> str:
    """`3 h 20 min`, of a run that goes on until now; empty when it has not begun."""
    seconds = ran_seconds(run, now)
    return "" if seconds is None else span_words(seconds)


def ran_seconds(run: Run, now: datetime) -> float | None:
    if run.started_at is None or (run.ended_at is None and not run.state.is_open):
        return None
    try:
        return seconds_between(run.started_at, run.ended_at or iso(now))
    except ValueError:
        return None


def event_words(event: Event, *, places: bool = True) -> list[str]:
    """What an event of the timeline tells, each piece short but for words of a guard or a notifier.

    `places`: also on which machine and under which root, which is of no use elsewhere.
    """
    data = dict(event.data)
    message = data.get("message")
    if event.kind in ("guard", "notify"):
        return [f"{data.get('action') if data.get('acted') else 'warning'}: {message}"]
    if event.kind in ("leftover", "changed", "mended"):
        return [str(message)]
    told = []
    place, session = data.pop("place", None), data.get("session")
    if session and isinstance(session, (list, tuple)):
        data["session"] = session[0]  # its name is made of the run's
    for key, value in data.items():
        if isinstance(value, (list, tuple)):
            value = ", ".join(brief(each) for each in value if not isinstance(each, Mapping))
        if value and key not in _TOLD_ABOVE and not isinstance(value, Mapping):
            name = "" if key == event.kind else key.replace("_", " ") + " "
            told.append(name + brief(value))
    if places and isinstance(place, (list, tuple)) and len(place) > 1:
        told.append(f"on {place[0]} under {place[1]}")
    return told


_TOLD_ABOVE = ("started_at", "results_path")  # what the run's own lines tell


def brief(value: Any) -> str:
    """A text as it is, another value as JSON; a hash, or what is long, by its start."""
    told = value if isinstance(value, str) else json.dumps(value, default=str)
    if told.startswith(("c1:", "s1:")):
        return told[:15]  # enough to tell it from another
    return told if len(told) <= _WIDEST else told[: _WIDEST - 1] + "…"


def brief_value(of: Any) -> str:
    """As `brief`, of a value that has a type: a text that looks like one of another is quoted."""
    return brief(as_typed(of))


def as_typed(of: Any) -> str:
    """As JSON, but for a text that is taken for nothing else without its quotes."""
    if not isinstance(of, str):
        return json.dumps(of, default=str)
    return of if scalars.is_plain_text(of) else json.dumps(of, ensure_ascii=False)


# --- the parts of `show` --------------------------------------------------------------------------


def _head(run: Run, now: datetime, style: Style, unreachable: bool) -> str:
    status = status_words(run, now, unreachable=unreachable)
    if run.attempt > 1:
        status += f", attempt {run.attempt}"
    return (
        _field("run", style.paint(sanitize.line(run.run_id), "bold"), safe=True)
        + _field("job", run.job + (f" ({run.profile})" if run.profile else ""))
        + _field("status", style.paint(sanitize.line(status), *status_colours(run)), safe=True)
    )


def _result(run: Run, style: Style) -> str:
    lines = _field("outcome", _outcome(run, style), safe=True) if run.outcome else ""
    for reason in run.outcome_reasons:
        lines += _field("", "- " + reason)
    return lines + (_field("accuracy", accuracy_words(run)) if run.accuracy is not None else "")


def _outcome(run: Run, style: Style) -> str:
    return style.paint(run.outcome.value if run.outcome else "none", *outcome_colours(run))


def _results(run: Run, gone: bool) -> str | None:
    again = "orch fetch-results " + run.run_id
    if run.results_path:
        told = f"not there any more: {again}" if gone else run.fetched.value
        return f"{run.results_path} ({told})"
    ran = run.state is RunState.FINISHED and run.verdict is not Verdict.NEVER_STARTED
    return f"not fetched: {again}" if ran and run.fetched is Fetched.NONE else None


def _origin(run: Run, gone: bool) -> str:
    git = run.git_commit and run.git_commit + (" + changes" if run.git_dirty else "")
    session = f"{run.session.kind} {run.session.name}" if run.session else None
    lines = _field("config", run.config_hash)
    lines += _field("snapshot", run.snapshot) + _field("git", git) + _field("host", run.host)
    lines += _field("session", session) + _field("project", run.project)
    lines += _field("results", _results(run, gone)) + _field("supersedes", run.supersedes)
    lines += _field("tags", " ".join(f"{k}={v}" for k, v in sorted(run.tags.items())))
    lines += _field("forced", "submitted with --force" if run.forced else None)
    return lines + _field("note", run.note)


def _times(run: Run, now: datetime) -> str:
    lines = _field("created", _moment(run.created_at, now))
    if run.started_at:
        lines += _field("started", _moment(run.started_at, now))
    if run.ended_at:
        lines += _field("ended", _moment(run.ended_at, now))
    lines += _field("ran for", _ran_for(run, now))
    if run.last_seen_at and run.state.is_open:
        lines += _field("last seen", _moment(run.last_seen_at, now))
    return lines


def _ran_for(run: Run, now: datetime) -> str:
    told = ran_for(run, now)
    alone = told and run.attempt > 1
    return f"{told} (attempt {run.attempt}; the timeline has those before)" if alone else told


def _moment(at: str, now: datetime) -> str:
    return f"{at[:19].replace('T', ' ')} UTC ({age_words(age(at, now))})"


def _field(name: str, value: str | None, *, safe: bool = False) -> str:
    """`name        value`, nothing for no value. `safe`: the value has our colours in it."""
    if not value:
        return ""
    return f"{name:<{_LABEL}}{value if safe else sanitize.line(value)}\n"


def _matrix(run: Run, style: Style) -> str:
    """Rows are what is true, columns what was predicted."""
    matrix = run.confusion_matrix
    if not matrix:
        return ""
    size = max(len(matrix), *(len(row) for row in matrix))
    labels = [run.labels[i] if i < len(run.labels) else str(i) for i in range(size)]
    columns = [Column("true \\ predicted")] + [Column(_short(each), right=True) for each in labels]
    lines = []
    for truth, row in enumerate(matrix):
        cells = [str(row[i]) if i < len(row) else "" for i in range(size)]
        hits = [Cell(t, ("green",) if i == truth else ()) for i, t in enumerate(cells)]
        lines.append([Cell(_short(labels[truth])), *hits])
    return _title("confusion matrix", style) + _indent(layout(columns, lines, style))


def _short(label: str) -> str:
    safe = sanitize.line(label)
    return safe if len(safe) <= 24 else safe[:23] + "…"


def _mapping(title: str, value: Mapping[str, Any], style: Style) -> str:
    if not value:
        return ""
    lines = []
    for key, item in leaves(value):
        lines.append(f"  {sanitize.line(key)}: {sanitize.line(as_typed(item))}\n")
    return _title(title, style) + "".join(lines)


def _findings(run: Run, style: Style) -> str:
    lines = []
    for each in run.findings:
        waived = f" (waived: {each['waived']})" if each.get("waived") else ""
        told = f"{each.get('severity', '')} {each.get('rule', '')}: {each.get('message', '')}"
        lines.append(f"  {sanitize.line(told + waived)}\n")
    return _title("findings at submit", style) + "".join(lines) if lines else ""


def _timeline(events: Sequence[Event], style: Style) -> str:
    lines = []
    for each in events:
        at = each.at[:19].replace("T", " ")
        told = ", ".join(event_words(each))
        lines.append("  " + sanitize.line(f"{at}  {each.kind:<13} {told}").rstrip() + "\n")
    return _title("timeline (UTC)", style) + "".join(lines) if lines else ""


def _title(text: str, style: Style) -> str:
    return style.paint(text, "bold") + "\n"


def _indent(text: str) -> str:
    return "".join("  " + each for each in text.splitlines(keepends=True))
