"""From what is known of a run to the blocks of its report. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator import runtext
from orchestrator.clock import iso
from orchestrator.compare import ABSENT, Comparison, Row
from orchestrator.comparetext import accuracy_line, brief_value, file_words, values_of
from orchestrator.domain import Event, Outcome, Run, Verdict
from orchestrator.nested import leaves
from orchestrator.report import blocks as b
from orchestrator.report import figures
from orchestrator.report.curves import Curves
from orchestrator.wording import counted

DIFF_FILES = 20
REFERENCE_RULES = ("differs", "missing", "extra", "type")


@dataclass(frozen=True, slots=True)
class Account:
    """Everything a report is made of. `relation`: how `other` was chosen, in words."""

    run: Run
    events: Sequence[Event]
    now: datetime
    curves: Curves | None = None
    log: str | None = None  # its end, safe for a terminal
    environment: Mapping[str, Any] | None = None
    other: Run | None = None
    relation: str = ""
    comparison: Comparison | None = None
    other_curves: Curves | None = None
    missing: Sequence[str] = ()  # what could not be had, and why


def report_of(account: Account) -> b.Report:
    """The whole report: outcome and reasons first, how to do it again last."""
    sections = [
        _facts(account),
        _reference(account.run),
        _compared(account),
        figures.curves_section(account.curves, account.other_curves, _other_name(account)),
        figures.matrix_section(account.run),
        _metrics(account.run),
        _timeline(account),
        _log(account),
        _again(account),
        _missing(account),
    ]
    kept = [each for each in sections if each is not None and each.blocks]
    return b.Report(_headline(account), kept, f"Made by orch on {_moment(iso(account.now))}.")


def _moment(at: str | None) -> str:
    return f"{at[:16].replace('T', ' ')} UTC" if at else ""


def _other_name(account: Account) -> str:
    return account.other.run_id if account.other else ""


# --- the headline ---------------------------------------------------------------------------------

_VERDICT_TONES = {
    Verdict.SUCCEEDED: "good",
    Verdict.CANCELLED: "warn",
    Verdict.NEVER_STARTED: "warn",
}
_OUTCOME_TONES = {Outcome.OK: "good", Outcome.UNVERIFIED: "muted", Outcome.BELOW_TARGET: "warn"}


def _headline(account: Account) -> b.Headline:
    run = account.run
    tone = "muted" if run.verdict is None else _VERDICT_TONES.get(run.verdict, "bad")
    badges = [(runtext.status_words(run), tone)]
    outcome_tone = ""
    if run.outcome is not None:
        outcome_tone = _OUTCOME_TONES.get(run.outcome, "bad")
        badges.insert(0, (run.outcome.value.replace("_", " "), outcome_tone))
    if run.forced:
        badges.append(("submitted with --force", "warn"))
    reasons = [(reason, outcome_tone) for reason in run.outcome_reasons]
    figure, about, scale = "no accuracy", "", ""
    if run.accuracy is not None:
        figure, about = runtext.percent(run.accuracy), _accuracy_about(run)
        scale = figures.scale_of(run)
        reasons += _against_majority(run)
    about_run = f"profile {run.profile}" if run.profile else "no profile"
    return b.Headline(
        run.job, f"{about_run} · on {run.host}", run.run_id, badges, figure, about, scale, reasons
    )


def _accuracy_about(run: Run) -> str:
    words = runtext.accuracy_words(run)
    return words.partition(" (")[2].rstrip(")") or "accuracy"


def _against_majority(run: Run) -> list[tuple[str, str]]:
    majority = figures.majority_of(run)
    if majority is None:
        return []
    label, share = majority
    return [(f"always answering {label!r} would give {share * 100:.1f} %", "muted")]


# --- what was run ---------------------------------------------------------------------------------


def _facts(account: Account) -> b.Section:
    run = account.run
    git = run.git_commit and run.git_commit[:12] + (" with changes" if run.git_dirty else ", clean")
    pairs = [
        ("job", run.job + (f", profile {run.profile}" if run.profile else "")),
        ("host", run.host),
        ("machine", _machine(account.environment)),
        ("python", _python(account.environment)),
        ("started", _moment(run.started_at)),
        ("ran for", runtext.ran_for(run, account.now)),
        ("config hash", run.config_hash),
        ("snapshot", run.snapshot or "not sent"),
        ("git", git or "no repository"),
        *((f"data {name}", digest) for name, digest in run.data.items()),
        (
            "overrides",
            " ".join(f"{key}={brief_value(value)}" for key, value in run.overrides.items()),
        ),
        ("tags", " ".join(f"{key}={value}" for key, value in sorted(run.tags.items()))),
        ("supersedes", run.supersedes or ""),
        ("note", run.note or ""),
    ]
    return b.Section("What was run", [b.Facts([pair for pair in pairs if pair[1]])])


def _machine(environment: Mapping[str, Any] | None) -> str:
    if environment is None:
        return ""
    gpus = environment.get("gpus")
    listed = gpus if isinstance(gpus, list) else []
    cards = [str(each.get("name")) for each in listed if isinstance(each, dict)]
    driver = environment.get("driver")
    words = [
        f"{environment.get('cpus')} CPUs",
        " + ".join(cards) or "no GPU used",
        f"driver {driver}" if driver else "",
        str(environment.get("system") or ""),
    ]
    return ", ".join(word for word in words if word)


def _python(environment: Mapping[str, Any] | None) -> str:
    python = (environment or {}).get("python")
    if not isinstance(python, dict) or not python.get("version"):
        return ""
    packages = python.get("packages")
    known = packages if isinstance(packages, dict) else {}
    named = [f"{name} {known[name]}" for name in ("torch", "jax", "tensorflow") if name in known]
    return ", ".join([str(python["version"]), *named, counted(len(known), "package")])


def _reference(run: Run) -> b.Section | None:
    """What the preflight found when the run was submitted, as it was recorded then."""
    if not run.findings:
        return None
    keyed = [each for each in run.findings if each.get("rule") in REFERENCE_RULES]
    others = [each for each in run.findings if each not in keyed]
    blocks: list[b.Block] = []
    strong = [each for each in keyed if each.get("severity") != "info"]
    if strong:
        blocks.append(_findings_table(strong))
    elif keyed:
        blocks.append(b.Text("No key is missing and none differs.", "good"))
    extra = [each for each in keyed if each not in strong]
    if extra:
        word = "key" if len(extra) == 1 else "keys"
        blocks.append(b.Details(f"{len(extra)} more {word}", [_findings_table(extra)]))
    if others:
        order = sorted(others, key=lambda each: _SEVERITIES.get(str(each.get("severity")), 9))
        blocks.append(b.Items([_finding_words(each) for each in order]))
    return b.Section("What the checks said at submit", blocks)


_SEVERITIES = {"error": 0, "warning": 1, "info": 2}


def _finding_words(each: Mapping[str, Any]) -> str:
    waived = f" (waived: {each['waived']})" if each.get("waived") else ""
    return f"{each.get('severity')}: {each.get('message')}{waived}"


def _findings_table(found: Sequence[Mapping[str, Any]]) -> b.Table:
    rows = []
    for each in found:
        waived = each.get("waived")
        rule = str(each.get("rule"))
        ours = brief_value(ABSENT if rule == "missing" else each.get("ours"))
        theirs = brief_value(ABSENT if rule == "extra" else each.get("reference"))
        word = f"waived: {waived}" if waived else rule
        rows.append([str(each.get("key") or ""), ours, theirs, word])
    return b.Table(("key", "this run", "reference", "finding"), rows, code=(0, 1, 2))


# --- against another run --------------------------------------------------------------------------


def _compared(account: Account) -> b.Section | None:
    found, other = account.comparison, account.other
    if found is None or other is None:
        return None
    outcome = f", {other.outcome.value.replace('_', ' ')}" if other.outcome else ""
    told = f"{other.run_id} ({account.relation}): {runtext.status_words(other)}{outcome}"
    if other.accuracy is not None:
        told += f", accuracy {runtext.accuracy_words(other)}"
    result: list[b.Block] = [b.Text(told + ".")]
    if line := accuracy_line(found).strip():
        result.append(b.Text(f"This run against that one: {line}."))
    for section in ("config", "environment", "data"):
        rows = found.differing(section)
        if rows:
            result.append(_rows_table(section, rows))
        elif found.sections[section]:
            result.append(b.Text(f"{section.capitalize()}: the same.", "muted"))
    result += _code(found)
    return b.Section("Against another run", result)


def _rows_table(section: str, rows: Sequence[Row]) -> b.Table:
    lines = []
    for row in rows:
        (_, other), (_, ours) = values_of(section, row)
        lines.append([row.key, ours, other])
    return b.Table((section.capitalize(), "this run", "the other"), lines, code=(0, 1, 2))


def _code(found: Comparison) -> list[b.Block]:
    (change,) = found.code
    if change.same:
        return [b.Text("Code: the same.", "muted")]
    if change.files is None:
        return [b.Text("Code: it differs; what differs could not be had.", "warn")]
    count = len(change.files)
    result: list[b.Block] = [
        b.Text(f"Code: {count} file{' differs' if count == 1 else 's differ'}.")
    ]
    plain = [each for each in change.files if not each.diff]
    shown = [each for each in change.files if each.diff]
    if plain:
        result.append(
            b.Items([f"{each.change}: {file_words(each)}" for each in plain[:DIFF_FILES]])
        )
    for each in shown[:DIFF_FILES]:
        diff = "\n".join(each.diff or ())
        result.append(b.Details(f"{each.change}: {each.path}", [b.Code(diff, "diff")]))
    rest = max(0, len(plain) - DIFF_FILES) + max(0, len(shown) - DIFF_FILES)
    if rest:
        result.append(b.Text(f"And {rest} more; `orch compare` lists them.", "muted"))
    return result


# --- the rest -------------------------------------------------------------------------------------


def _metrics(run: Run) -> b.Section | None:
    told = ("accuracy", "confusion_matrix", "labels")
    rows = [
        [key, value if isinstance(value, str) else json.dumps(value, default=str)[:200]]
        for key, value in leaves(run.metrics)
        if key not in told
    ]
    if not rows:
        return None
    table = b.Table(("metric", "value"), rows, code=(0, 1))
    return b.Section(
        "Final metrics", [table if len(rows) <= 12 else b.Details(f"{len(rows)} values", [table])]
    )


_TONES = {"finished": "good", "never_started": "warn", "unknown": "warn"}
_TITLES = {
    "intent": "recorded",
    "synced": "snapshot on the host",
    "started": "started",
    "seen": "seen",
    "finished": "ended",
    "judged": "judged",
    "fetched": "results fetched",
    "superseded": "superseded",
    "noted": "note",
    "tagged": "tags",
    "environment": "environment recorded",
}


def _timeline(account: Account) -> b.Section:
    moments = []
    for event in account.events:
        tone = _TONES.get(event.kind, "")
        if event.kind == "finished" and account.run.verdict is not Verdict.SUCCEEDED:
            tone = "bad"
        title = _TITLES.get(event.kind, event.kind.replace("_", " "))
        moments.append(b.Moment(event.at[:19].replace("T", " "), title, _event_words(event), tone))
    return b.Section("Timeline (UTC)", [b.Timeline(moments)])


def _event_words(event: Event) -> str:
    if event.kind == "environment":
        return ""
    return " · ".join(runtext.event_words(event, places=False))


def _log(account: Account) -> b.Section | None:
    if account.log is None:
        return None
    return b.Section("The end of the log", [b.Code(account.log.rstrip("\n") or "(empty)", "log")])


def _again(account: Account) -> b.Section:
    run = account.run
    lines = [shlex.join([*runtext.submit_words(run), *(["--force"] if run.forced else [])])]
    notes = [f"The config hash must be {run.config_hash}."]
    if run.git_commit:
        lines.insert(0, f"git checkout {shlex.quote(run.git_commit)}")
        if run.git_dirty:
            notes.append(
                "The tree had changes that are not in that commit; the host keeps it as it was, as "
                f"{run.snapshot}."
            )
    config = json.dumps(run.config, indent=2, ensure_ascii=False, default=str)
    blocks: list[b.Block] = [
        b.Code("\n".join(lines), "sh"),
        b.Text(" ".join(notes)),
        b.Details("The config, resolved", [b.Code(config, "json")]),
    ]
    packages = (account.environment or {}).get("python")
    known = packages.get("packages") if isinstance(packages, dict) else None
    if isinstance(known, dict) and known:
        text = "\n".join(f"{name}=={version}" for name, version in sorted(known.items()))
        blocks.append(b.Details(f"The {counted(len(known), 'python package')}", [b.Code(text)]))
    return b.Section("How to do it again", blocks)


def _missing(account: Account) -> b.Section | None:
    told = account.missing
    return b.Section("What could not be had", [b.Items(list(told))]) if told else None
