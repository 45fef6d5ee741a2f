"""A report of a run: facts from the ledger, its host and its fetched results; files written."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator import outlet, sanitize
from orchestrator.domain import Fetched, Run, RunState
from orchestrator.errors import NotFound, UsageError
from orchestrator.ledger.store import Ledger
from orchestrator.paths import results_of
from orchestrator.report.content import Account, report_of
from orchestrator.report.curves import Curves, read_curves
from orchestrator.report.html import to_html
from orchestrator.report.mark import is_report, is_untouched, sealed
from orchestrator.report.markdown import to_markdown
from orchestrator.usecases.compare import compared
from orchestrator.usecases.context import Context
from orchestrator.usecases.evidence import Hosts, environment_of
from orchestrator.usecases.listing import one, results_are_gone

LOG_BYTES = 64 * 1024
LOG_LINES = 30
WRITERS = {".html": to_html, ".md": to_markdown}


def report(
    ctx: Context, selector: str | None, against: str | None, output: str | None
) -> tuple[Account, list[Path]]:
    """The files written: `output`, or one of each kind beside the run's results."""
    if output is not None and Path(output).suffix not in WRITERS:
        raise UsageError(f"{output}: a report is written as .html or .md", hint="-o report.html")
    with ctx.ledger_or_copy() as ledger:
        run, _ = one(ctx, ledger, selector)
        account = account_of(ctx, ledger, run, against)
    made = report_of(account)
    if output is not None:
        paths = [_may_hold(ctx.cwd / output)]
    else:
        asked = account.other if against is not None else None
        paths = [_free(ctx, path) for path in _beside(ctx, run, asked)]
    for path in paths:
        outlet.write(path, sealed(WRITERS[path.suffix](made)))
    return account, paths


def account_of(ctx: Context, ledger: Ledger, run: Run, against: str | None) -> Account:
    other, relation = _other(ctx, ledger, run, against)
    missing: list[str] = []
    with Hosts(ctx) as hosts:
        told = hosts.ask([run], log=LOG_BYTES).get(run.run_id)
        environment = environment_of(ctx, ledger, run, told)
        why = hosts.silent(run) or "the host does not have it any more"
    log = None
    if told is None or told.log is None:
        missing.append(f"log: {why}")
    else:
        log = _last_lines(told.log)
    if environment is None:
        why = "none was recorded" if told is not None else why
        missing.append(f"environment: {why}")
    curves = curves_of(run)
    if curves is None:
        missing += _no_curves(run)
    comparison = compared(ctx, ledger, [other, run]) if other is not None else None
    return Account(
        run=run,
        events=ledger.events(run.run_id),
        now=ctx.clock.now(),
        curves=curves,
        log=log,
        environment=environment,
        other=other,
        relation=relation,
        comparison=comparison,
        other_curves=curves_of(other) if other is not None else None,
        missing=[*missing, *(comparison.missing if comparison else ())],
    )


def _no_curves(run: Run) -> list[str]:
    """Why there are none; of a run that goes on only where results of it were fetched."""
    gone = results_are_gone(run)
    if gone or (run.fetched is Fetched.NONE and run.state is RunState.FINISHED):
        more = " any more" if gone else ""
        again = f"`orch fetch-results {run.run_id}` brings them"
        return [f"learning curves: the results are not here{more}; {again}"]
    if run.fetched is Fetched.NONE:
        return []
    return ["learning curves: the results hold no metrics.jsonl"]


def _other(ctx: Context, ledger: Ledger, run: Run, against: str | None) -> tuple[Run | None, str]:
    """The run asked for; else the one that this supersedes; else the job's run before it."""
    if against is not None:
        other = ctx.run(ledger, against)
        if other.run_id == run.run_id:
            raise UsageError(
                f"{run.run_id} cannot be reported against itself",
                hint="--against names another run; `orch ls` lists them",
            )
        return other, "as asked"
    if run.supersedes and (other_ := ledger.find(run.supersedes)) is not None:
        return other_, "the run that this one supersedes"
    earlier = [
        each
        for each in ledger.runs(project=run.project, job=run.job)
        if each.run_id < run.run_id and each.started_at is not None
    ]
    return (earlier[0], "the job's run before this one") if earlier else (None, "")


def curves_of(run: Run) -> Curves | None:
    """The run's curves, from its fetched results."""
    return read_curves(_results(run) / "metrics.jsonl")


def _results(run: Run) -> Path:
    """Where they were fetched to, or would be."""
    return Path(run.results_path or results_of(Path(run.project), run.job, run.run_id))


def _last_lines(log: str) -> str:
    sanitizer = sanitize.LogSanitizer()
    text = sanitizer.feed(log.encode("utf-8", "replace")) + sanitizer.finish()
    lines = text.splitlines()
    cut = lines[-LOG_LINES:]
    return "\n".join(line[:2000] for line in cut)


def _beside(ctx: Context, run: Run, against: Run | None) -> list[Path]:
    """The reports' own names in the folder of the job's results."""
    if run.results_path:
        folder = Path(run.results_path).parent
    else:
        folder = results_of(ctx.folder_of(run), run.job, run.run_id).parent
    if not folder.parent.parent.is_dir():
        raise NotFound(
            f"the run's project folder {run.project} is not there any more",
            hint="name a file: orch report ... -o report.html",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise UsageError(
            f"{folder} cannot be made: {exc.strerror}", hint="name a file: orch report ... -o FILE"
        ) from None
    than = f"-against-{against.run_id}" if against else ""
    return [folder / f"report-{run.run_id}{than}{suffix}" for suffix in WRITERS]


def _may_hold(path: Path) -> Path:
    """`path`, if a report can be written there; UsageError where it would lose someone's work."""
    if (kept := _kept(path)) is not None:
        raise UsageError(f"{kept}; it was left alone", hint="name another file with -o")
    return path


def _free(ctx: Context, path: Path) -> Path:
    """`path`, or the first of `-2`, `-3`, ... beside it that is free; what is kept is said."""
    wanted, number = path, 1
    while (kept := _kept(path)) is not None:
        ctx.say(f"{kept}; it is kept, and the new report gets another name")
        number += 1
        path = wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}")
    return path


def _kept(path: Path) -> str | None:
    """Why the file there is not replaced; None: there is none, or an unchanged report."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        if not os.path.lexists(path):
            return None
        return f"{path} exists and cannot be read: {exc.strerror or exc}"
    if is_untouched(data):
        return None
    if is_report(data):
        return f"{path} may have been changed since orch wrote it"
    return f"{path} exists and is no report"
