"""What commands say: documents and sentences made of results, and the log on its way out."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from orchestrator import outlet, render, runjson, runtext, sanitize
from orchestrator.clock import age_words, span_words
from orchestrator.domain import Event, Finding, Host, Run, RunState
from orchestrator.progress import FollowProgress
from orchestrator.tables import style_of
from orchestrator.wording import counted, size

if TYPE_CHECKING:
    from pathlib import Path

    from orchestrator.manifest import Scan
    from orchestrator.report.content import Account
    from orchestrator.usecases.check import Preflight
    from orchestrator.usecases.fetch import Report
    from orchestrator.usecases.hosts import Check, Listed
    from orchestrator.usecases.jobs import JobLine
    from orchestrator.usecases.plan import Plan
    from orchestrator.usecases.reconcile import Foreign, HostAccount

STDOUT = style_of(sys.stdout, os.environ)
STDERR = style_of(sys.stderr, os.environ)


# --- documents for --json -------------------------------------------------------------------------


def document(value: Any) -> None:
    """One JSON document, the only thing on stdout."""
    render.emit(runjson.json_text(value))


def runs_document(runs: Sequence[Run]) -> None:
    document([runjson.to_json(run) for run in runs])


def run_document(run: Run, events: Sequence[Event]) -> None:
    document(runjson.to_json(run, events))


def preflight_document(found: Preflight) -> dict[str, Any]:
    return {
        "job": found.spec.name,
        "ok": found.ok,
        "config_hash": found.config_hash,
        "findings": [finding_json(finding) for finding in found.findings],
    }


def finding_json(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity.value,
        "rule": finding.rule,
        "key": finding.key,
        "ours": runjson.plain(finding.ours),
        "reference": runjson.plain(finding.reference),
        "message": finding.message,
        "waived": finding.waived,
    }


def plan_document(plan: Plan) -> dict[str, Any]:
    """What a submit would do; see `plan_text`."""
    scan = _scan(plan)
    return {
        **preflight_document(plan.found),
        "profile": plan.spec.profile,
        "host": plan.host.name,
        "code": {"tree": scan.tree, "files": scan.count, "bytes": scan.size},
        "left_out": [{"path": path, "why": why} for path, why in (*scan.skipped, *plan.left_out)],
        "data": [
            {"name": source.name, "from": folder and str(folder), "at": source.at}
            for source, folder in plan.data
        ],
        "canary": plan.canary and {"argv": list(plan.canary.argv), "time": plan.canary.time},
        "stages": [{"name": stage.name, "argv": list(stage.argv)} for stage in plan.spec.stages],
        "started": False,
    }


def report_document(account: Account, paths: Sequence[Path]) -> dict[str, Any]:
    """What an account was written of, and where to."""
    run = account.run
    return {
        "run_id": run.run_id,
        "state": run.state,
        "verdict": run.verdict,
        "outcome": run.outcome,
        "outcome_reasons": list(run.outcome_reasons),
        "accuracy": run.accuracy,
        "against": account.other.run_id if account.other else None,
        "missing": list(account.missing),
        "paths": [str(path) for path in paths],
    }


def jobs_document(found: Sequence[JobLine]) -> list[dict[str, Any]]:
    return [
        {
            "name": line.name,
            "description": line.description,
            "profiles": list(line.profiles),
            "latest": line.latest.run_id if line.latest else None,
            "error": line.error,
        }
        for line in found
    ]


def jobs_text(found: Sequence[JobLine], now: datetime) -> str:
    lines = [
        render.JobLine(line.name, line.description, line.profiles, line.latest, line.error)
        for line in found
    ]
    return render.jobs_table(lines, now, STDOUT)


def hosts_document(found: Sequence[Listed]) -> list[dict[str, Any]]:
    return [
        {
            "name": each.host.name,
            "ssh": each.host.ssh,
            "transport": each.host.transport,
            "python": each.host.python,
            "root": each.host.root,
            "session": each.host.session,
            "source": each.source,
            "default": each.default,
            "trusted": each.trusted,
        }
        for each in found
    ]


def doctor_document(host: Host, checks: Sequence[Check]) -> dict[str, Any]:
    return {
        "host": host.name,
        "ok": all(check.level != "fail" for check in checks),
        "checks": [{"level": c.level, "name": c.name, "text": c.text} for c in checks],
    }


def accounts_document(accounts: Sequence[HostAccount]) -> list[dict[str, Any]]:
    return [
        {
            "host": account.host,
            "reached": account.error is None,
            "error": account.error.message if account.error else None,
            "runs": [
                {"before": state_document(before), **runjson.to_json(after)}
                for before, after in account.settled
            ],
            "vanished": account.vanished,
            "taken": [runjson.to_json(run) for run in account.taken],
            "foreign": [
                {
                    "run_id": run.run_id,
                    "job": run.job,
                    "project": run.project,
                    "created_at": run.created_at,
                }
                for run in account.foreign
            ],
        }
        for account in accounts
    ]


def state_document(run: Run) -> dict[str, Any]:
    verdict = run.verdict.value if run.verdict else None
    return {"state": run.state.value, "verdict": verdict, "attempt": run.attempt}


# --- text -----------------------------------------------------------------------------------------


def preflight_text(found: Preflight) -> str:
    verdict = "ok" if found.ok else "refused"
    head = f"{found.spec.name}: {verdict}\nconfig {found.config_hash}\n"
    return head + render.findings(found.findings, STDOUT)


def plan_text(plan: Plan) -> str:
    """What a submit would do, for --dry-run."""
    scan = _scan(plan)
    lines = [
        f"job      {plan.spec.name}" + (f" ({plan.spec.profile})" if plan.spec.profile else ""),
        f"host     {plan.host.name}",
        f"config   {plan.found.config_hash}",
        f"snapshot {scan.tree} ({counted(scan.count, 'file')}, {size(scan.size)})",
        *(f"left out {path} ({why})" for path, why in (*scan.skipped, *plan.left_out)),
        *(f"data     {source.name}: {folder or source.at}" for source, folder in plan.data),
        *_canary_lines(plan),
        *(f"command  {_pasted(stage.argv)}" for stage in plan.spec.stages),
        "nothing was sent, nothing was started",
    ]
    return "".join(sanitize.line(line) + "\n" for line in lines)


def _canary_lines(plan: Plan) -> list[str]:
    if plan.canary is None:
        return []
    limit = span_words(plan.canary.time)
    return [f"canary   {_pasted(plan.canary.argv)} (first, {limit} at most)"]


def _pasted(argv: Sequence[str]) -> str:
    """As a shell takes it; the lines of a text are one here."""
    return shlex.join(sanitize.folded(word) if "\n" in word else word for word in argv)


def _scan(plan: Plan) -> Scan:
    from orchestrator import manifest
    from orchestrator.paths import LocalLayout

    layout = LocalLayout.from_environment(os.environ)
    return manifest.scan_project(
        plan.project,
        plan.listing,
        layout.hash_cache(plan.project),
        results_dirs=("results", plan.spec.results_dir),
        max_file=plan.max_file,
    )


def accounts_text(accounts: Sequence[HostAccount], now: datetime) -> str:
    """One line a run: what it was, what it is; then what else lies on the hosts."""
    lines = []
    for account in accounts:
        for before, after in account.settled:
            was, is_ = runtext.status_words(before), runtext.status_words(after)
            lines.append(f"{after.run_id}: " + (was if was == is_ else f"{was} -> {is_}"))
            if after.run_id in account.vanished:
                told = f"{account.host} has its directory no more, but processes of it"
                lines.append(f"  {told}: `orch cancel {after.run_id}` ends them")
            if not after.state.is_open:
                lines += [f"  {reason}" for reason in after.outcome_reasons]
        lines += [
            f"{run.run_id}: {runtext.status_words(run)} (now in the ledger)"
            for run in account.taken
        ]
        if account.foreign:
            count = counted(len(account.foreign), "run")
            lines.append(f"{account.host}: {count} that this ledger does not know")
            lines += [f"  {run.run_id}  {_foreign_words(run, now)}" for run in account.foreign]
    reached = dict.fromkeys(account.host for account in accounts if account.error is None)
    if not accounts:
        lines = ["no run is open"]
    elif reached and not lines:
        lines = [f"{', '.join(reached)}: no run is open, and none is there that was not known"]
    return "".join(sanitize.line(line) + "\n" for line in lines)


def _foreign_words(run: Foreign, now: datetime) -> str:
    if run.job is None or run.project is None:
        return "its directory there does not say what it is, so it cannot be taken in"
    age = f", {age_words(runtext.age(run.created_at, now))}" if run.created_at else ""
    return f"{run.job} of {run.project}{age}"


def started_line(run: Run) -> str:
    where = ""
    if run.session is not None:
        where = f" in {run.session.kind} session {run.session.name}"
        if run.session.kind == "plain":
            where = " without a session (no tmux or screen there, or none wanted)"
    if run.state is RunState.FINISHED:
        return ended_line(run)
    word = {RunState.RUNNING: "started", RunState.QUEUED: "queued"}.get(run.state, run.state.value)
    if run.attempt > 1:
        word = f"attempt {run.attempt} {word}"
    return (
        f"{word} on {run.host}{where}\n"
        f"  orch tail {run.run_id} · orch wait {run.run_id} · orch cancel {run.run_id}"
    )


def waiting_line(run: Run) -> str:
    return f"waiting for {run.run_id} on {run.host} ({run.state.value})"


def ended_line(run: Run) -> str:
    words = f"{run.run_id}: {runtext.status_words(run)}"
    if run.accuracy is not None:
        words += f", accuracy {runtext.accuracy_words(run)}"
    if run.outcome is not None:
        words += f", outcome {run.outcome.value}"
    return words + "".join(f"\n  {reason}" for reason in run.outcome_reasons)


def fetched_line(run: Run, report: Report) -> str:
    words = f"{counted(report.new, 'file')} ({size(report.bytes)}) fetched and verified"
    if report.same:
        words += f", {counted(report.same, 'was', 'were')} here already"
    if report.excluded:
        words += f", {report.excluded} excluded by the spec"
    if run.state is not RunState.FINISHED:
        words += "; the run goes on, so this is partial"
    lines = [f"{words}: {report.path}"]
    lines += [f"  left on the host: {path} ({why})" for path, why in report.left[:20]]
    return "\n".join(lines)


def tags_text(run: Run) -> str:
    return "".join(sanitize.line(f"{k}={v}") + "\n" for k, v in sorted(run.tags.items()))


def note_text(run: Run) -> str:
    return sanitize.text(run.note or "") + "\n"


# --- the log --------------------------------------------------------------------------------------


class LogSink:
    """Where a followed log goes: the log on stdout, progress and notices on stderr."""

    def __init__(self, raw: bool) -> None:
        self._raw = raw
        self._progress = FollowProgress(sys.stdout, sys.stderr, STDERR, time.monotonic)
        self._sanitizer = sanitize.LogSanitizer()

    def log(self, data: bytes) -> None:
        if self._raw:
            with outlet.to_stdout():
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            self._progress.at_line_start = data.endswith(b"\n")
        else:
            self._text(self._sanitizer.feed(data))

    def _text(self, text: str) -> None:
        self._progress.log(text)

    def marker(self, text: str) -> None:
        if self._raw:
            self.notice(text)
        else:
            self._text(f"\n[orch] {sanitize.line(text)}\n")

    def progress(self, record: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl: `progress` in [0, 1] and what else is worth a glance."""
        fraction, eta = record.get("progress"), record.get("eta_s")
        if self._raw or not isinstance(fraction, (int, float)) or not 0 <= fraction <= 1:
            return
        phase = sanitize.line(str(record.get("phase") or ""))[:40]
        for name in ("step", "loss", "accuracy"):
            value = record.get(name)
            if _is_number(value):
                phase += f" {name} {value:.4g}"
        with suppress(OSError):  # a stderr that nobody reads any more
            self._progress.update(fraction, phase.strip(), eta if _is_number(eta) else None)

    def notice(self, text: str) -> None:
        self.below()
        render.say(f"orch: {text}")

    def look(self) -> None:
        outlet.look()

    def below(self) -> None:
        """What is said next begins a line of its own; also when the sink is closed."""
        self._progress.interrupt()

    def __enter__(self) -> LogSink:
        return self

    def __exit__(self, *_exc: object) -> None:
        if not self._raw:
            self._text(self._sanitizer.finish())
        self._progress.close()


@contextmanager
def fetch_progress() -> Iterator[Callable[[Report], None]]:
    """Bytes as they come, on a terminal; the total is not known before the end."""
    with FollowProgress(sys.stdout, sys.stderr, STDERR, time.monotonic) as bar:

        def show(report: Report) -> None:
            if STDERR.width is not None and report.bytes > 4_000_000:
                bar.update(None, f"{counted(report.new, 'file')}, {size(report.bytes)} fetched")

        yield show


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value


def detached_line(run: Run) -> str:
    """`run` as it was known when following began."""
    if not run.state.is_open:
        return f"interrupted; the run had ended. `orch tail {run.run_id}` shows its log again"
    comes, ends = f"orch tail {run.run_id}", f"orch cancel {run.run_id}"
    return f"detached; the run goes on. `{comes}` comes back, `{ends}` ends it"
